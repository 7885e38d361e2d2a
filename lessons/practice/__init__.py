"""Tasks to practise with; `python -m lessons.practice` lists them. checks.py says how answers are checked."""
