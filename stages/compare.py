"""Runs next to each other and to their baselines."""

import json
from pathlib import Path

import click

from stages.shared.command import Stage


@click.command("compare", cls=Stage)
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines, one row per line.")
def main(folders: tuple[Path, ...], as_json: bool) -> None:
    """Compare evaluated runs and their baselines, the best first: parameters, loss, bits/byte, seconds of training.

    Ensembles and other extras that the runs were evaluated with follow in a separate table.
    """
    from lib.artifact.record import to_json
    from lib.evaluate.comparison import compare_views, comparison_legend, comparison_table, extra_rows, extras_table
    from lib.evaluate.run_view import RunView

    views = [RunView(folder) for folder in folders]
    rows, extras = compare_views(views), extra_rows(views)
    if as_json:
        lines = [json.dumps(to_json(row)) for row in (*rows, *extras)]
    else:
        lines = [*comparison_table(rows), "", *comparison_legend(rows), *extras_table(extras)]
    click.echo("\n".join(lines))


if __name__ == "__main__":
    main()
