"""Lessons: `python -m lessons` lists them, `python -m lessons.03_ssa` (or `python -m lessons 3`) runs one."""

import signal
import sys


def prepare_terminal() -> None:
    """Make a lesson's output end well in any terminal.

    Signs that the terminal cannot show become "?", `| head` ends the lesson quietly, and so does Ctrl-C.
    Under `python -O`, which leaves asserts out, a lesson would claim what it did not check: it does not run.
    """
    if not __debug__:
        sys.exit(
            "the lessons check what they claim by assert, which python -O leaves out: run them without -O"
        )
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGINT, lambda *_: sys.exit("\nstopped"))


if sys.argv[0] == "-m":  # a lesson is being run, not imported
    prepare_terminal()
