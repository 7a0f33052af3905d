"""A certificate that a GGUF file computes what the model does: in the real llama.cpp, and read back by our own reader.

Near a tie of the two best logits rounding decides, so a greedy token that differs is listed with the gap between them.

T time, V vocabulary
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lib.evaluate.divergence import divergence
from lib.gguf.config import read_config
from lib.gguf.llama_cpp import HOW_TO_INSTALL, llama_cpp_folder, llama_cpp_version, load_in_llama_cpp
from lib.gguf.reader import open_gguf
from lib.gguf.texts import LLAMA_CPP_TEXTS, TEXTS
from lib.gguf.weights import read_tensors
from lib.huggingface.parity import GREEDY_TOKENS, agreement, agreement_summary, greedy_tokens
from lib.model.language_model import LanguageModel
from lib.model.registry import build_model
from lib.tokenizer.base import Tokenizer, UnknownText

#: The largest difference by `model.feed_forward`, in largest logits. A wrong formula differs by all of it, float32 by 1e-6;
#: llama.cpp reads GELU from a table in float16, with which random models differed by up to 5e-4.
_TOLERANCE = {"gelu": 1e-2, "swiglu": 1e-3}


@torch.inference_mode()
def certify(model: LanguageModel, tokenizer: Tokenizer, path: Path, quantize: str) -> dict[str, Any]:
    """The certificate of the file `path`, written from `model` in the type `quantize`.

    Raises MakegptError if an f32 file computes other logits in llama.cpp, or if llama.cpp cannot load a file.
    """
    texts = [(text, ids) for text in (*TEXTS, *LLAMA_CPP_TEXTS) if (ids := _encoded(tokenizer, text))]
    prompt = (texts[0][1] if texts else tokenizer.default_prompt())[: (model.context_length + 1) // 2]
    continuation = greedy_tokens(model, prompt, min(GREEDY_TOKENS, model.context_length + 1 - len(prompt)))
    ids = [*prompt, *continuation][:-1]
    ours = model(torch.tensor([ids]))[0].double().numpy()  # (T, V)
    copy = _read_back(path)
    certificate: dict[str, Any] = {
        "type": quantize,
        "prompt_tokens": prompt,
        "tokens": continuation,
        "greedy_tokens": len(continuation),
        "largest_logit": float(np.abs(ours).max()),
        "read_back": {"largest_difference": float(np.abs(ours - copy(torch.tensor([ids]))[0].double().numpy()).max())},
    }
    if quantize != "f32":
        certificate["read_back"] |= divergence(model, copy, tokenizer)
    folder = llama_cpp_folder()
    if folder is None:
        return certificate | {"llama_cpp": None, "not_checked": f"llama.cpp is not installed; {HOW_TO_INSTALL}"}
    version = llama_cpp_version(folder)
    with load_in_llama_cpp(folder, path, len(ids)) as theirs:
        logits = theirs.logits(ids, len(prompt)).astype(np.float64)
        different = [text for text, text_ids in texts if theirs.tokenize(text) != text_ids]
    tolerance = _TOLERANCE[model.config.feed_forward] if quantize == "f32" else math.inf
    certificate["llama_cpp"] = {
        "version": version,
        "texts": len(texts),
        "texts_with_other_ids": different,
        **agreement(ours, logits, continuation, f"llama.cpp {version}", tolerance),
    }
    return certificate


def certificate_summary(certificate: dict[str, Any]) -> str:
    """A certificate in one line."""
    if (theirs := certificate["llama_cpp"]) is None:
        parts = [f"not checked: {certificate['not_checked']}"]
    else:
        equal = theirs["texts"] - len(theirs["texts_with_other_ids"])
        parts = [
            f"in llama.cpp {theirs['version']}: equal token ids in {equal} of {theirs['texts']} texts",
            agreement_summary(theirs, certificate["greedy_tokens"]),
        ]
    if (more := certificate["read_back"].get("more_bits_per_byte")) is not None:
        parts.append(f"{more:.2g} bits/byte more than float32's {certificate['read_back']['bits_per_byte']:.3g}")
    return "; ".join([f"largest logit {certificate['largest_logit']:.3g}", *parts])


def _encoded(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of `text`; none if it has no exact ones."""
    try:
        return tokenizer.encode(text) if tokenizer.lossless else []
    except UnknownText:
        return []


def _read_back(path: Path) -> LanguageModel:
    """The model in the file `path`, by our own reader."""
    with open_gguf(path) as file:
        config = read_config(file)
        model = build_model(config, "cpu")
        model.load_state_dict(read_tensors(file, config), strict=False)
    return model.eval()
