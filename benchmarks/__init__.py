"""Measurements: not tests, and never timed in tests. Each prints the command that remakes it."""
