"""What an artifact is, and its way back to the text."""

if __name__ == "inspect":  # python stages/FILE.py was run, and this file hides the module of the standard library
    import sys

    name = sys.argv[0].replace("\\", "/").rpartition("/")[2].removesuffix(".py")
    command = name.replace("_", "-")
    print(f"{command}: error: run it as `{command}` or `python -m stages.{name}`, not as a file", file=sys.stderr)
    sys.exit(2)

import json
import sys
from pathlib import Path

import click

from stages.shared.command import Stage
from stages.shared.streams import say
from stages.shared.terminal import colored
from stages.shared.tokens import conversation_text


@click.command("inspect", cls=Stage)
@click.argument("path", type=click.Path(path_type=Path), metavar="PATH")
@click.option("--verify", is_flag=True, help="Verify the SHA-256 of every file, back to the tokens.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--conversation", type=click.IntRange(min=1), metavar="N", help="Print only conversation N of PATH, from 1.")
def main(path: Path, verify: bool, as_json: bool, conversation: int | None) -> None:
    """Tell what the artifact at PATH is: a tokens, dataset or run folder, a shard, a checkpoint or a tokenizer.

    Of tokens or a dataset of conversations, the first one is shown, or the one that --conversation asks for. What a model
    learns of it is in color on a terminal, else between [[ and ]].
    """
    from lib.data.conversations import find_conversation
    from lib.run.lineage import describe_artifact, lineage_lines, verify_lineage

    description = describe_artifact(path)
    if as_json:
        click.echo(json.dumps(description, indent=2))
    elif conversation is None:
        click.echo("\n".join(lineage_lines(description)))
    if not as_json and (shown := find_conversation(path, conversation)):
        click.echo(shown.title)
        click.echo(conversation_text(shown.parts, colored(sys.stdout)))
    if verify:
        checked, missing = verify_lineage(path if path.is_dir() else path.parent)
        for folder in checked:
            say(f"{folder}: every file is as it was written")
        for folder in missing:
            say(f"{folder}: it no longer exists, so it was not checked")


if __name__ == "__main__":
    main()
