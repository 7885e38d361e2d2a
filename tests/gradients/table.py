"""The one table of gradient checks: name → row. rows.py says what a row is."""

from . import blocks, models, ops
from .rows import plain_rows

OPS = ops.ROWS | plain_rows(ops.ROWS)  # an op and its faster form have a row each
PARTS = OPS, blocks.ROWS, models.ROWS
TABLE = {name: row for part in PARTS for name, row in part.items()}
