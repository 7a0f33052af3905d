"""What the study has to show for itself: its results read back, its findings as Markdown, its figures as files."""

from pathlib import Path
from typing import Any

from lib.artifact.io import json_digest, read_json
from lib.artifact.json_shape import NUMBER, JsonShape, first_mismatch
from lib.config.schema import PlotConfig
from lib.errors import MakegptError
from lib.plot.style import FIGURE_FORMATS, save_figure
from lib.study.figures import STUDY_FIGURES
from lib.study.findings import depth_lines, study_table

RESULTS_FILE = "results.json"


def read_results(path: Path) -> dict[str, Any]:
    """The results in the file `path`: `about`, and `runs`, a row a training; MakegptError if they are none."""
    results = read_json(path)
    if first_mismatch(results, _RESULTS) is not None or not results["runs"]:
        raise MakegptError(f"{path} holds no results of a study; `study -o DIR` writes them")
    return results


_RESULTS: JsonShape = {
    "about": {"dates": [str], "commits": [str], "processors": [str], "versions": {"*": [str]}},
    "runs": [
        {
            **dict.fromkeys(("experiment", "config"), str),
            **dict.fromkeys(("layers", "width", "seed", "parameters", "in_blocks", "in_embeddings"), int),
            **dict.fromkeys(("steps", "tokens", "best_step", "threads"), int),
            **dict.fromkeys(("learning_rate", "drop_rate", "weight_decay", "loss", "bits_per_byte"), NUMBER),
            "seconds?": NUMBER,
            "curve": [[NUMBER]],
            "standard_error": {"loss?": NUMBER},
            "baselines": {"*": NUMBER},
        }
    ],
}


def result_lines(results: dict[str, Any]) -> list[str]:
    """The origin of the results and their tables, as Markdown."""
    rows, about = results["runs"], results["about"]
    versions = ", ".join(f"{name} {' or '.join(values)}" for name, values in about["versions"].items())
    counts = sorted({row["threads"] for row in rows})
    threads = f"{' or '.join(map(str, counts))} thread{'' if counts == [1] else 's'}"
    commits = ", ".join(commit[:7] + commit[40:] for commit in about["commits"])
    processors = " or ".join(about["processors"])
    dates = " to ".join(dict.fromkeys((about["dates"][0], about["dates"][-1])))
    return [
        f"The trainings are of {dates}, on {processors}, {threads} each, {versions}, by commit {commits}.",
        "",
        *depth_lines(rows),
        "",
        *study_table(rows),
    ]


def write_study_figures(results: dict[str, Any], folder: Path, config: PlotConfig) -> None:
    """All figures of the study as PNG and SVG in `folder`; the results' hash and origin are in their metadata."""
    done = {row["experiment"] for row in results["runs"]}
    for name, (draw, experiments) in STUDY_FIGURES.items():
        for kind in FIGURE_FORMATS if experiments <= done else ():
            save_figure(
                draw(results["runs"], config), folder / f"{name}.{kind}", config, {"kind": name} | results_provenance(results)
            )


def results_provenance(results: dict[str, Any]) -> dict[str, Any]:
    """What a figure of the study was made from."""
    return {"results": json_digest(results), **results["about"]}
