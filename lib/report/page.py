"""A report: one self-contained HTML page about a run, or about several.

No script, no font, no picture is fetched, and the page's own policy forbids it. The same runs give the same bytes, on any
processor.
"""

from itertools import groupby
from pathlib import Path
from typing import Any, Sequence

from lib.config.schema import PlotConfig
from lib.evaluate.comparison import compare_views, comparison_headings, extra_rows
from lib.plot.loss_curves import Curve, loss_figure
from lib.report.html import render_template
from lib.report.run_data import RunData, draw_chart, format_number, read_run_data, table
from lib.report.sections import SECTIONS

_FIGURE = PlotConfig(prompt="", width=5.2, height=4.0, dpi=100)


def report_page(folders: Sequence[Path]) -> str:
    """The report on the finished runs in `folders`."""
    runs = [read_run_data(folder, number) for number, folder in enumerate(folders, 1)]
    alone = len(runs) == 1
    return render_template(
        "report.html",
        kicker="A report of makegpt",
        title=runs[0].name if alone else f"{len(runs)} runs",
        links=[(f"{runs[0].id}-{name}", heading) for name, heading, _ in SECTIONS] if alone else [(r.id, r.name) for r in runs],
        comparison=None if alone else _comparison(runs),
        runs=[_chapter(run) for run in runs],
    )


def _chapter(run: RunData) -> dict[str, Any]:
    """What the page shows of one run."""
    return {"id": run.id, "name": run.name, "sections": [(name, heading, make(run)) for name, heading, make in SECTIONS]}


def _comparison(runs: list[RunData]) -> dict[str, Any]:
    """All runs in tables, one for each text they were scored on, and in one figure."""
    head = ("", "parameters", "nats/token", "perplexity", "bits/byte", "seconds")
    forms = (("parameters", ","), ("loss", ".3f"), ("perplexity", ",.1f"), ("bits_per_byte", ".3f"), ("seconds", ",.0f"))
    evaluated = [run for run in runs if run.evaluation]
    rows = [*compare_views(evaluated), *extra_rows(evaluated)]
    texts = [list(rows) for _, rows in groupby(rows, key=lambda row: (row.scored_on, bool(row.extra)))]
    tables = [
        table(
            f"{heading}; {'not ranked' if rows[0].extra else 'the best first'}",
            head,
            [(row.name, *(format_number(getattr(row, name), form) for name, form in forms)) for row in rows],
            marked=[run.name for run in runs],
        )
        for heading, rows in zip(comparison_headings([rows[0] for rows in texts]), texts, strict=True)
    ]
    curves = [_curve(run) for run in runs if run.metrics]
    figure = None
    if len(curves) > 1:
        caption = "Validation loss by step; the stars mark the best steps."
        if len(tables) > 1:
            caption += " Runs with other texts or other tokens can be compared only by bits/byte."
        description = f"{caption} Runs: {', '.join(curve.name for curve in curves)}."
        figure = draw_chart(loss_figure(curves, _FIGURE), "compared", caption, description)
    return {"tables": tables, "waiting": ", ".join(run.name for run in runs if not run.evaluation), "figure": figure}


def _curve(run: RunData) -> Curve:
    text = run.validation.text_sha256 if run.validation else None
    return Curve(run.name, run.metrics or [], {}, run.metadata.get("tokenizer"), text, run.metadata.get("dataset"))
