"""What an artifact is, and its way back to the text."""

if __name__ == "inspect":  # python stages/FILE.py was run, and this file hides the module of the standard library
    import sys

    name = sys.argv[0].replace("\\", "/").rpartition("/")[2].removesuffix(".py")
    command = name.replace("_", "-")
    print(f"{command}: error: run it as `{command}` or `python -m stages.{name}`, not as a file", file=sys.stderr)
    sys.exit(2)

import json
from pathlib import Path

import click

from stages.shared.command import Stage
from stages.shared.streams import say


@click.command("inspect", cls=Stage)
@click.argument("path", type=click.Path(path_type=Path), metavar="PATH")
@click.option("--verify", is_flag=True, help="Verify the SHA-256 of every file, back to the tokens.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(path: Path, verify: bool, as_json: bool) -> None:
    """Tell what the artifact at PATH is: a tokens, dataset or run folder, a shard, a checkpoint or a tokenizer."""
    from lib.run.lineage import describe_artifact, lineage_lines, verify_lineage

    description = describe_artifact(path)
    click.echo(json.dumps(description, indent=2) if as_json else "\n".join(lineage_lines(description)))
    if verify:
        checked, missing = verify_lineage(path if path.is_dir() else path.parent)
        for folder in checked:
            say(f"{folder}: every file is as it was written")
        for folder in missing:
            say(f"{folder}: it no longer exists, so it was not checked")


if __name__ == "__main__":
    main()
