"""study.yaml to its findings: all its trainings, their results, figures and a table."""

import sys
from pathlib import Path

import click

from lib.artifact.files import check_writable
from lib.artifact.io import write_json
from lib.artifact.record import to_json
from lib.config.schema import Config
from lib.errors import UsageError
from stages.shared.command import Stage
from stages.shared.options import config_options, device_option, parameter
from stages.shared.progress import format_duration, progress
from stages.shared.stopping import StopSignal, parse_duration
from stages.shared.streams import say


@click.command("study", cls=Stage)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Output folder for results.json and the figures.",
)
@click.option(
    "--artifacts",
    type=click.Path(path_type=Path),
    default="artifacts",
    show_default=True,
    metavar="DIR",
    help="Folder with the datasets, and study/ for the runs.",
)
@click.option(
    "--budget",
    callback=parse_duration,
    metavar="TIME",
    help="Scale the training steps to take about this long on 2 cores: 15m or 1h.",
)
@click.option(
    "--study",
    "study_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Study file  [default: lib/study/study.yaml]",
)
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Do not train; draw the figures and table of this results.json.",
)
@device_option
@parameter("plot.width")
@parameter("plot.height")
@parameter("plot.dpi")
@config_options()
def main(
    output: Path,
    artifacts: Path,
    budget: float | None,
    study_file: Path | None,
    results: Path | None,
    device_name: str,
    config: Config,
) -> None:
    """Do the study of depth and width that study.yaml describes; print its findings and its table as Markdown.

    Finished trainings are kept, an interrupted one is resumed: run the same command again.
    """
    if results is not None and budget is not None:
        raise UsageError("give --budget or --results, not both")

    from lib.device.hardware import choose_device, keep_freed_memory
    from lib.run.metrics import StepMetrics
    from lib.study.figures import write_study_figures
    from lib.study.findings import result_lines
    from lib.study.results import RESULTS_FILE, StudyResults, StudyRow, read_results
    from lib.study.sweep import environment, estimate_seconds, plan_study, run_trial, with_paired_differences

    check_writable(output / RESULTS_FILE)
    if results is None:
        results = output / RESULTS_FILE
        keep_freed_memory()
        chosen = choose_device(device_name)
        planned, stop = plan_study(study_file, budget), StopSignal()
        say(f"{len(planned)} trainings, about {format_duration(estimate_seconds(planned))} of steps on two cores")
        lengths = [trial.config().train.max_steps for trial in planned]
        rows: list[StudyRow] = []
        with stop.caught(), progress(sum(lengths), "steps") as bar:
            for trial in planned:
                for event in run_trial(trial, artifacts, chosen, stop.asked):
                    if isinstance(event, StepMetrics) and event.step:
                        bar.advance(1)
                    elif isinstance(event, StudyRow):
                        rows.append(event)
                        bar.done = sum(lengths[: len(rows)])  # those of a finished one were not counted
                        bar.note(f"{len(rows)}/{len(planned)} {trial.experiment}: {trial.name}: loss {event.loss:.4f}")
                if stop.asked():
                    bar.note("stopped; the same command resumes")
                    sys.exit(128 + stop.number)
        rows = with_paired_differences(rows, planned, artifacts, chosen)
        write_json(results, to_json(StudyResults(environment(rows), tuple(rows))))
    write_study_figures(results, output, config.plot)
    click.echo("\n".join(result_lines(read_results(results))))


if __name__ == "__main__":
    main()
