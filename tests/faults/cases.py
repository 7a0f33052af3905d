"""What the campaign runs: each stage as a command, what lies at its output before, and how its output is read.

Every command runs in a folder of its own that holds `out`, which all its outputs are below; its inputs lie in `../base`
and are never changed. Three kinds of outputs are told apart: files, each of them whole; a folder, whole; and the folder of
a training, which grows and is finished when it holds its weights.
"""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable

from lib.artifact.io import read_json, sha256_of
from lib.artifact.manifest import read_manifest, verify_files
from lib.errors import MakegptError
from lib.run.folder import CONFIG_FILE, MODEL_FILE, finished_manifest
from lib.run.metrics import METRICS_FILE
from lib.run.samples import SAMPLES_FILE
from lib.tokenizer.registry import TOKENIZER_FILE

#: Small enough that a training takes some tenths of a second: two states are saved, in six steps.
TRAINING = (
    "--config", "debug", "--set", "train.max_steps=6", "--set", "train.eval_interval=3", "--set", "train.batch_size=2",
    "--set", "train.sample_tokens=4",
)  # fmt: skip

#: For an evaluation and a text, the least work.
EVALUATION = (
    "--set", "evaluate.ngram_order=1", "--set", "evaluate.passages=0", "--set", "evaluate.overlap=0",
    "--set", "generate.max_new_tokens=4",
)  # fmt: skip
SMALL_FIGURE = ("--set", "plot.width=3", "--set", "plot.height=2", "--set", "plot.dpi=40")

RUN = "../base/run"


@dataclass(frozen=True)
class Case:
    """A command, and the state that it finds."""

    name: str
    words: tuple[str, ...]
    outputs: tuple[str, ...]  # paths below the folder it runs in; a training has one
    kind: str  # "files", "folder" or "training"
    before: tuple[tuple[str, ...], ...] = ()  # commands that were run there before
    prepare: Callable[[Path], None] = lambda folder: None  # what else lies there
    stdin: str | None = None
    stdout: str | None = None  # a file of `out` that stdout goes to
    long_only: bool = False


BASE: tuple[tuple[str, ...], ...] = (
    ("tokenize", "play.txt", "-o", "tokens", "--tokenizer", "bytes"),
    ("tokenize", "other.txt", "-o", "other", "--tokenizer", "char"),
    ("build-dataset", "tokens", "-o", "dataset", "--config", "debug"),
    ("train", "dataset", "-o", "run", *TRAINING),
    ("train", "dataset", "-o", "elder", *TRAINING, "--set", "train.seed=5"),
    ("evaluate", "run", "-o", "run/evaluation.json", *EVALUATION),
    ("generate", "run", "-o", "run/sample.txt", *EVALUATION),
    ("export-weights", "run", "-o", "export"),
    ("export-weights", "elder", "-o", "elder-export"),
    ("import-weights", "export", "-o", "imported"),
    ("plot", "loss", "run", "-o", "run/loss.png", *SMALL_FIGURE),
    ("plot", "schedule", "-o", "schedule.svg", *SMALL_FIGURE),
    ("plot", "tokens", "run", "--prompt", "To be", "-o", "tokens.html"),
    ("report", "run", "-o", "report.html"),
)


def cases() -> list[Case]:
    """All of them."""
    return [*_folders(), *_trainings(), *_files(), *_piped(), *_others()]


def _folders() -> list[Case]:
    """The stages that make a folder, where nothing is, and where an older one is."""
    made = {
        "tokenize": (("../base/play.txt", "--tokenizer", "bytes", "--set", "tokenize.shard_tokens=1000"),
                     ("../base/other.txt", "--tokenizer", "char")),
        "build-dataset": (("../base/tokens", "--context-length", "16"), ("../base/other", "--context-length", "8")),
        "export-weights": ((RUN,), ("../base/elder",)),
        "import-weights": (("../base/export",), ("../base/elder-export",)),
    }  # fmt: skip
    found = []
    for stage, (new, old) in made.items():
        for state, before in (("", ()), (" over an older one", ((stage, *old, "-o", "out/made"),))):
            words = (stage, *new, "-o", "out/made")
            found.append(Case(f"{stage}{state}", words, ("out/made",), "folder", before, long_only=not before))
    words = ("export-weights", RUN, "--to", "gguf", "-o", "out/made")
    found.append(Case("export-weights to gguf", words, ("out/made",), "folder", long_only=True))
    words = ("tokenize", "-", "-o", "out/made", "--tokenizer", "bytes")
    return [*found, Case("tokenize stdin", words, ("out/made",), "folder", stdin="../base/play.txt", long_only=True)]


def _trainings() -> list[Case]:
    words = ("train", "../base/dataset", "-o", "out/run", *TRAINING)
    stopped = (*words, "--stop-after", "0s")
    other = (*words, "--set", "train.seed=5")
    return [
        Case("train", words, ("out/run",), "training"),
        Case("train over an older run", words, ("out/run",), "training", (other,), long_only=True),
        Case("train resumed", words, ("out/run",), "training", (stopped,)),
        Case("train from weights", (*words, "--init-from", RUN), ("out/run",), "training", long_only=True),
    ]


def _files() -> list[Case]:
    """The stages that make one file."""
    made = {
        "evaluate": (("evaluate", RUN, *EVALUATION), "out/evaluation.json"),
        "evaluate --per-token": (("evaluate", RUN, "--per-token"), "out/tokens.jsonl"),
        "generate": (("generate", RUN, "To be", *EVALUATION), "out/sample.txt"),
        "plot loss": (("plot", "loss", RUN, *SMALL_FIGURE), "out/loss.png"),
        "plot schedule": (("plot", "schedule", *SMALL_FIGURE), "out/schedule.svg"),
        "plot tokens": (("plot", "tokens", RUN, "--prompt", "To be"), "out/tokens.html"),
        "report": (("report", RUN), "out/report.html"),
        "export-page": (("export-page", RUN, "--weights", "int8"), "out/page.html"),
        "report without figures": (("report", "../base/imported"), "out/report.html"),  # 7 ms instead of 0.8 s
    }
    short = ("evaluate", "generate", "plot schedule", "report without figures")
    found = []
    for name, (words, path) in made.items():

        def older(folder: Path, path: str = path) -> None:
            (folder / path).write_text("what was there before\n", encoding="utf-8")

        found.append(Case(name, (*words, "-o", path), (path,), "files", long_only=True))
        over = Case(f"{name} over an older file", (*words, "-o", path), (path,), "files", prepare=older)
        found.append(replace(over, long_only=name not in short))
    return found


def _piped() -> list[Case]:
    """Commands whose stdout is a file: what they say of it is all there is, the file is the shell's."""
    made: dict[str, tuple[str, ...]] = {
        "compare": ("compare", RUN),
        "evaluate": ("evaluate", RUN, *EVALUATION),
        "generate": ("generate", RUN, "To be", *EVALUATION),
        "tokenize --ids": ("tokenize", "../base/play.txt", "--ids", "--tokenizer", "bytes"),
        "inspect": ("inspect", RUN),
        "explain": ("explain", "softmax", "--quiet"),
        "report": ("report", RUN, "-o", "-"),
    }
    return [
        Case(f"{name} > file", words, ("out/stdout",), "files", stdout="out/stdout", long_only=name != "compare")
        for name, words in made.items()
    ]


def _others() -> list[Case]:
    def own_inputs(folder: Path) -> None:
        """A project file with an input that lies in the mirror, `../base`."""
        play = sha256_of(folder / "../base/play.txt")
        (folder / "params.yaml").write_text(
            (Path(__file__).resolve().parents[2] / "params.yaml").read_text(encoding="utf-8").partition("\ninputs:")[0]
            + f"\ninputs:\n  play:\n    about: a text\n    license: none\n    files:\n      play.txt: {play}\n",
            encoding="utf-8",
        )
        (folder / "data").symlink_to("out")

    def results(folder: Path) -> None:
        """Results of a study with one of its figures."""
        found = read_json(Path(__file__).resolve().parents[2] / "docs/study/results.json")
        found["runs"] = [row for row in found["runs"] if row["experiment"] == "the_four"]
        (folder / "results.json").write_text(json.dumps(found), encoding="utf-8")

    figures = tuple(f"out/the_four.{kind}" for kind in ("png", "svg"))
    words = ("study", "--results", "results.json", "-o", "out", *SMALL_FIGURE)
    return [
        Case("fetch", ("fetch", "play"), ("out/play.txt",), "files", prepare=own_inputs),
        Case("study", words, figures, "files", prepare=results, long_only=True),
    ]


def seen(case: Case, folder: Path) -> Any:
    """The output as a later command takes it: a text for what is not whole or not there, else its content."""
    if case.kind == "files":
        return {path: (folder / path).read_bytes() if (folder / path).exists() else None for path in case.outputs}
    target = folder / case.outputs[0]
    if case.kind == "training" and not (target / MODEL_FILE).exists():
        return None
    if not target.exists():
        return None
    try:
        manifest = finished_manifest(target) if case.kind == "training" else read_manifest(target, None)
        verify_files(target, manifest.outputs)
    except MakegptError as error:
        return f"refused: {error}"
    names = [
        *manifest.outputs,
        *([METRICS_FILE, CONFIG_FILE, SAMPLES_FILE, TOKENIZER_FILE] if case.kind == "training" else []),
    ]
    return {name: (target / name).read_bytes() for name in names}


def names(folder: Path) -> set[str]:
    """All that lies below `out`, less the file that a lock is held on."""
    return {str(path.relative_to(folder)) for path in (folder / "out").rglob("*") if path.name != ".lock"}


def prepare_base(folder: Path) -> None:
    """The texts that all begins with."""
    folder.mkdir(parents=True)
    lines = [f"{n}. The naïve café — “to be, or not to be” — costs 5 € 😀 today.\n\n" for n in range(40)]
    (folder / "play.txt").write_text("".join(lines), encoding="utf-8")
    (folder / "other.txt").write_text("".join(lines).upper(), encoding="utf-8")


def fresh(template: Path, folder: Path) -> None:
    """Make `folder` what `template` is."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder, symlinks=True)
