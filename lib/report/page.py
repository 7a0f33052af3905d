"""A report: one HTML page about a run, or about several, that needs nothing but itself.

No script, no font, no picture is fetched, and the page's own policy forbids it. The same runs give the same bytes, on any
processor.
"""

from itertools import groupby
from pathlib import Path
from typing import Iterable, Sequence

from lib.config.schema import PlotConfig
from lib.evaluate.comparison import comparison_headings, comparison_rows
from lib.evaluate.results import of_own_validation
from lib.plot.loss_curves import Curve, loss_figure
from lib.report.html import Html, escape_html, html_element, html_table
from lib.report.run_data import RunData, chart_element, format_number, read_run_data
from lib.report.sections import SECTIONS

_STYLE = Path(__file__).with_suffix(".css")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_FIGURE = PlotConfig(prompt="", width=5.2, height=4.0, dpi=100)


def report_page(folders: Sequence[Path]) -> str:
    """The report on the finished runs in `folders`; MakegptError where one is none, or holds a damaged file."""
    subjects = [read_run_data(folder, number) for number, folder in enumerate(folders, 1)]
    if len(subjects) == 1:
        (only,) = subjects
        return _document(only.name, _contents(only) + _sections(only, level=2))
    title = f"{len(subjects)} runs"
    parts = [_comparison(subjects), *(_chapter(one) for one in subjects)]
    return _document(title, _list((f"#run-{one.number}", one.name) for one in subjects) + "".join(parts))


def _document(title: str, body: str) -> str:
    head = (
        '<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape_html(title)} · makegpt</title>\n"
        '<link rel="icon" href="data:,">\n'
        f"<style>\n{_STYLE.read_text(encoding='utf-8')}</style>\n"
    )
    header = html_element(
        "header", html_element("p", "A report of makegpt", class_="kicker"), html_element("h1", html_element("bdi", title))
    )
    main = html_element("main", Html(body))
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}</head>\n<body>\n{header}{main}</body>\n</html>\n'


def _list(links: Iterable[tuple[str, str]]) -> Html:
    items = (html_element("li", html_element("a", html_element("bdi", name), href=target)) for target, name in links)
    return html_element("nav", html_element("ul", *items), aria_label="Contents")


def _contents(one: RunData) -> Html:
    return _list((f"#run-{one.number}-{word}", heading) for word, heading, _ in SECTIONS)


def _sections(one: RunData, level: int) -> Html:
    """All sections about a run, their headings of `level`."""
    made = []
    for word, heading, make in SECTIONS:
        name = f"run-{one.number}-{word}"
        title = html_element(f"h{level}", heading, id=name)
        made.append(html_element("section", title, make(one), class_=word, aria_labelledby=name))
    return Html("".join(made))


def _chapter(one: RunData) -> Html:
    name = f"run-{one.number}"
    head = html_element("h2", html_element("bdi", one.name), id=name)
    return html_element("article", head, _sections(one, level=3), aria_labelledby=name)


def _curve(one: RunData) -> Curve:
    metadata, found = one.manifest["metadata"], one.evaluation
    text = found["text_sha256"] if found and of_own_validation(found, metadata) else None
    return Curve(one.name, one.metrics or [], {}, metadata.get("tokenizer"), text, metadata.get("dataset"))


def _comparison(subjects: list[RunData]) -> Html:
    """All runs in tables, one for each text they were scored on, and in one figure."""
    evaluated = [one.folder for one in subjects if one.evaluation]
    head = ("", "parameters", "nats/token", "perplexity", "bits/byte", "seconds")
    forms = (("parameters", ","), ("loss", ".3f"), ("perplexity", ",.1f"), ("bits_per_byte", ".3f"), ("seconds", ",.0f"))
    texts = [list(rows) for _, rows in groupby(comparison_rows(evaluated), key=lambda row: row.scored_on)]
    tables = [
        html_table(
            f"{heading}; the best first",
            head,
            [(row.name, *(format_number(getattr(row, name), form) for name, form in forms)) for row in rows],
            marked={one.name for one in subjects},
        )
        for heading, rows in zip(comparison_headings([rows[0] for rows in texts]), texts, strict=True)
    ]
    waiting = [one.name for one in subjects if not one.evaluation]
    made = "".join(tables)
    if waiting:
        made += html_element("p", f"Not evaluated yet: {', '.join(waiting)}. Their sections say what to run.", class_="missing")
    trained = [_curve(one) for one in subjects if one.metrics]
    if len(trained) > 1:
        told = "Validation loss by step, the best of each run marked."
        if len(tables) > 1:
            told += " Those of other texts or other tokens cannot be compared by it, but by their bits/byte."
        drawn = loss_figure(trained, _FIGURE)
        made += chart_element(drawn, "compared", f"{told} Runs: {', '.join(curve.name for curve in trained)}.", told)
    return html_element("section", html_element("h2", "Comparison", id="comparison"), Html(made), aria_labelledby="comparison")
