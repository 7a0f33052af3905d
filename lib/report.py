"""What the pipeline has to show: a figure of a kind, and a run in words: what came out, what to try next."""

from pathlib import Path
from typing import Any, Iterable

import torch
from matplotlib.figure import Figure

from lib import artifact, assessment, comparison, diagrams, run
from lib import config as schema
from lib import curves as learning
from lib.comparison import Row
from lib.config import Config
from lib.continuation import encode
from lib.curves import Curve
from lib.errors import MakegptError, UsageError
from lib.ladder import ladder_figure
from lib.model.maps import attention_maps, attentions


def figure(kind: str, folders: tuple[Path, ...], config: Config, panels: bool = False) -> Figure:
    """The figure of `kind` of the runs in `folders`, or, for the kinds without runs, of what `config` describes.

    `panels`: a panel a run and not all in one, for the kind loss.
    """
    plot = config.plot
    match kind:
        case "loss":
            return (learning.panels_figure if panels else learning.loss_figure)(curves(folders), plot)
        case "ladder":
            return ladder_figure(_compared(folders), plot)
        case "attention":
            return _attention(folders[0], config)
        case "mask":
            if config.model.kind == "bigram":
                raise UsageError("a bigram has no attention, and so no mask")
            if config.model.context_length > _LARGEST_MASK:
                raise UsageError(
                    f"a mask of {config.model.context_length}² squares cannot be drawn; "
                    f"--set model.context_length={_LARGEST_MASK} could"
                )
            return diagrams.mask_figure(config.model, plot)
        case "positions":
            return diagrams.positions_figure(config.model, plot)
        case "architecture":
            return diagrams.architecture_figure(config.model, plot)
        case "schedule":
            return diagrams.schedule_figure(config.train, plot)
        case "activations":
            return diagrams.activations_figure(plot)
        case "gradients":
            return diagrams.gradients_figure(plot)
    raise AssertionError(kind)


_LARGEST_MASK = 4096  # positions


def _attention(folder: Path, config: Config) -> Figure:
    trained = run.load(folder, torch.device("cpu"))
    if not attentions(trained.model):
        raise MakegptError(f"{folder} is a {trained.config.kind}, which has no attention to draw")
    ids = encode(trained.tokenizer, config.plot.prompt).ids
    maps = attention_maps(trained.model, torch.tensor([ids]))
    tokens = [trained.tokenizer.decode([id]) for id in ids]
    return diagrams.attention_figure(maps, tokens, config.plot)


def _compared(folders: Iterable[Path]) -> list[Row]:
    """The rows of evaluated runs and their baselines; MakegptError where the tokens of one stand for no bytes."""
    rows = comparison.rows(folders)
    for row in rows:
        if row.bits_per_byte is None:
            raise MakegptError(f"{row.name} was evaluated on {row.tokens} tokens that stand for no text; bits a byte need some")
    return rows


def curves(folders: Iterable[Path]) -> list[Curve]:
    """What a loss figure shows of each run; its baselines where it has been evaluated."""
    gathered = []
    for folder in folders:
        facts = run.finished_manifest(folder)["facts"]
        evaluated = folder / run.EVALUATION
        baselines = assessment.read(folder)["baselines"] if evaluated.is_file() else {}
        losses = {name: baseline["loss"] for name, baseline in baselines.items()}
        gathered.append(Curve(folder.resolve().name, run.read_metrics(folder), losses, facts.get("tokenizer")))
    return gathered


def provenance(kind: str, folders: Iterable[Path], config: Config) -> dict[str, Any]:
    """What a figure shows, for its metadata: only what it was made from, so the same input gives the same bytes.

    Of each run its name, the dataset it was trained on, the commit of the code that trained it (not of the code that
    draws), the hashes of its files; without runs, and beside them, the parameters.
    """
    parameters = schema.as_tree(config)
    found = [_provenance(folder) for folder in folders]
    return {"kind": kind, "runs": found, "plot": parameters["plot"]} if found else {"kind": kind, "parameters": parameters}


def _provenance(folder: Path) -> dict[str, Any]:
    manifest = run.finished_manifest(folder)
    versions = manifest.get("versions", {})
    evaluated = [run.EVALUATION] if (folder / run.EVALUATION).is_file() else []
    return {
        "run": folder.resolve().name,
        "dataset": {Path(path).name: found.get("identity") for path, found in manifest["inputs"].items()},
        "commit": versions.get("commit"),
        "dirty": versions.get("dirty"),
        "files": {name: file["sha256"] for name, file in (manifest["outputs"] | artifact.files_of(folder, evaluated)).items()},
        "facts": manifest["facts"],
    }


def summary(folder: Path) -> str:
    """The run in `folder` in about twenty lines: its losses beside the baselines, its sample, its files."""
    manifest = run.finished_manifest(folder)
    evaluation = assessment.read(folder)
    sample_file = folder / run.SAMPLE
    sample = sample_file.read_text(encoding="utf-8") if sample_file.is_file() else None
    train = manifest["parameters"]["train"]
    lines = [
        f"{folder.name}: {manifest['facts']['parameters']:,} parameters, {train['max_steps']} steps, "
        f"best at step {manifest['facts']['best_step']}",
        "",
        *comparison.table(comparison.rows([folder])),
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


def _verdict(evaluation: dict[str, Any]) -> str:
    """Which baselines the model is ahead of, and which are ahead of it."""
    ahead = [name for name, baseline in evaluation["baselines"].items() if baseline["loss"] < evaluation["loss"]]
    if not ahead:
        return "The model is ahead of every count it was measured against."
    if "uniform" in ahead:
        return "Even guessing is better than this model: it has learnt nothing yet that holds for other text."
    *others, last = ahead
    subject = f"{', '.join(others)} and {last}" if others else last
    verb = "predict" if others else "predicts"
    return f"Counting still wins here: the {subject} of the training text {verb} better than this model."


def _first_lines(text: str, count: int) -> list[str]:
    lines = text.strip("\n").splitlines()
    return lines[:count] + (["…"] if len(lines) > count else [])


def _made(folder: Path) -> list[str]:
    names = (run.MODEL, run.EVALUATION, run.SAMPLE, run.LOSS_FIGURE, run.METRICS)
    return [name for name in names if (folder / name).is_file()]
