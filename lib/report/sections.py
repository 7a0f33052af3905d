"""The sections of a report about one run, each a piece of markup; what is not there yet says which command makes it."""

import shlex
from pathlib import Path
from typing import Any, Callable

from lib.artifact.record import from_json
from lib.config.schema import PlotConfig
from lib.evaluate.ngrams import ngram_label
from lib.evaluate.results import Evaluation, of_own_validation
from lib.plot.loss_curves import Curve, loss_figure, position_figure
from lib.report.html import Html, html_element, html_table, html_terms
from lib.report.origins import origins
from lib.report.run_data import RunData, chart_element, format_number, missing_note, thin_lines
from lib.run.folder import EVALUATION_FILE, SAMPLE_FILE, read_model_config, training_seconds

_FIGURE = PlotConfig(prompt="", width=4.9, height=3.4, dpi=100)  # inches: small enough to be read on a phone


def _evaluate(subject: RunData) -> str:
    folder, file = (shlex.quote(str(path)) for path in (subject.folder, subject.folder / EVALUATION_FILE))
    return f"evaluate {folder}{' DATASET' if subject.imported else ''} -o {file}"


def summary(subject: RunData) -> Html:
    """What the run is and what came out."""
    metadata, parameters = subject.manifest["metadata"], subject.manifest["parameters"]
    model, train = read_model_config(subject.folder), parameters.get("train", {})
    seconds = training_seconds(subject.folder)
    scores = [("parameters", f"{metadata['parameters']:,}")]
    if found := subject.evaluation:
        error = found["standard_error"]
        scores = [
            ("nats/token", format_number(found["loss"], ".3f", error.get("loss"))),
            ("perplexity", format_number(found.get("perplexity"), ",.1f", error.get("perplexity"))),
            ("bits/byte", format_number(found.get("bits_per_byte"), ".3f", error.get("bits_per_byte"))),
            *scores,
        ]
    elif not subject.imported:
        scores = [("nats/token, as trained", f"{metadata['best_val_loss']:.3f}"), *scores]
    told = [
        ("Model", f"{model.kind}: {model.n_layers} layers, {model.emb_dim} wide, {model.n_heads} heads"),
        ("Reads", f"{model.context_length:,} tokens at once, of {model.vocab_size:,} distinct ones"),
    ]
    if not subject.imported:
        told += [
            ("Trained on", ", ".join(Path(name).name for name in subject.manifest["inputs"])),
            ("Best", f"after step {metadata['best_step']:,} of {train['max_steps']:,}"),
            ("Trained for", f"{format_number(seconds, ',.0f')} seconds"),
            ("Seed", str(subject.manifest.get("seed", "–"))),
        ]
    else:
        told += [("Weights", "imported, not trained here")]
    apart = [(term, _error_apart(value)) for term, value in scores]
    return Html(html_terms(apart, class_="scores") + html_terms(told, class_="told"))


def _error_apart(value: str) -> Html:
    """A number, its standard error as an element of its own."""
    number, _, error = value.partition(" ± ")
    return Html(number + (" " + html_element("small", f"± {error}") if error else ""))


def curves(subject: RunData) -> Html:
    """Training and validation loss by step."""
    if subject.metrics is None:
        why = "It was imported, so there is no training to show;" if subject.imported else "Its metrics are not here;"
        return missing_note(f"{why} a training of your own is made by", "train DATASET -o RUN --config NAME")
    found = subject.evaluation
    same_text = found is not None and of_own_validation(found, subject.manifest["metadata"])
    losses = {name: scores["loss"] for name, scores in found["baselines"].items()} if found and same_text else {}
    shown = {name: loss for name, loss in losses.items() if name != "uniform" and loss <= _highest(subject.metrics)}
    validated = [line for line in subject.metrics if line["val_loss"] is not None]
    best = min(validated, key=lambda line: line["val_loss"])
    told = (
        f"Validation loss by step: {validated[0]['val_loss']:.3f} nats/token at step {validated[0]['step']}, "
        f"{best['val_loss']:.3f} at its best, step {best['step']}, {validated[-1]['val_loss']:.3f} at the end."
    )
    drawn = loss_figure([Curve(subject.name, subject.metrics, shown)], _FIGURE)
    rows = [
        (f"{line['step']:,}", format_number(line["train_loss"], ".3f"), format_number(line["val_loss"], ".3f"))
        for line in thin_lines(validated)
    ]
    numbers = html_table("Losses at validations, nats/token", ("step", "training, this batch", "validation"), rows)
    return Html(
        chart_element(drawn, f"loss-{subject.number}", told, told)
        + html_element("details", html_element("summary", "The same in numbers"), numbers)
    )


def _highest(metrics: list[dict[str, Any]]) -> float:
    return max(line["val_loss"] for line in metrics if line["val_loss"] is not None)


def texts(subject: RunData) -> Html:
    """What the model wrote as it learned, and what `generate` made of it in the end."""
    made = Html("")
    if subject.samples:
        shown = thin_lines(subject.samples)
        few = "" if len(shown) == len(subject.samples) else f" {len(shown)} of {len(subject.samples):,} are shown."
        losses = {line["step"]: line["val_loss"] for line in subject.metrics or []}
        items = [
            html_element("li", _when(line, losses.get(line["step"])), _text(line["prompt"], line["text"])) for line in shown
        ]
        about = f"The same prompt, the same length, after more and more steps of training.{few}"
        made = Html(html_element("p", about) + html_element("ol", *items, class_="samples"))
    elif subject.imported:
        made = missing_note("It was imported, so there are no samples of a training.")
    else:
        made = missing_note("No samples were kept through this training; one that keeps them is", _anew(subject))
    file = subject.folder / SAMPLE_FILE
    if file.is_file():
        sample = file.read_bytes().decode("utf-8", "replace")
        final = html_element("p", "And what ", html_element("code", "generate"), " made with the finished weights:")
        return Html(made + final + _text("", sample.strip("\n")))
    folder, quoted = (shlex.quote(str(path)) for path in (subject.folder, file))
    return Html(made + missing_note("A text of the finished model is made by", f"generate {folder} -o {quoted}"))


def _anew(subject: RunData) -> str:
    """The training once more, with samples; the manifest's command is quoted for a shell already."""
    interval = subject.manifest["parameters"]["train"].get("sample_interval")
    kept = " --set train.sample_interval=30" if interval == 0 else ""
    return f"{subject.manifest.get('command', 'train DATASET -o RUN')}{kept} --resume never"


def _when(line: dict[str, Any], loss: float | None) -> Html:
    told = f"Step {line['step']:,}" + (f", {line['tokens']:,} tokens" if isinstance(line.get("tokens"), int) else "")
    return html_element(
        "p", html_element("strong", told), "" if loss is None else f": validation loss {loss:.3f}", class_="when"
    )


def _text(prompt: str, text: str) -> Html:
    """A text as it is, every line break kept; its prompt, where it has one, marked."""
    return html_element("pre", html_element("b", prompt) if prompt else "", text or "(nothing)", dir="auto")


def counting(subject: RunData) -> Html:
    """The model beside what it is measured against, and in words who is ahead."""
    found = subject.evaluation
    if found is None:
        return missing_note("It has not been evaluated yet:", _evaluate(subject))
    error = found["standard_error"]
    rows = [(found["loss"], _row(subject.name, found, error, "the model itself"))]
    if sliding := found.get("sliding"):
        label = f"with a window that slides by {sliding['stride']:,}"
        rows.append((sliding["loss"], _row(label, sliding, sliding["standard_error"], "the same model")))
    for name, scores in found["baselines"].items():
        apart = scores.get("lead") or {"loss": found["loss"] - scores["loss"]}
        rows.append((scores["loss"], _row(ngram_label(name), scores, {}, who_is_ahead(apart))))
    head = ("", "nats/token", "perplexity", "bits/byte", "beside the model")
    about = f"{found['split']} split, {found['tokens']:,} tokens, {found['bytes']:,} bytes; the best first"
    made = html_table(about, head, [row for _, row in sorted(rows, key=lambda row: row[0])], marked={subject.name})
    told = "".join(f" {note.capitalize()}." for note in from_json(Evaluation, found).notes())
    first, five = (format_number(100 * found[key], ".1f", error.get(key) and 100 * error[key]) for key in ("top_1", "top_5"))
    hits = (
        f" Its most probable token is right {first} % of the time, and the right one is among its five most probable {five} %."
    )
    return Html(
        html_element("p", hits.strip() + told, class_="verdict")
        + made
        + html_element("p", "± is the standard error.", class_="note")
    )


def _row(name: str, scores: dict[str, Any], error: dict[str, Any], words: str) -> tuple[str, ...]:
    columns = (("loss", ".3f"), ("perplexity", ",.1f"), ("bits_per_byte", ".3f"))
    return name, *(format_number(scores[key], form, error.get(key)) for key, form in columns), words


def who_is_ahead(found: dict[str, Any]) -> str:
    """By how many nats/token a baseline is ahead of the model (below 0: behind it), and whether that may be chance.

    Without `significant`, which is not None but absent, no error was measured.
    """
    size = format_number(abs(found["loss"]), ".3f", found.get("standard_error"))
    lead = f"{'ahead' if found['loss'] > 0 else 'behind'} by {size}"
    remark = {None: ", too short to tell", False: ", not significant", True: ""}
    return lead + (remark[found["significant"]] if "significant" in found else "")


def positions(subject: RunData) -> Html:
    """How much better the model predicts with more of the text before it."""
    found = subject.evaluation
    if found is None or not (bands := found.get("loss_by_position")):
        return missing_note("It has not been evaluated by position:", _evaluate(subject))
    first, last = bands[0], bands[-1]
    told = (
        f"Mean loss by position in the window: {first['loss']:.3f} nats/token at {_range(first)}, "
        f"{last['loss']:.3f} at {_range(last)}."
    )
    rows = [(_range(band), format_number(band["loss"], ".3f")) for band in bands]
    numbers = html_table("Loss by position", ("position", "nats/token"), rows)
    drawn = position_figure(bands, _FIGURE)
    return Html(
        chart_element(drawn, f"positions-{subject.number}", told, told)
        + html_element("details", html_element("summary", "The same in numbers"), numbers)
    )


def _range(band: dict[str, Any]) -> str:
    return f"{band['from']:,}" if band["from"] == band["to"] else f"{band['from']:,} to {band['to']:,}"


_KINDS = {
    "samples": "its own texts",
    "continuations": "its greedy continuations of training passages",
    "validation": "the validation text, for comparison",
}


def memorization(subject: RunData) -> Html:
    """How much of what it writes stands in the training text word for word."""
    found = (subject.evaluation or {}).get("memorization")
    if not found:
        return missing_note("What it knows by heart has not been looked for:", _evaluate(subject))
    kinds = [(_KINDS[kind], found[kind]) for kind in _KINDS if found.get(kind)]
    lengths = sorted({length for _, one in kinds for length in one["novel_fraction"]}, key=int)
    head = ("", "tokens", "longest run copied", *(f"new runs of {length}" for length in lengths))
    rows = [
        (name, f"{one['tokens']:,}", format_number(one["longest_run"], ",d"), *(_share(one, length) for length in lengths))
        for name, one in kinds
    ]
    passages = [
        Html(html_element("p", f"The longest run copied in {name}, {one['longest_run']:,} tokens:") + _text("", one["passage"]))
        for name, one in kinds
        if one.get("passage")
    ]
    return Html(html_table("Runs of tokens that stand in the training text", head, rows) + "".join(passages))


def _share(one: dict[str, Any], length: str) -> str:
    share = one["novel_fraction"].get(length)
    return format_number(None if share is None else 100 * share, ".1f") + ("" if share is None else " %")


def parameters(subject: RunData) -> Html:
    """Every parameter that the run was made with."""
    given = subject.manifest["parameters"]
    rows = [
        (f"{section}.{name}", "null" if value is None else str(value))
        for section, values in given.items()
        if isinstance(values, dict)
        for name, value in values.items()
    ]
    return html_element(
        "details", html_element("summary", f"All {len(rows)} of them"), html_table("Parameters", ("name", "value"), rows)
    )


#: The sections in their order: the word of their address, their heading, what makes them.
SECTIONS: tuple[tuple[str, str, Callable[[RunData], Html]], ...] = (
    ("summary", "Summary", summary),
    ("curves", "Learning", curves),
    ("samples", "Samples through training", texts),
    ("counting", "Beside counting", counting),
    ("positions", "Loss by position", positions),
    ("memorization", "Learnt by heart", memorization),
    ("origins", "Where it comes from", origins),
    ("parameters", "Parameters", parameters),
)
