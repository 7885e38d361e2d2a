"""List the lessons, one line each: `python -m lessons`."""

from pathlib import Path


def main() -> None:
    """Print each lesson's command and its title, which is its first line of text."""
    for path in sorted(Path(__file__).parent.glob("[0-9][0-9]_*.py")):
        title = path.read_text(encoding="utf-8").split("\n")[1].removeprefix("# # ")
        print(f"python -m lessons.{path.stem:<16} {title}")


if __name__ == "__main__":
    main()
