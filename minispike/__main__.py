"""python -m minispike: see runs/cli.py."""

import sys

from .runs.cli import main

if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a console without "→" shows "?", and nothing stops for it
    sys.exit(main())
