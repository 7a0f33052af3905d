"""One contender of bench/llama.py, in its own process: it reads a prompt and continues it on request.

python bench/llama_writer.py NAME MODEL SHAPE WEIGHTS PROMPT_TOKENS

NAME is ours or llama.cpp. MODEL is a run folder or the saved weights of SHAPE, in WEIGHTS for ours, or a GGUF file. Each line
on stdin is a number of new tokens; the answer is a line of JSON: seconds of the prompt and of the tokens after the first, the
tokens, the bytes of all matrices, the peak memory.
"""

import json
import os
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Callable

if sys.argv[1:2] == ["ours"]:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as in the stage; llama.cpp runs with its defaults
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch

from lib.config.params import load_params, resolve_config
from lib.device.hardware import keep_freed_memory, peak_memory
from lib.generate.batch import TokenSequence
from lib.generate.engine import generate_tokens
from lib.generate.linear import QuantizedLinear
from lib.generate.quantize import InferenceModel
from lib.model.language_model import LanguageModel
from lib.model.registry import build_model
from lib.run.folder import load_run
from lib.tokenizer.gpt2 import GPT2_VOCAB_SIZE

CPU = torch.device("cpu")

#: Number of new tokens -> their ids, and the seconds at which each was there, counted from the start.
Writer = Callable[[int], tuple[list[int], list[float]]]


def load(path: Path, shape: str) -> LanguageModel:
    if path.is_dir():
        return load_run(path, CPU).model
    model = build_model(resolve_config(load_params(), shape, [f"model.vocab_size={GPT2_VOCAB_SIZE}"]).model)
    model.load_state_dict(torch.load(path))
    return model.eval()


def ours(path: Path, shape: str, weights: str, prompt: list[int]) -> tuple[Writer, int]:
    keep_freed_memory()
    model = InferenceModel(load(path, shape), weights)

    def generate(count: int) -> tuple[list[int], list[float]]:
        changes = ["generate.temperature=0", f"generate.max_new_tokens={count}"]
        sequence = TokenSequence(prompt, resolve_config(load_params(), "decoder", changes).generate)
        start = time.perf_counter()
        times = [time.perf_counter() - start for _ in generate_tokens(model, [sequence], CPU)]
        return sequence.tokens, times

    return generate, sum(module.nbytes for module in model.modules() if isinstance(module, QuantizedLinear))


def llama_cpp(path: Path, prompt: list[int]) -> tuple[Writer, int]:
    import llama_cpp as library
    import numpy as np

    quiet = library.llama_log_callback(lambda *_: None)
    library.llama_log_set(quiet, None)
    model = library.llama_model_load_from_file(str(path).encode(), library.llama_model_default_params())
    parameters = library.llama_context_default_params()
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = 512
    parameters.n_threads = parameters.n_threads_batch = torch.get_num_threads()
    context = library.llama_init_from_model(model, parameters)
    V = library.llama_vocab_n_tokens(library.llama_model_get_vocab(model))

    def decode(ids: list[int]) -> int:
        """The most likely token after `ids`, which continue the earlier ones."""
        array = (library.llama_token * len(ids))(*ids)
        assert library.llama_decode(context, library.llama_batch_get_one(array, len(ids))) == 0
        return int(np.ctypeslib.as_array(library.llama_get_logits_ith(context, -1), (V,)).argmax())

    def generate(count: int) -> tuple[list[int], list[float]]:
        library.llama_log_set(quiet, None)  # which also keeps the callback alive
        library.llama_memory_clear(library.llama_get_memory(context), True)
        start = time.perf_counter()
        tokens, times = [decode(prompt)], [time.perf_counter() - start]
        while len(tokens) < count:
            tokens.append(decode(tokens[-1:]))
            times.append(time.perf_counter() - start)
        return tokens, times

    return generate, library.llama_model_size(model)


def main(name: str, path: Path, shape: str, weights: str, prompt_tokens: int) -> None:
    draw = torch.Generator().manual_seed(2)
    prompt = torch.randint(100, 40_000, (prompt_tokens,), generator=draw).tolist()
    with torch.inference_mode():
        writer, size = ours(path, shape, weights, prompt) if name == "ours" else llama_cpp(path, prompt)
        writer(2)  # warm-up: allocates memory, compiles the kernel
        for line in sys.stdin:
            tokens, times = writer(int(line))
            answer = {
                "prompt": times[0],
                "decode": times[-1] - times[0],
                "slowest": max(b - a for a, b in pairwise(times)),
                "tokens": tokens,
                "bytes": size,
                "memory": peak_memory(CPU),
            }
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))
