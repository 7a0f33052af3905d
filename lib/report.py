"""Runs gathered for a reader: as curves for a figure, and in words: what came out, what to try next."""

from pathlib import Path
from typing import Any, Iterable

from lib import run
from lib.figures import Curve


def curves(folders: Iterable[Path]) -> list[Curve]:
    """What a loss figure shows of each run; its baselines where it has been evaluated."""
    gathered = []
    for folder in folders:
        run.finished_manifest(folder)
        evaluated = folder / run.EVALUATION
        baselines = run.read_evaluation(folder)["baselines"] if evaluated.is_file() else {}
        losses = {name: baseline["loss"] for name, baseline in baselines.items()}
        gathered.append(Curve(folder.resolve().name, run.read_metrics(folder), losses))
    return gathered


def provenance(folders: Iterable[Path]) -> dict[str, Any]:
    """Which weights, metrics and dataset a figure of these runs shows, by their hashes."""
    return {
        folder.resolve().name: {"files": (m := run.finished_manifest(folder))["outputs"], "facts": m["facts"]}
        for folder in folders
    }


def summary(folder: Path) -> str:
    """The run in `folder` in about twenty lines: its losses beside the baselines, its sample, its files."""
    manifest = run.finished_manifest(folder)
    evaluation = run.read_evaluation(folder)
    sample_file = folder / run.SAMPLE
    sample = sample_file.read_text(encoding="utf-8") if sample_file.is_file() else None
    train = manifest["parameters"]["train"]
    lines = [
        f"{folder.name}: {manifest['facts']['parameters']:,} parameters, {train['max_steps']} steps, "
        f"best at step {manifest['facts']['best_step']}",
        "",
        *_table(evaluation),
        "",
        _verdict(evaluation),
    ]
    if sample is not None:
        lines += ["", "A sample:", "", *("    " + line for line in _first_lines(sample, 12))]
    lines += [
        "",
        f"Everything is in {folder}/ ({', '.join(_made(folder))})",
        "",
        "Next:",
        f"    .venv/bin/generate {folder} 'To be, or not' --temperature 0.7",
        f"    with SET=train.max_steps={2 * train['max_steps']} the same make trains longer; TEXT=my.txt takes a text of yours",
    ]
    return "\n".join(lines)


def _table(evaluation: dict[str, Any]) -> list[str]:
    """Loss, perplexity and bits a byte of the model, between its baselines, best first."""
    rows = [
        ("this model", evaluation),
        *((f"counted {n}" if n != "uniform" else n, b) for n, b in evaluation["baselines"].items()),
    ]
    rows.sort(key=lambda row: float(row[1]["loss"]))
    lines = [f"{evaluation['split'] + ' split':<18}{'nats a token':>14}{'perplexity':>13}{'bits a byte':>13}"]
    for name, row in rows:
        bits = f"{row['bits_per_byte']:.3f}" if row["bits_per_byte"] is not None else "-"
        lines.append(f"{name:<18}{row['loss']:>14.3f}{_perplexity(row['perplexity']):>13}{bits:>13}")
    return lines


def _perplexity(value: float | None) -> str:
    """A perplexity, or a dash where it is beyond all numbers."""
    return "-" if value is None else f"{value:,.1f}"


def _verdict(evaluation: dict[str, Any]) -> str:
    """Which baselines the model is ahead of, and which are ahead of it."""
    ahead = [name for name, baseline in evaluation["baselines"].items() if baseline["loss"] < evaluation["loss"]]
    if not ahead:
        return "The model is ahead of every count it was measured against."
    verb = "predicts" if len(ahead) == 1 else "predict"
    return f"Counting still wins here: the {' and the '.join(ahead)} of the training text {verb} better than this model."


def _first_lines(text: str, count: int) -> list[str]:
    lines = text.strip("\n").splitlines()
    return lines[:count] + (["…"] if len(lines) > count else [])


def _made(folder: Path) -> list[str]:
    names = (run.MODEL, run.EVALUATION, run.SAMPLE, run.LOSS_FIGURE, run.METRICS)
    return [name for name in names if (folder / name).is_file()]
