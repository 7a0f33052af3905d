"""`makegpt STAGE …` and `python -m makegpt STAGE …`: every stage under one command."""

from makegpt import load


def main() -> None:
    """Run the stage that the first word names; list the stages if there is none."""
    load("stages.__main__").main()


if __name__ == "__main__":
    main()
