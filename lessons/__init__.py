"""Lessons: `python -m lessons` lists them, `python -m lessons.03_ssa` runs one."""
