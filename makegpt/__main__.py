"""`python -m makegpt STAGE …`: the commands where their own names are taken; without a STAGE, what there are."""

import sys

from makegpt import load


def main() -> None:
    """Do the stage that the first word names."""
    listed = load("stages.__main__")
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print("\n".join(listed.lines()))
    elif name.replace("-", "_") in listed.ORDER:
        sys.argv = [name, *sys.argv[2:]]
        load(f"stages.{name.replace('-', '_')}").main()
    else:
        names = [each.replace("_", "-") for each in listed.ORDER]
        print(f"makegpt: error: there is no command {name!r}; {load('lib.errors').nearest(name, names)}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
