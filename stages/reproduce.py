"""Published numbers of others, measured with our own code."""

import json
from pathlib import Path

import click

from lib.errors import MakegptError
from stages.shared.command import Stage
from stages.shared.progress import progress


@click.command("reproduce", cls=Stage)
@click.argument("names", nargs=-1, metavar="[ROW...]")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines, one row per line.")
@click.option(
    "--references",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Reference file  [default: lib/reproduce/references.yaml]",
)
def main(names: tuple[str, ...], as_json: bool, references: Path | None) -> None:
    """Measure the published numbers of references.yaml, all or each ROW, with our own code; exit 1 if one fails.

    It does not train: a row about a training or about released weights measures the run in artifacts/runs/, or says how to
    create it if it is missing. Nothing is written.
    """
    import tempfile

    from lib.reproduce.checks import CHECKS, CheckContext
    from lib.reproduce.outcomes import FAIL, measure_references, outcome_table
    from lib.reproduce.references import choose_references, load_references

    rows = choose_references(load_references(CHECKS, references), names)
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="makegpt-") as scratch, progress(len(rows), "rows") as bar:
        for outcome in measure_references(rows, CheckContext(Path(scratch))):
            outcomes.append(outcome)
            bar.advance(1)
    lines = [json.dumps(outcome.as_json(), ensure_ascii=False) for outcome in outcomes] if as_json else outcome_table(outcomes)
    click.echo("\n".join(lines))
    if failed := [outcome.reference.name for outcome in outcomes if outcome.result == FAIL]:
        raise MakegptError(f"{len(failed)} of {len(outcomes)} checks failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
