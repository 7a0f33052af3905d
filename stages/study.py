"""study.yaml to its findings: all its trainings, their results, figures and a table."""

import sys
from pathlib import Path

import click

from lib import artifact, files
from lib.config import Config
from lib.errors import UsageError
from stages import device_option, say, stage
from stages.shared.progress import duration, progress
from stages.shared.stopping import StopSignal, seconds


@stage("study", plot=("width", "height", "dpi"))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where results.json and the figures go.",
)
@click.option(
    "--artifacts",
    type=click.Path(path_type=Path),
    default="artifacts",
    show_default=True,
    metavar="DIR",
    help="Where the datasets are, and study/ for the runs.",
)
@click.option(
    "--budget", callback=seconds, metavar="TIME", help="Train so much less that it ends in about TIME on 2 cores: 15m or 1h."
)
@click.option(
    "--results", type=click.Path(path_type=Path), metavar="FILE", help="Train nothing: figures and table of these results.json."
)
@device_option
def main(output: Path, artifacts: Path, budget: float | None, results: Path | None, device_name: str, config: Config) -> None:
    """Do the study of depth and width that study.yaml describes; print its findings and its table as Markdown.

    Every finished training is kept and not done again, an interrupted one goes on where it was: the same command resumes.
    """
    if results is not None and budget is not None:
        raise UsageError("give --budget or --results, not both")

    from lib import device, study, study_report
    from lib.trainer import Record

    files.check(output / study_report.RESULTS)
    if results is not None:
        found = study_report.read(results)
    else:
        device.keep_freed_memory()
        chosen = device.choose(device_name)
        planned, stop = study.plan(budget), StopSignal()
        say(f"{len(planned)} trainings, about {duration(study.seconds(planned))} of steps on two cores")
        lengths = [one.config().train.max_steps for one in planned]
        rows: list[study.Row] = []
        with stop.caught(), progress(sum(lengths), "steps") as shown:
            for one in planned:
                for told in study.do(one, artifacts, chosen, stop.asked):
                    if isinstance(told, Record) and told.step:
                        shown.advance(1)
                    elif isinstance(told, dict):
                        rows.append(told)
                        shown.done = sum(lengths[: len(rows)])  # those of a finished one were not counted
                        shown.note(f"{len(rows)}/{len(planned)} {one.experiment}: {one.name}: loss {told['loss']:.4f}")
                if stop.asked():
                    shown.note("stopped; the same command goes on from there")
                    sys.exit(128 + stop.number)
        study.pair(rows, planned, artifacts, chosen)
        found = {"about": study.about(rows), "runs": rows}
        artifact.write_json(output / study_report.RESULTS, found)
    study_report.write_figures(found, output, config.plot)
    click.echo("\n".join(study_report.lines(found)))


if __name__ == "__main__":
    main()
