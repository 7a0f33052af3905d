"""Evaluated runs next to each other and to their baselines, as rows and as a table."""

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Callable, Iterable, NamedTuple, Sequence

from lib.evaluate.evaluation import TOO_SHORT
from lib.evaluate.metrics import Lead, Score, unpaired_lead
from lib.evaluate.results import Evaluation
from lib.evaluate.run_view import RunView
from lib.ngrams.counts import ngram_label


@dataclass(frozen=True)
class ComparisonRow:
    """A run or a baseline, and how well it predicts the `tokens` of a split: loss in nats/token, seconds of training.

    `vs_model`: its loss minus that of the best run on the same tokens, with its standard error; None for that run itself.
    """

    name: str
    split: str
    tokens: int
    bytes: int
    text_sha256: str
    loss: float
    perplexity: float | None
    bits_per_byte: float | None
    parameters: int | None = None  # None for a baseline
    seconds: float | None = None
    tokenizer: str | None = None  # the hash of its vocabulary
    vs_model: Lead | None = None
    extra: str | None = None  # the label of an extra, of which `vs_model` is relative to the plain model of its run

    @property
    def scored_on(self) -> tuple[str, int, str, str | None]:
        """What the numbers are about: rows of other texts cannot be compared, nor those of other tokens in nats/token."""
        return self.split, self.tokens, self.text_sha256, self.tokenizer


def comparison_rows(folders: Iterable[Path]) -> list[ComparisonRow]:
    """The evaluated runs in `folders` and, once each, the baselines they were evaluated with.

    Those that were scored on the same tokens stand together, in the order of `folders`, the best first. Baselines that were
    counted on different training texts carry the name of one of their runs.
    """
    return compare_views(map(RunView, folders))


def compare_views(views: Iterable[RunView]) -> list[ComparisonRow]:
    """The rows of runs that are loaded already, as `comparison_rows` orders them."""
    runs: dict[ComparisonRow, Evaluation] = {}
    baselines: dict[tuple[Any, ...], list[_Baseline]] = defaultdict(list)
    for view in views:
        evaluation, metadata = view.required_evaluation(), view.metadata
        tokenizer = metadata.get("tokenizer")
        runs.setdefault(_row(view.name, evaluation, evaluation, tokenizer, metadata["parameters"], view.seconds), evaluation)
        score: Score
        for name, score in evaluation.baselines.items():
            row = _row(ngram_label(name), evaluation, score, tokenizer)
            known = baselines[row.scored_on, name]
            if not any(math.isclose(score.loss, other.score.loss) for other in known):
                known.append(_Baseline(name, row, score, view.name))
    texts = list(dict.fromkeys(row.scored_on for row in runs))
    best = {text: min((row for row in runs if row.scored_on == text), key=lambda row: row.loss) for text in texts}
    rows = [
        row if row is best[row.scored_on] else replace(row, vs_model=_vs_model(runs[best[row.scored_on]], evaluation))
        for row, evaluation in runs.items()
    ]
    for known in baselines.values():
        for name, row, score, run_name in known:
            label = f"{row.name}, {run_name}" if len(known) > 1 else row.name
            rows.append(replace(row, name=label, vs_model=_vs_model(runs[best[row.scored_on]], score, name)))
    return sorted(rows, key=lambda row: (texts.index(row.scored_on), row.loss))


class _Baseline(NamedTuple):
    name: str
    row: ComparisonRow
    score: Score
    run_name: str


def _vs_model(model: Evaluation, score: Score, name: str = "") -> Lead:
    """The loss of `score` minus the model's: paired if the model was compared with that very baseline."""
    own = model.baselines.get(name)
    return -model.lead(name) if own and math.isclose(own.loss, score.loss) else -unpaired_lead(model, score, model.blocks)


def evaluation_rows(name: str, evaluation: Evaluation, parameters: int | None = None) -> list[ComparisonRow]:
    """A single evaluation as rows, the best first."""
    rows = [_row(name, evaluation, evaluation, None, parameters)]
    for baseline, baseline_score in evaluation.baselines.items():
        rows.append(replace(_row(ngram_label(baseline), evaluation, baseline_score, None), vs_model=-evaluation.lead(baseline)))
    return sorted(rows, key=lambda row: row.loss)


def extra_rows(views: Iterable[RunView]) -> list[ComparisonRow]:
    """The extras of the evaluated runs (`lib.evaluate.extras`), which `compare_views` leaves out; a run's in their order."""
    rows = [
        row
        for view in views
        for row in evaluation_extra_rows(view.name, view.required_evaluation(), view.metadata.get("tokenizer"))
    ]
    texts = list(dict.fromkeys(row.scored_on for row in rows))
    return sorted(rows, key=lambda row: texts.index(row.scored_on))


def evaluation_extra_rows(name: str, evaluation: Evaluation, tokenizer: str | None = None) -> list[ComparisonRow]:
    """The extras of a single evaluation as rows, in their order."""
    return [
        replace(
            _row(f"{name}: {extra.label}", evaluation, extra, tokenizer, extra.parameters, extra.seconds),
            vs_model=-extra.lead,
            extra=extra.label,
        )
        for extra in evaluation.extras
    ]


def _row(
    name: str,
    evaluation: Evaluation,
    score: Score,
    tokenizer: str | None,
    parameters: int | None = None,
    seconds: float | None = None,
) -> ComparisonRow:
    text = (evaluation.split or "", evaluation.tokens, evaluation.bytes, evaluation.text_sha256)
    return ComparisonRow(name, *text, score.loss, score.perplexity, score.bits_per_byte, parameters, seconds, tokenizer)


#: What a table of extras says about them.
EXTRAS_LEGEND = "extras use more than one model's weights; vs model: relative to the plain model of the same run"

#: The columns of a table, and the text of a row in each.
_COLUMNS: tuple[tuple[str, Callable[[ComparisonRow], str | None]], ...] = (
    ("parameters", lambda row: _format(row.parameters, ",")),
    ("nats/token", lambda row: _format(row.loss, ".3f")),
    ("perplexity", lambda row: _format(row.perplexity, ",.1f")),
    ("bits/byte", lambda row: _format(row.bits_per_byte, ".3f")),
    ("seconds", lambda row: _format(row.seconds, ",.0f")),
    ("vs model", lambda row: str(row.vs_model) if row.vs_model else None),
)


def _format(value: float | None, form: str) -> str | None:
    return None if value is None else format(value, form)


def comparison_table(rows: list[ComparisonRow]) -> list[str]:
    """The rows as lines of text, under a heading for each text they were scored on; a dash if there is no number.

    `comparison_legend` explains the column `vs model`.
    """
    groups = [list(group) for _, group in groupby(rows, key=lambda row: row.scored_on)]
    headings = comparison_headings([group[0] for group in groups])
    width = max(len(name) for name in (*headings, *(row.name for row in rows)))
    lines: list[str] = []
    for heading, group in zip(headings, groups, strict=True):
        columns = [[title, *(cell(row) or "-" for row in group)] for title, cell in _COLUMNS]
        padded = [_padded(column, left=column[0] == "vs model") for column in columns]
        lines += [""] if lines else []
        lines += [
            f"{name:<{width}}  {'  '.join(cells)}".rstrip()
            for name, cells in zip([heading, *(row.name for row in group)], zip(*padded, strict=True), strict=True)
        ]
    return lines


def _padded(cells: list[str], left: bool) -> list[str]:
    width = max(map(len, cells))
    return [f"{cell:<{width}}" if left else f"{cell:>{width}}" for cell in cells]


def comparison_legend(rows: Sequence[ComparisonRow]) -> list[str]:
    """What the column `vs model` says, and why it may say nothing."""
    texts = [row.scored_on for row in rows if row.parameters is not None]
    model = "best run's" if len(set(texts)) < len(texts) else "model's"
    lines = [f"vs model: loss minus the {model}, nats/token, ± standard error; n.s. = not significant (Student's t, 5%)"]
    if any(row.vs_model and row.vs_model.significant is None for row in rows):
        lines.append(TOO_SHORT)
    return lines


def extras_table(rows: list[ComparisonRow]) -> list[str]:
    """The rows of extras as lines of text below the other rows, with a line that explains them; nothing for no rows."""
    return ["", *comparison_table(rows), EXTRAS_LEGEND] if rows else []


def comparison_headings(rows: Sequence[ComparisonRow]) -> list[str]:
    """What the texts are called that `rows` are about, one row a text; with hashes if two would be called the same."""
    names = [
        f"{f'{row.split} split' if row.split else 'text'}, {row.tokens:,} tokens{', extras' if row.extra else ''}"
        for row in rows
    ]
    for suffixes in (
        [f" of text {row.text_sha256[:8]}" for row in rows],
        [f", vocabulary {row.tokenizer or '-':.8}" for row in rows],
    ):
        names = [name + suffix if names.count(name) > 1 else name for name, suffix in zip(names, suffixes, strict=True)]
    return names
