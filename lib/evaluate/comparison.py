"""Evaluated runs beside each other and beside their baselines, as rows and as a table."""

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Iterable, Sequence

from lib.evaluate.evaluation import read_evaluation
from lib.evaluate.ngrams import ngram_label
from lib.run.folder import finished_manifest, training_seconds


@dataclass(frozen=True)
class ComparisonRow:
    """A run or a baseline, and how well it predicts the `tokens` of a split: loss in nats/token, seconds of training."""

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

    @property
    def scored_on(self) -> tuple[str, int, str, str | None]:
        """What the numbers are about: rows of other texts cannot be compared, nor those of other tokens in nats/token."""
        return self.split, self.tokens, self.text_sha256, self.tokenizer


def comparison_rows(folders: Iterable[Path]) -> list[ComparisonRow]:
    """The evaluated runs in `folders` and, each once, the baselines they were evaluated beside.

    Those that were scored on the same tokens stand together, in the order of `folders`, the best first. Baselines that were
    counted on different training texts have the name of a run of theirs.
    """
    found: dict[ComparisonRow, None] = {}
    beside: dict[tuple[Any, ...], list[tuple[str, ComparisonRow]]] = defaultdict(list)
    for folder in folders:
        metadata = finished_manifest(folder)["metadata"]
        evaluation = read_evaluation(folder)
        run_name, tokenizer = folder.resolve().name, metadata.get("tokenizer")
        found[_row(run_name, evaluation, evaluation, tokenizer, metadata["parameters"], training_seconds(folder))] = None
        for name, scores in evaluation["baselines"].items():
            row = _row(ngram_label(name), evaluation, scores, tokenizer)
            known = beside[row.scored_on, row.name]
            if not any(math.isclose(row.loss, other.loss) for _, other in known):
                known.append((run_name, row))
    for known in beside.values():
        several = len(known) > 1
        found |= {replace(row, name=f"{row.name}, {run_name}") if several else row: None for run_name, row in known}
    texts = list(dict.fromkeys(row.scored_on for row in found))
    return sorted(found, key=lambda row: (texts.index(row.scored_on), row.loss))


def _row(
    name: str,
    evaluation: dict[str, Any],
    scores: dict[str, Any],
    tokenizer: str | None,
    parameters: int | None = None,
    seconds: float | None = None,
) -> ComparisonRow:
    about = (evaluation["split"], evaluation["tokens"], evaluation["bytes"], evaluation["text_sha256"])
    found = (scores["loss"], scores.get("perplexity"), scores.get("bits_per_byte"))
    return ComparisonRow(name, *about, *found, parameters, seconds, tokenizer)


def comparison_table(rows: list[ComparisonRow]) -> list[str]:
    """The rows as lines of text, under a head for each text they were scored on; a dash where there is no number."""
    blocks = [list(block) for _, block in groupby(rows, key=lambda row: row.scored_on)]
    heads = comparison_headings([block[0] for block in blocks])
    width = max(len(name) for name in (*heads, *(row.name for row in rows)))
    lines: list[str] = []
    for head, block in zip(heads, blocks, strict=True):
        lines += [""] if lines else []
        lines += [f"{head:<{width}}  parameters  nats/token  perplexity  bits/byte  seconds"]
        lines += [f"{row.name:<{width}}" + _cells(row) for row in block]
    return lines


def comparison_headings(rows: Sequence[ComparisonRow]) -> list[str]:
    """What the texts are called that `rows` are about, one row a text; with hashes where two would be called the same."""
    names = [f"{row.split} split, {row.tokens:,} tokens" for row in rows]
    for more in (
        [f" of text {row.text_sha256[:8]}" for row in rows],
        [f", vocabulary {row.tokenizer or '-':.8}" for row in rows],
    ):
        names = [name + one if names.count(name) > 1 else name for name, one in zip(names, more, strict=True)]
    return names


def _cells(row: ComparisonRow) -> str:
    columns = (
        (row.parameters, 12, ","),
        (row.loss, 12, ".3f"),
        (row.perplexity, 12, ",.1f"),
        (row.bits_per_byte, 11, ".3f"),
        (row.seconds, 9, ",.0f"),
    )
    return "".join(f"{'-' if value is None else format(value, form):>{size}}" for value, size, form in columns)
