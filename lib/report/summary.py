"""A run in a few lines for the terminal: its results and what to try next."""

import shlex
from pathlib import Path

from lib.evaluate.comparison import compare_views, comparison_legend, comparison_table, extra_rows, extras_table
from lib.evaluate.run_view import RunView
from lib.run.folder import EVALUATION_FILE, LOSS_FIGURE_FILE, MODEL_FILE, SAMPLE_FILE
from lib.run.metrics import METRICS_FILE


def run_summary(folder: Path, figure: Path) -> str:
    """The run in `folder` in about twenty lines: its loss and the baselines, its sample, its files.

    `figure` counts as one of its files if it is about to be written into `folder`.
    """
    run = RunView(folder)
    steps = run.manifest.parameters.get("train", {}).get("max_steps")
    origin = "imported" if run.imported else f"{steps} steps, weights of step {run.metadata['published_step']}"
    rows = compare_views([run])
    lines = [
        f"{run.name}: {run.metadata['parameters']:,} parameters, {origin}",
        "",
        *comparison_table(rows),
        "",
        *comparison_legend(rows),
        *extras_table(extra_rows([run])),
        *run.required_evaluation().notes(),
    ]
    if run.sample is not None:
        lines += ["", "A sample:", "", *("    " + line for line in _first_lines(run.sample, 12))]
    lines += [
        "",
        f"Everything is in {folder}/ ({', '.join(_file_names(folder, figure))})",
        "",
        "Next:",
        f"    .venv/bin/generate {shlex.quote(str(folder))} 'To be, or not' --temperature 0.7",
    ]
    if steps is not None:
        lines.append(
            f"    the same make command with SET=train.max_steps={2 * steps} trains longer, with TEXT=my.txt on your own text"
        )
    return "\n".join(lines)


def _first_lines(text: str, count: int) -> list[str]:
    lines = text.strip("\n").splitlines()
    return lines[:count] + (["…"] if len(lines) > count else [])


def _file_names(folder: Path, figure: Path) -> list[str]:
    names = (MODEL_FILE, EVALUATION_FILE, SAMPLE_FILE, LOSS_FIGURE_FILE, METRICS_FILE)
    return [name for name in names if (folder / name).is_file() or (folder / name).resolve() == figure.resolve()]
