"""One contender of the generation benchmark, in a process of its own: it continues a prompt whenever it is told to.

python bench/writer.py NAME CONFIG PROMPT_TOKENS NEW_TOKENS

NAME is ours, "ours, bfloat16", "ours, int8", "ours, without the kernel", "the plain loop", or transformers; all have the shape
of CONFIG and the same random weights, and choose greedily. Each line on stdin asks for as many texts side by side as it
says; the answer is a line of JSON: seconds in all and to the first token, of the last text's tokens a hash, the bytes of all
matrices, the peak memory.
"""

import dataclasses
import hashlib
import json
import os
import sys
import time
from typing import Callable

if sys.argv[1:2] != ["transformers"]:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the stage has it; the others run as they come
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
if sys.argv[1:2] == ["ours, without the kernel"]:
    os.environ["MAKEGPT_KERNEL"] = "off"

import torch

from lib.config.params import load_params, resolve_config
from lib.config.schema import GenerateConfig, ModelConfig
from lib.device.hardware import keep_freed_memory, peak_memory
from lib.generate.engine import generate, generate_naive
from lib.generate.quantize import WEIGHT_FORMATS, quantize
from lib.generate.request import Request, encode_prompt
from lib.huggingface.gpt2 import tensor_mappings, to_hf_config
from lib.model.language_model import LanguageModel
from lib.model.registry import build_model
from lib.tokenizer.base import Tokenizer
from lib.tokenizer.gpt2 import GPT2_VOCAB_SIZE

NAME = sys.argv[1]
CPU = torch.device("cpu")
VOCABULARY = {"gpt2": GPT2_VOCAB_SIZE, "char": 65}

#: Number of texts -> their new tokens, and the seconds to the first one.
Writer = Callable[[int], tuple[list[list[int]], float]]


class Numbers(Tokenizer):
    """A token is a character: the benchmark has no text."""

    kind = "numbers"

    def __init__(self, vocab_size: int) -> None:
        self._size = vocab_size

    vocab_size = property(lambda self: self._size)  # type: ignore[assignment]

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def token_bytes(self, id: int) -> bytes:
        return chr(id).encode("utf-8", "replace")

    def to_saved(self) -> dict[str, object]:
        raise NotImplementedError

    from_saved = learn = to_saved  # type: ignore[assignment]


def built(config: ModelConfig) -> LanguageModel:
    made = build_model(config)
    made.initialize(torch.Generator().manual_seed(1))
    return made.eval()


def ours(config: ModelConfig, prompt: list[int], asked: GenerateConfig) -> Writer:
    made = built(config)
    quantize(made, NAME.removeprefix("ours, ") if NAME.removeprefix("ours, ") in WEIGHT_FORMATS else "float32")
    numbers = Numbers(made.vocab_size)

    def continued(count: int) -> tuple[list[list[int]], float]:
        texts = [Request(numbers, encode_prompt(numbers, "".join(map(chr, prompt))), asked, scored=False) for _ in range(count)]
        began, first = time.perf_counter(), 0.0
        for n, _ in enumerate(generate(made, texts, CPU, batch_size=count)):
            if n == 0:
                first = time.perf_counter() - began
        return [text.tokens for text in texts], first

    return continued


def plain_loop(config: ModelConfig, prompt: list[int], asked: GenerateConfig) -> Writer:
    made = built(config)
    return lambda count: ([list(generate_naive(made, prompt, asked, CPU)) for _ in range(count)], 0.0)


def transformers(config: ModelConfig, prompt: list[int], asked: GenerateConfig) -> Writer:
    from transformers import GPT2Config, GPT2LMHeadModel

    made = built(config)
    theirs = GPT2LMHeadModel(GPT2Config(**to_hf_config(config, None))).eval()
    weights = dict(made.named_parameters())
    zeros = torch.zeros(3 * config.emb_dim)
    for place in tensor_mappings(config):
        name = place.theirs if place.theirs.startswith("lm_head") else f"transformer.{place.theirs}"
        weight = weights.get(place.ours, zeros).detach()
        theirs.get_parameter(name).data.copy_(weight.T if place.transposed else weight)
    del made
    ids = torch.tensor([prompt])

    def continued(count: int) -> tuple[list[list[int]], float]:
        batch = ids.expand(count, -1).contiguous()
        new = {"max_new_tokens": asked.max_new_tokens, "min_new_tokens": asked.max_new_tokens}
        found = theirs.generate(
            batch, attention_mask=torch.ones_like(batch), do_sample=False, use_cache=True, pad_token_id=0, **new
        )
        return found[:, ids.shape[1] :].tolist(), 0.0

    return continued


WRITERS = {"transformers": transformers, "the plain loop": plain_loop}


def main(config_name: str, prompt_tokens: int, new_tokens: int) -> None:
    changes = ["generate.temperature=0", f"generate.max_new_tokens={new_tokens}"]
    config = resolve_config(load_params(), config_name, changes)
    shape = dataclasses.replace(config.model, vocab_size=VOCABULARY[config.tokenize.tokenizer])
    keep_freed_memory()
    assert shape.vocab_size is not None
    draw = torch.Generator().manual_seed(2)
    prompt = torch.randint(32, min(shape.vocab_size, 0xD800), (prompt_tokens,), generator=draw).tolist()
    with torch.inference_mode():
        writer = WRITERS.get(NAME, ours)(shape, prompt, config.generate)
        forward = built(shape)
        matrices = sum(weight.numel() for name, weight in forward.named_parameters() if weight.dim() == 2)
        matrices -= forward.get_parameter("pos_emb.weight").numel()
        matrices -= 0 if shape.tie_weights else forward.get_parameter("tok_emb.weight").numel()
        writer(1)  # the first one finds the memory and compiles what is to be compiled
        for line in sys.stdin:
            began = time.perf_counter()
            texts, first = writer(int(line))
            seconds = time.perf_counter() - began
            began = time.perf_counter()
            forward(torch.tensor([prompt]))
            answer = {
                "seconds": seconds,
                "first": first,
                "forward": time.perf_counter() - began,
                "tokens": hashlib.sha256(repr(texts[-1]).encode()).hexdigest()[:12],
                "matrices": matrices,
                "memory": peak_memory(CPU),
            }
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
