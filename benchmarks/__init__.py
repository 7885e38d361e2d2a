"""Measurements. They are not tests, and no test times them. Each record names the command that repeats it."""
