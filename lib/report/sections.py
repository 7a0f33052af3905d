"""The sections of a report about one run.

Each is a function that returns what the macro of its name in sections.html takes, or what is missing and how to make it.
"""

import shlex
from pathlib import Path
from typing import Any, Callable

from lib.config.schema import PlotConfig
from lib.evaluate.comparison import EXTRAS_LEGEND
from lib.evaluate.metrics import Score, StandardErrors
from lib.evaluate.results import Copying, Evaluation
from lib.ngrams.counts import ngram_label
from lib.plot.loss_curves import Curve, loss_figure, missing_baselines, position_figure
from lib.report.provenance import provenance
from lib.report.run_data import Missing, RunData, draw_chart, format_number, table, thin_lines
from lib.run.folder import EVALUATION_FILE, SAMPLE_FILE
from lib.run.samples import Sample

Section = dict[str, Any] | Missing

_FIGURE = PlotConfig(prompt="", width=4.9, height=3.4, dpi=100)  # inches: small enough to be read on a phone


def _evaluate(run: RunData) -> str:
    folder, file = (shlex.quote(str(path)) for path in (run.folder, run.folder / EVALUATION_FILE))
    return f"evaluate {folder}{' DATASET' if run.imported else ''} -o {file}"


_SCORES = (("nats/token", "loss", ".3f"), ("perplexity", "perplexity", ",.1f"), ("bits/byte", "bits_per_byte", ".3f"))


def summary(run: RunData) -> Section:
    """What the run is, and its results."""
    metadata, model = run.metadata, run.model_config
    scores: list[tuple[str, str, str | None]] = []
    if evaluation := run.evaluation:
        errors = [getattr(evaluation.standard_error, key) for _, key, _ in _SCORES]
        scores = [
            (name, format_number(getattr(evaluation, key), form), error and format_number(error, form))
            for (name, key, form), error in zip(_SCORES, errors, strict=True)
        ]
    elif not run.imported:
        scores = [("nats/token, in training", f"{metadata['published_val_loss']:.3f}", None)]
    entries = [
        ("Model", f"{model.kind}: {model.n_layers} layers, {model.n_heads} heads, embedding dimension {model.emb_dim}"),
        ("Context", f"{model.context_length:,} tokens, from a vocabulary of {model.vocab_size:,}"),
    ]
    if run.imported:
        entries += [("Weights", "imported, not trained here")]
    else:
        entries += [
            ("Trained on", ", ".join(Path(name).name for name in run.manifest.inputs)),
            ("Published weights, step", f"{metadata['published_step']:,} of {run.max_steps:,}"),
            ("Time", f"{format_number(run.seconds, ',.0f')} s"),
            ("Seed", "–" if run.manifest.seed is None else str(run.manifest.seed)),
        ]
    return {"scores": [*scores, ("parameters", f"{metadata['parameters']:,}", None)], "facts": entries}


def curves(run: RunData) -> Section:
    """Training and validation loss by step."""
    if run.metrics is None:
        reason = "The run was imported, so there are no losses of a training." if run.imported else "The metrics are missing."
        return Missing(f"{reason} To train a model, run", "train DATASET -o RUN --config NAME")
    validations = [(line.val_loss, line) for line in run.metrics if line.val_loss is not None]
    (lowest, best), (highest, _) = (choose(validations, key=lambda pair: pair[0]) for choose in (min, max))
    (first_loss, first), (last_loss, _) = validations[0], validations[-1]
    scores = run.validation.baselines if run.validation else {}
    losses = {name: score.loss for name, score in scores.items() if name != "uniform" and score.loss <= highest}
    caption = (
        f"Validation loss by step: {first_loss:.3f} nats/token at step {first.step}, "
        f"{lowest:.3f} at its best, step {best.step}, {last_loss:.3f} at the end."
    )
    if note := missing_baselines(run):
        caption += f" {note}"
    rows = [
        (f"{line.step:,}", format_number(line.train_loss, ".3f"), format_number(val_loss, ".3f"))
        for val_loss, line in thin_lines(validations)
    ]
    return {
        "figure": draw_chart(loss_figure([Curve(run.name, run.metrics, losses)], _FIGURE), f"loss-{run.id}", caption),
        "numbers": table("Losses at validations, nats/token", ("step", "training, this batch", "validation"), rows),
    }


def samples(run: RunData) -> Section:
    """What the model wrote as it learned, and what `generate` wrote with the final weights."""
    losses = {line.step: line.val_loss for line in run.metrics or []}
    note = None
    if run.imported:
        note = Missing("The run was imported, so there are no samples of a training.")
    elif not run.samples:
        note = Missing("No samples were kept in this training. To keep some, run", _train_with_samples(run))
    folder, path = (shlex.quote(str(path)) for path in (run.folder, run.folder / SAMPLE_FILE))
    final = None if run.sample is None else run.sample.strip("\n")
    return {
        "count": len(run.samples),
        "shown": [_sample(sample, losses.get(sample.step)) for sample in thin_lines(run.samples)],
        "note": None if run.samples else note,
        "final": final,
        "final_note": Missing("To generate text with the final weights, run", f"generate {folder} -o {path}")
        if final is None
        else None,
    }


def _train_with_samples(run: RunData) -> str:
    """The command of the training with samples; in the manifest it is quoted for a shell already."""
    interval = run.manifest.parameters["train"].get("sample_interval")
    change = " --set train.sample_interval=30" if interval == 0 else ""
    return f"{run.manifest.command}{change} --resume never"


def _sample(sample: Sample, loss: float | None) -> dict[str, str]:
    return {
        "when": f"Step {sample.step:,}, {sample.tokens:,} tokens",
        "loss": "" if loss is None else f"{loss:.3f}",
        "prompt": sample.prompt,
        "text": sample.text,
    }


def baselines(run: RunData) -> Section:
    """The model and its baselines, the lowest loss first, with a sentence that compares them."""
    evaluation = run.evaluation
    if evaluation is None:
        return Missing("The run has not been evaluated. Run", _evaluate(run))
    errors = evaluation.standard_error
    rows = [(evaluation.loss, _row(run.name, evaluation, errors, "–"))]
    if sliding := evaluation.sliding:
        label = f"with a sliding window, stride {sliding.stride:,}"
        rows.append((sliding.loss, _row(label, sliding, sliding.standard_error, "same model")))
    for name, score in evaluation.baselines.items():
        rows.append((score.loss, _row(ngram_label(name), score, None, str(-evaluation.lead(name)).replace("-", "−"))))
    caption = f"{evaluation.split} split, {evaluation.tokens:,} tokens, {evaluation.bytes:,} bytes; the best first"
    top_1, top_5 = (
        format_number(100 * fraction, ".1f", error and 100 * error)
        for fraction, error in ((evaluation.top_1, errors.top_1), (evaluation.top_5, errors.top_5))
    )
    accuracy = f"Top-1 accuracy is {top_1} %, top-5 accuracy {top_5} %."
    notes = [f"{note[0].upper()}{note[1:]}." for note in evaluation.notes()]
    rows.sort(key=lambda row: row[0])
    head = ("", "nats/token", "perplexity", "bits/byte", "vs model")
    return {
        "verdict": " ".join([accuracy, *notes]),
        "numbers": table(caption, head, [cells for _, cells in rows], marked=[run.name]),
        "extras": _extras(evaluation, head),
    }


def _extras(evaluation: Evaluation, head: tuple[str, ...]) -> dict[str, Any] | None:
    """The predictors that use more than the model's weights, in a separate table; None if there are none."""
    rows = [
        (
            *_row(extra.label, extra, extra.standard_error, str(-extra.lead).replace("-", "−")),
            format_number(extra.parameters, ","),
            format_number(extra.seconds, ",.0f"),
        )
        for extra in evaluation.extras
    ]
    caption = f"{EXTRAS_LEGEND[0].upper()}{EXTRAS_LEGEND[1:]}"
    return table(caption, (*head, "parameters", "seconds"), rows) if rows else None


def _row(name: str, score: Score, errors: StandardErrors | None, remark: str) -> tuple[str, ...]:
    return name, *(format_number(getattr(score, key), form, getattr(errors, key, None)) for _, key, form in _SCORES), remark


def positions(run: RunData) -> Section:
    """The loss by position in the window: how much more context helps."""
    if run.evaluation is None or not (bands := run.evaluation.loss_by_position):
        return Missing("The run has not been evaluated by position. Run", _evaluate(run))
    first, last = bands[0], bands[-1]
    caption = f"Mean loss by position in the window: {first.loss:.3f} nats/token at {first}, {last.loss:.3f} at {last}."
    rows = [(str(band), format_number(band.loss, ".3f")) for band in bands]
    return {
        "figure": draw_chart(position_figure(bands, _FIGURE), f"positions-{run.id}", caption),
        "numbers": table("Loss by position", ("position", "nats/token"), rows),
    }


_TEXTS = {
    "samples": "samples",
    "continuations": "greedy continuations of training passages",
    "validation": "validation text, for comparison",
    "test": "test text, for comparison",
}


def memorization(run: RunData) -> Section:
    """How much of what the model writes is copied word for word from the training text."""
    if run.evaluation is None or (measured := run.evaluation.memorization) is None:
        return Missing("Memorization has not been measured. Run", _evaluate(run))
    copies: list[tuple[str, Copying]] = [
        (name, copying) for key, name in _TEXTS.items() if (copying := getattr(measured, key)) is not None
    ]
    lengths = sorted({length for _, copying in copies for length in copying.novel_fraction}, key=int)
    rows = [
        (
            name,
            f"{copying.tokens:,}",
            f"{copying.longest_run:,}",
            *(_percent(copying.novel_fraction.get(length)) for length in lengths),
        )
        for name, copying in copies
    ]
    head = ("", "tokens", "longest run copied", *(f"novel {length}-grams" for length in lengths))
    return {
        "numbers": table("Runs of tokens that also occur in the training text", head, rows),
        "passages": [(name, f"{copying.longest_run:,}", copying.passage) for name, copying in copies if copying.passage],
    }


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.1f} %"


def parameters(run: RunData) -> Section:
    """Every parameter of params.yaml that the run was made with."""
    rows = [
        (f"{section}.{name}", "null" if value is None else str(value))
        for section, values in run.manifest.parameters.items()
        if isinstance(values, dict)
        for name, value in values.items()
    ]
    return {"numbers": table("Parameters", ("name", "value"), rows)}


#: The sections in their order: the name of their macro and of their address, their heading, what makes them.
SECTIONS: tuple[tuple[str, str, Callable[[RunData], Section]], ...] = (
    ("summary", "Summary", summary),
    ("curves", "Loss curves", curves),
    ("samples", "Samples during training", samples),
    ("baselines", "Baselines", baselines),
    ("positions", "Loss by position", positions),
    ("memorization", "Memorization", memorization),
    ("provenance", "Provenance", provenance),
    ("parameters", "Parameters", parameters),
)
