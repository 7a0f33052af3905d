"""What make asks before it begins: which artifacts a config and a text come to, and which of them are to be made again.

    python3 plan.py variables CONFIG DATASET TEXT SET    words for $(eval): NAME:=value, blanks in values as '|'
    python3 plan.py why CONFIG DATASET TEXT SET          what `make all` would run, and why
    python3 plan.py runs CONFIGS DATASET TEXT SET        the run folders of several configs
    python3 plan.py note STAGE CONFIG DATASET TEXT SET   write down what the output of STAGE was made with
    python3 plan.py configs                              the configs and inputs of params.yaml
    python3 plan.py unknown NAME KNOWN...                what a mistyped variable of the command line may have meant

It runs on the standard library alone, so that a fresh clone, where nothing is installed, has named targets. A trouble is one
line on stdout after `error:`, which make shows. This file itself can be read by any Python 3, so that an old one
is refused by name; `lib` is imported only after that.
"""

import sys
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    from lib.pipeline.freshness import Freshness


def answer(words: "list[str]") -> str:
    """The answer to one question, as text; the errors of `lib` are raised."""
    question, rest = (words or [""])[0], words[1:]
    if question == "configs":
        from lib.config.params import config_names, load_params
        from lib.data.downloads import load_inputs

        tree = load_params()
        texts = [name for name, entry in load_inputs(tree).items() if entry.is_text]
        return f"configs:  {' '.join(config_names(tree))}\ndatasets: {' '.join(texts)}"
    if question == "unknown" and rest:
        from lib.errors import nearest

        return f"make knows no variable {rest[0]}; {nearest(rest[0].upper(), rest[1:])}"
    if question == "runs" and len(rest) == 4:
        from lib.pipeline.steps import build_pipeline

        names, dataset, text, changes = rest
        return " ".join(str(build_pipeline(name, dataset, text, changes).run) for name in names.split())
    if question in ("variables", "why") and len(rest) == 4:
        return _with_pipeline(variables if question == "variables" else why, rest)
    if question == "note" and len(rest) == 5:
        return _with_pipeline(lambda fresh: fresh.note(rest[0]), rest[1:])
    raise ValueError(f"it has no answer to {words}")


def _with_pipeline(ask: "Callable[[Freshness], Any]", words: "list[str]") -> str:
    """The answer of `ask` about the pipeline that `words` name; hashes are kept for the next time."""
    from pathlib import Path

    from lib.errors import MakegptError
    from lib.pipeline.freshness import STAMPS, Freshness
    from lib.pipeline.hashes import Hashes
    from lib.pipeline.steps import build_pipeline

    if Path("artifacts").exists() and not Path("artifacts").is_dir():
        raise MakegptError("artifacts is a file, but the pipeline keeps its folders there; move it away")
    hashes = Hashes(STAMPS / "hashes.json")
    config, dataset, text, changes = words
    told = ask(Freshness(build_pipeline(config, dataset, text, changes, hashes), hashes))
    hashes.save()
    return str(told)


def variables(fresh: "Freshness") -> str:
    """What the Makefile is told: folders, inputs, and AGAIN.STAGE where a stage is to be done again."""
    fresh.check_place()
    made = fresh.pipeline
    values = {
        "TEXTS": " ".join(map(str, made.texts)),
        "VOCABULARY": " ".join(map(str, made.vocabulary)),
        "TOKENS": str(made.step("tokenize").target.parent),
        "WINDOWS": str(made.step("build-dataset").target.parent),
        "RUN": str(made.run),
        "FIGURE": str(made.figure),
    }
    reasons = fresh.reasons()
    reasons["figure"] = reasons["plot"] or fresh.figure_reason()
    values.update({f"AGAIN.{stage}": "again" if reason else "" for stage, reason in reasons.items()})
    return " ".join(f"{name}:={value.replace(' ', '|')}" for name, value in values.items())


def why(fresh: "Freshness") -> str:
    """For every stage of `make all`: up to date, or what makes it run; and where the code has changed since it was made."""
    fresh.check_place()
    lines = []
    for stage, reason in fresh.reasons().items():
        if stage == "report":  # made where it is asked for
            continue
        if stage == "plot":
            reason = reason or fresh.figure_reason()
        code = fresh.other_code(fresh.pipeline.step(stage))
        remark = f" (made by other code: {code}; remove it to make it again)" if code else ""
        lines.append(f"{stage:14} " + (f"runs: {reason}" if reason else f"is up to date{remark}"))
    return "\n".join(lines)


def main(words: "list[str]") -> int:
    """Print the answer to one question; every trouble is one line after `error:`, with the exit code 1 or 2."""
    code = 0
    if sys.version_info < (3, 11):  # noqa: UP036 - that is what it is for
        found = ".".join(map(str, sys.version_info[:2]))
        code, text = 1, f"error: Python 3.11 or later is needed, not {found}; make PYTHON=python3.12 names one"
    else:
        try:
            text = answer(words)
        except Exception as error:
            code, text = getattr(error, "exit_code", 1), "error: " + " ".join(_told(error).split("\n"))
    (sys.stderr if code and words[:1] == ["note"] else sys.stdout).buffer.write(
        (text + "\n").encode("utf-8", "surrogateescape")
    )
    return code


def _told(error: Exception) -> str:
    """An error in words; one that nobody foresaw is a defect, or a change of the code that does not run."""
    if hasattr(error, "exit_code"):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename or 'artifacts'}: {error.strerror or error}"
    return f"plan.py: {type(error).__name__}: {error}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
