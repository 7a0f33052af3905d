"""What make asks before it begins: the artifacts that a config and a text lead to, and which of them must be made again.

    .venv/bin/python -m lib.pipeline.plan variables CONFIG DATASET TEXT SET    NAME:=value and NAME+=value words for $(eval)
    .venv/bin/python -m lib.pipeline.plan why CONFIG DATASET TEXT SET          what `make all` would run, and why
    .venv/bin/python -m lib.pipeline.plan runs CONFIGS DATASET TEXT SET        the run folders of several configs
    .venv/bin/python -m lib.pipeline.plan compared CONFIG DATASET TEXT SET     the run folder, after that of its base
    .venv/bin/python -m lib.pipeline.plan note STAGE CONFIG DATASET TEXT SET   write down what STAGE's output was made from
    .venv/bin/python -m lib.pipeline.plan configs                              the configs and texts of params.yaml
    .venv/bin/python -m lib.pipeline.plan unknown NAME KNOWN...                what a mistyped variable may have meant

An error is one line on stdout that begins with `error:`, which make shows.
"""

import sys
from pathlib import Path
from typing import Any, Callable

from lib.config.params import config_names, load_params
from lib.data.downloads import load_inputs
from lib.errors import MakegptError, nearest
from lib.pipeline.freshness import STAMPS, Freshness
from lib.pipeline.hashes import Hashes
from lib.pipeline.steps import build_pipeline


def configs() -> str:
    """The configs and the texts that `params.yaml` names."""
    tree = load_params()
    texts = [name for name, entry in load_inputs(tree).items() if entry.is_text]
    return f"configs:  {' '.join(config_names(tree))}\ndatasets: {' '.join(texts)}"


def unknown(name: str, *known: str) -> str:
    """What the mistyped variable `name` of the command line may have meant."""
    return f"make knows no variable {name}; {nearest(name.upper(), known)}"


def runs(names: str, dataset: str, text: str, changes: str) -> str:
    """The run folders of the configs `names`."""
    return " ".join(str(build_pipeline(name, dataset, text, changes).run) for name in names.split())


def compared(config: str, dataset: str, text: str, changes: str) -> str:
    """The run folder of a config, after that of the pretrained weights that it starts from, if it does."""
    pipeline = build_pipeline(config, dataset, text, changes)
    return " ".join(map(str, [*([pipeline.base.run] if pipeline.base else []), pipeline.run]))


def variables(*words: str) -> str:
    """What the Makefile needs: folders, inputs, and AGAIN.STAGE for each stage that must run again."""

    def assignments(freshness: Freshness) -> str:
        pipeline, reasons = freshness.pipeline, freshness.reasons()
        reasons["figure"] = reasons["plot"] or freshness.figure_reason()
        values = {
            "TOKENS": pipeline.step("tokenize").target.parent,
            "WINDOWS": pipeline.step("build-dataset").target.parent,
            "RUN": pipeline.run,
            "FIGURE": pipeline.figure,
            "DRAWN": pipeline.step("plot").target,
            "CONVERSATIONS": pipeline.conversations or "",
            "KIND": pipeline.step("plot").target.stem,
            "LAYOUT": pipeline.layout or "",
            "BASE": pipeline.base.run if pipeline.base else "",
            "WEIGHTS": pipeline.base.weights if pipeline.base else "",
            "TEXTS": "",
            "VOCABULARY": "",
        } | {f"AGAIN.{stage}": "again" if reason else "" for stage, reason in reasons.items()}
        files = {"TEXTS": pipeline.texts, "VOCABULARY": pipeline.vocabulary}
        return " ".join(
            [f"{name}:={value}" for name, value in values.items()]
            + [f"{name}+={path}" for name, paths in files.items() for path in paths]
        )

    return _ask(assignments, *words)


def why(*words: str) -> str:
    """For every stage of `make all`: up to date, or why it runs; and whether the code has changed since it was made."""

    def lines(freshness: Freshness) -> str:
        reasons = freshness.reasons()
        reasons["plot"] = reasons["plot"] or freshness.figure_reason()
        reasons.pop("report", None)  # not part of `make all`
        return "\n".join(f"{stage:14} {_status(freshness, stage, reason)}" for stage, reason in reasons.items())

    return _ask(lines, *words)


def _status(freshness: Freshness, stage: str, reason: str | None) -> str:
    if reason:
        return f"runs: {reason}"
    code = freshness.other_code(freshness.pipeline.step(stage))
    return "is up to date" + (f" (made by other code: {code}; remove it to make it again)" if code else "")


def note(stage: str, *words: str) -> str:
    """Write down what the output of `stage` was made from; return where."""
    return _ask(lambda freshness: str(freshness.note(stage)), *words, check=False)


def _ask(question: Callable[[Freshness], str], *words: str, check: bool = True) -> str:
    """The answer about the pipeline of CONFIG, DATASET, TEXT and SET; file hashes are kept for the next time."""
    config, dataset, text, changes = words
    if Path("artifacts").exists() and not Path("artifacts").is_dir():
        raise MakegptError("artifacts is a file, but the pipeline keeps its folders there; move it away")
    hashes = Hashes(STAMPS / "hashes.json")
    freshness = Freshness(build_pipeline(config, dataset, text, changes, hashes), hashes)
    if check:
        freshness.check_place()
    answer = question(freshness)
    hashes.save()
    return answer


QUESTIONS: dict[str, Callable[..., str]] = {
    ask.__name__: ask for ask in (variables, why, runs, compared, note, configs, unknown)
}


def main(words: list[str]) -> int:
    """Print the answer to one question; an error is one line after `error:`, with exit code 1 or 2."""
    question, *rest = words or [""]
    out: Any = sys.stdout
    code = 0
    try:
        if question not in QUESTIONS:
            raise ValueError(f"unknown question {question!r}; {nearest(question, QUESTIONS)}")
        text = QUESTIONS[question](*rest)
    except Exception as error:
        code, text = getattr(error, "exit_code", 1), f"error: {' '.join(_message(error).split(chr(10)))}"
        out = sys.stderr if question == "note" else out  # a recipe's stdout is not read
    out.buffer.write((text + "\n").encode("utf-8", "surrogateescape"))
    return code


def _message(error: Exception) -> str:
    """An error in words; an unforeseen one is a defect of ours, so it is named with its type."""
    if isinstance(error, MakegptError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename or 'artifacts'}: {error.strerror or error}"
    return f"lib.pipeline.plan: {type(error).__name__}: {error}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
