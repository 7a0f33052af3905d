"""A certificate that exported files compute what the model does: its logits compared with independent implementations.

One is `lib.huggingface.reference`, the design's formulas in float64; the other is transformers, if it is installed.

T time, V vocabulary
"""

from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lib.artifact.io import read_json
from lib.errors import MakegptError, one_line
from lib.huggingface.files import HF_CONFIG_FILE
from lib.huggingface.reference import Numbers, exported_logits
from lib.model.language_model import LanguageModel

PARITY_FILE = "certificate.json"
GREEDY_TOKENS = 64
_TOLERANCE = 1e-3  # of the largest logit; float32 differed from float64 by 1e-6 of it, a wrong formula by all of it


@torch.inference_mode()
def greedy_tokens(model: LanguageModel, ids: list[int], count: int) -> list[int]:
    """The next `count` tokens, each the most likely one."""
    ids = list(ids)
    for _ in range(count):
        ids.append(int(model.next_token_logits(torch.tensor([ids])).argmax()))
    return ids[-count:]


@torch.inference_mode()
def compare_logits(model: LanguageModel, folder: Path, prompt: list[int]) -> dict[str, Any]:
    """The certificate of the files in `folder`, exported from `model`, on its greedy continuation of `prompt`.

    Raises MakegptError if they differ by more than rounding. Prompt and continuation stay within the context.
    """
    prompt = prompt[: (model.context_length + 1) // 2]
    continuation = greedy_tokens(model, prompt, min(GREEDY_TOKENS, model.context_length + 1 - len(prompt)))
    ids = [*prompt, *continuation][:-1]
    ours = model(torch.tensor([ids]))[0].double().numpy()  # (T, V)
    certificate = {
        "compared_with": "the design's formulas in float64, read from model.safetensors and config.json",
        "prompt_tokens": prompt,
        "tokens": continuation,
        "largest_logit": float(np.abs(ours).max()),
        "greedy_tokens": len(continuation),
    }
    certificate |= agreement(ours, exported_logits(folder, ids), continuation, "its formulas")
    if (theirs := transformers_logits(folder, ids)) is not None:
        name = f"transformers {version('transformers')}"
        certificate["transformers"] = {"version": version("transformers")} | agreement(ours, theirs, continuation, name)
    return certificate


def agreement(
    ours: Numbers, theirs: Numbers, continuation: list[int], reader: str, tolerance: float = _TOLERANCE
) -> dict[str, Any]:
    """How well the logits (T, V) of the model and of the files in the `reader` agree.

    MakegptError if they differ by more than rounding: `tolerance`, in largest logits.
    """
    difference, size = float(np.abs(ours - theirs).max()), float(np.abs(ours).max())
    if not difference <= tolerance * size:  # nan is not
        raise MakegptError(
            f"the exported files do not compute what the model does: in {reader}, logits up to {size:.4g} differ by "
            f"{difference:.2g}; nothing was written"
        )
    agreeing, gap = logit_agreement(continuation, theirs[-len(continuation) :])
    return {"largest_difference": difference, "greedy_tokens_that_agree": agreeing, "gap_where_they_part": gap}


def transformers_logits(folder: Path, ids: list[int]) -> Numbers | None:
    """The logits (T, V) of the model that transformers loads from `folder`; None if it is not installed or too old for it.

    MakegptError if it cannot load the files.
    """
    try:
        transformers: Any = import_module("transformers")
    except ImportError:
        return None
    if read_json(folder / HF_CONFIG_FILE)["model_type"] not in transformers.CONFIG_MAPPING:
        return None
    logging = transformers.utils.logging
    verbosity, progress = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    except Exception as error:  # whatever it raises, the files are not what it reads
        raise MakegptError(
            f"transformers cannot load the exported files: {one_line(str(error))}; nothing was written"
        ) from None
    finally:
        logging.set_verbosity(verbosity)
        if progress:
            logging.enable_progress_bar()
    with torch.inference_mode():
        logits: Numbers = model(torch.tensor([ids])).logits[0].double().numpy()
    return logits


def logit_agreement(tokens: list[int], logits: Numbers) -> tuple[int, float | None]:
    """How many of the first `tokens` are the best of `logits` (n, V), row by row; if one is not, also the gap between the
    two best logits of its row.
    """
    for n, (id, row) in enumerate(zip(tokens, logits, strict=True)):
        if row.argmax() != id:
            second, best = np.sort(row)[-2:]
            return n, float(best - second)
    return len(tokens), None


def parity_summary(parity: dict[str, Any]) -> str:
    """A certificate in one line."""
    summary = f"largest logit {parity['largest_logit']:.3g}; {agreement_summary(parity, parity['greedy_tokens'])}"
    if theirs := parity.get("transformers"):
        return f"{summary}; in transformers {theirs['version']}: {agreement_summary(theirs, parity['greedy_tokens'])}"
    return f"{summary}; transformers did not read it: it is not installed, or too old"


def agreement_summary(agreement: dict[str, Any], tokens: int) -> str:
    """What `agreement` found on a continuation of so many `tokens`."""
    gap = agreement["gap_where_they_part"]
    difference = "" if gap is None else f" (then two logits differ by {gap:.2g})"
    return (
        f"largest difference of logits {agreement['largest_difference']:.2g}, greedy tokens that agree: "
        f"{agreement['greedy_tokens_that_agree']} of {tokens}{difference}"
    )
