"""What `plot` shows: a figure of each kind, and a run in words: what came out, what to try next."""

import hashlib
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any, Iterable, Mapping

import torch
from matplotlib.figure import Figure

from lib import artifact, assessment, comparison, diagrams, run, sessions, study_report, verdict
from lib import config as schema
from lib import curves as learning
from lib import surprise as surprises
from lib.blueprint import model_figure
from lib.comparison import Row
from lib.config import Config, ModelConfig, PlotConfig
from lib.continuation import encode
from lib.curves import Curve
from lib.errors import MakegptError, UsageError
from lib.ladder import ladder_figure
from lib.model.maps import attention_maps, attentions
from lib.pretrained import RELEASED_TOKENS
from lib.run import Trained
from lib.stretch import Stretch
from lib.study_figures import FIGURES
from lib.tokenizer.bytes_ import BytesTokenizer


def figure(
    kind: str, folders: tuple[Path, ...], config: Config, *, panels: bool = False, configs: Mapping[str, Config] | None = None
) -> Figure:
    """The figure of `kind` of the runs in `folders`, or, for the kinds without runs, of what `config` describes.

    `panels`: a panel a run and not all in one, for the kind loss. `configs`: for the kind model, those among `folders` that
    are no folder but the name of a config.
    """
    plot = config.plot
    match kind:
        case "loss":
            return (learning.panels_figure if panels else learning.loss_figure)(curves(folders), plot)
        case "ladder":
            return ladder_figure(_compared(folders), plot)
        case "depth":
            return _depth(folders[0], plot)
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
        case "model":
            return model_figure(_models(folders, config, configs or {}), plot)
        case "schedule":
            return diagrams.schedule_figure(config.train, plot)
        case "activations":
            return diagrams.activations_figure(plot)
        case "gradients":
            return diagrams.gradients_figure(plot)
    raise AssertionError(kind)


_LARGEST_MASK = 4096  # positions


#: Vocabularies that are known before there is a text.
_VOCABULARIES = {"gpt2": RELEASED_TOKENS, "bytes": BytesTokenizer.vocab_size}


def _models(folders: tuple[Path, ...], config: Config, configs: Mapping[str, Config]) -> list[tuple[str, ModelConfig]]:
    """The models of runs and of configs, with their names; without any what `config` describes."""
    if not folders:
        return [("", _known(config))]
    return [
        (str(folder), _known(configs[str(folder)])) if str(folder) in configs else (_named(folder), run.read_config(folder))
        for folder in folders
    ]


def _named(folder: Path) -> str:
    run.finished_manifest(folder)
    return folder.resolve().name


def _known(config: Config) -> ModelConfig:
    """The model that `config` describes, its vocabulary that of the tokenizer."""
    if config.model.vocab_size is not None:
        return config.model
    kind = config.tokenize.tokenizer
    if kind not in _VOCABULARIES:
        raise UsageError(
            f"the vocabulary of tokenizer {kind} comes from a text; say its size with --set model.vocab_size=65, or name a run"
        )
    return replace(config.model, vocab_size=_VOCABULARIES[kind])


def _depth(results: Path, plot: PlotConfig) -> Figure:
    rows = study_report.read(results)["runs"]
    draw, experiments = FIGURES["depth"]
    if missing := experiments - {row["experiment"] for row in rows}:
        raise MakegptError(
            f"{results} has no trainings of {', '.join(sorted(missing))}, which plot depth shows; `study -o DIR` does them all"
        )
    return draw(rows, plot)


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


def surprise(folder: Path, trained: Trained, stretch: Stretch) -> str:
    """The page of a text that the run in `folder` has read."""
    found = list(surprises.pieces(trained, stretch, torch.device("cpu")))
    text = hashlib.sha256("".join(piece.text for piece in found).encode()).hexdigest()
    about = {"kind": "tokens", "runs": [_provenance(folder)], "text_sha256": text}
    return surprises.page(found, folder.resolve().name, trained.config.context_length, about)


def curves(folders: Iterable[Path]) -> list[Curve]:
    """What a loss figure shows of each run; its baselines where it has been evaluated on its own validation split."""
    gathered = []
    for folder in folders:
        facts = run.finished_manifest(folder)["facts"]
        evaluation = assessment.read(folder) if (folder / run.EVALUATION).is_file() else {}
        if evaluation and not assessment.of_own_validation(evaluation, facts):
            evaluation = {}  # its baselines are of another text than the curves
        losses = {name: baseline["loss"] for name, baseline in evaluation.get("baselines", {}).items()}
        identity = (facts.get("tokenizer"), evaluation.get("text_sha256"), facts.get("dataset"))
        gathered.append(Curve(folder.resolve().name, run.read_metrics(folder), losses, *identity))
    return gathered


def provenance(
    kind: str, folders: Iterable[Path], config: Config, *, configs: Mapping[str, Config] | None = None
) -> dict[str, Any]:
    """What a figure shows, for its metadata: only what it was made from, so the same input gives the same bytes.

    Of each run its name, the dataset it was trained on, the commit of the code that trained it (not of the code that
    draws), the hashes of its files; without runs, and beside them, the parameters.
    """
    if kind == "depth":
        return {"kind": kind} | study_report.provenance(study_report.read(next(iter(folders))))
    named = configs or {}
    runs = [_provenance(folder) for folder in folders if str(folder) not in named]
    trees = {name: schema.as_tree(one) for name, one in named.items()} or ({} if runs else {"": schema.as_tree(config)})
    prompt = {"prompt": config.plot.prompt} if kind == "attention" else {}
    return {"kind": kind, "runs": runs, "parameters": trees} | prompt


def _provenance(folder: Path) -> dict[str, Any]:
    manifest = run.finished_manifest(folder)
    versions = sessions.all_versions(manifest)
    evaluated = [run.EVALUATION] if (folder / run.EVALUATION).is_file() else []
    return {
        "run": folder.resolve().name,
        "dataset": {Path(path).name: found.get("identity") for path, found in manifest["inputs"].items()},
        "commit": versions.get("commit"),
        "dirty": versions.get("dirty"),
        "files": {name: file["sha256"] for name, file in (manifest["outputs"] | artifact.files_of(folder, evaluated)).items()},
        "facts": manifest["facts"],
    }


def summary(folder: Path, figure: Path) -> str:
    """The run in `folder` in about twenty lines: its losses beside the baselines, its sample, its files.

    `figure` counts as one of these where it is about to be written into `folder`.
    """
    manifest = run.finished_manifest(folder)
    facts, steps = manifest["facts"], manifest["parameters"].get("train", {}).get("max_steps")
    evaluation = assessment.read(folder)
    sample_file = folder / run.SAMPLE
    sample = sample_file.read_text(encoding="utf-8") if sample_file.is_file() else None
    told = "imported" if run.imported(manifest) else f"{steps} steps, best at step {facts['best_step']}"
    lines = [
        f"{folder.resolve().name}: {facts['parameters']:,} parameters, {told}",
        "",
        *comparison.table(comparison.rows([folder])),
        "",
        verdict.sentences(evaluation),
    ]
    if sample is not None:
        lines += ["", "A sample:", "", *("    " + line for line in _first_lines(sample, 12))]
    lines += [
        "",
        f"Everything is in {folder}/ ({', '.join(_made(folder, figure))})",
        "",
        "Next:",
        f"    .venv/bin/generate {shlex.quote(str(folder))} 'To be, or not' --temperature 0.7",
    ]
    if steps is not None:
        lines.append(f"    with SET=train.max_steps={2 * steps} the same make trains longer; TEXT=my.txt takes a text of yours")
    return "\n".join(lines)


def _first_lines(text: str, count: int) -> list[str]:
    lines = text.strip("\n").splitlines()
    return lines[:count] + (["…"] if len(lines) > count else [])


def _made(folder: Path, figure: Path) -> list[str]:
    names = (run.MODEL, run.EVALUATION, run.SAMPLE, run.LOSS_FIGURE, run.METRICS)
    return [name for name in names if (folder / name).is_file() or (folder / name).resolve() == figure.resolve()]
