"""study.yaml to its findings: all its trainings, their results, figures and a table."""

import sys
from pathlib import Path

import click

from lib.artifact.files import check_writable
from lib.artifact.io import write_json
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

    Every finished training is kept and not done again, an interrupted one goes on where it was: the same command resumes.
    """
    if results is not None and budget is not None:
        raise UsageError("give --budget or --results, not both")

    from lib.device.hardware import choose_device, keep_freed_memory
    from lib.study.results import RESULTS_FILE, read_results, result_lines, write_study_figures
    from lib.study.sweep import StudyRow, add_paired_differences, environment, estimate_seconds, plan_study, run_trial
    from lib.train.events import StepMetrics

    check_writable(output / RESULTS_FILE)
    if results is not None:
        found = read_results(results)
    else:
        keep_freed_memory()
        chosen = choose_device(device_name)
        planned, stop = plan_study(study_file, budget), StopSignal()
        say(f"{len(planned)} trainings, about {format_duration(estimate_seconds(planned))} of steps on two cores")
        lengths = [one.config().train.max_steps for one in planned]
        rows: list[StudyRow] = []
        with stop.caught(), progress(sum(lengths), "steps") as shown:
            for one in planned:
                for told in run_trial(one, artifacts, chosen, stop.asked):
                    if isinstance(told, StepMetrics) and told.step:
                        shown.advance(1)
                    elif isinstance(told, dict):
                        rows.append(told)
                        shown.done = sum(lengths[: len(rows)])  # those of a finished one were not counted
                        shown.note(f"{len(rows)}/{len(planned)} {one.experiment}: {one.name}: loss {told['loss']:.4f}")
                if stop.asked():
                    shown.note("stopped; the same command goes on from there")
                    sys.exit(128 + stop.number)
        add_paired_differences(rows, planned, artifacts, chosen)
        found = {"about": environment(rows), "runs": rows}
        write_json(output / RESULTS_FILE, found)
    write_study_figures(found, output, config.plot)
    click.echo("\n".join(result_lines(found)))


if __name__ == "__main__":
    main()
