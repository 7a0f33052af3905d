"""One contender of the generation benchmark, in its own process: it continues a prompt on request.

python bench/writer.py NAME CONFIG PROMPT_TOKENS NEW_TOKENS

NAME is ours, "ours, bfloat16", "ours, int8", "ours, without the kernel", "the plain loop", or transformers; all have the shape
of CONFIG and the same random weights, and decode greedily. Each line on stdin is a batch size; the answer is a line of JSON:
seconds in total and to the first token, a hash of the last text's tokens, the numbers in all matrices, the peak memory.
"""

import dataclasses
import hashlib
import json
import os
import sys
import time
from typing import Callable

if sys.argv[1:2] != ["transformers"]:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as in the stage; the others run with their defaults
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
if sys.argv[1:2] == ["ours, without the kernel"]:
    os.environ["MAKEGPT_KERNEL"] = "off"

import torch

from lib.config.model import ModelConfig
from lib.config.params import load_params, resolve_config
from lib.config.schema import GenerateConfig
from lib.device.hardware import keep_freed_memory, peak_memory
from lib.generate.batch import TokenSequence
from lib.generate.engine import generate_naive, generate_tokens
from lib.generate.quantize import WEIGHT_FORMATS, InferenceModel
from lib.huggingface.gpt2 import GPT2
from lib.huggingface.layout import tensor_mappings
from lib.model.language_model import LanguageModel
from lib.model.registry import build_model
from lib.tokenizer.gpt2 import GPT2_VOCAB_SIZE

NAME = sys.argv[1]
CPU = torch.device("cpu")
VOCABULARY = {"gpt2": GPT2_VOCAB_SIZE, "char": 65}

#: Number of texts -> their new tokens, and the seconds to the first one.
Writer = Callable[[int], tuple[list[list[int]], float]]


def random_model(config: ModelConfig) -> LanguageModel:
    model = build_model(config)
    model.initialize(torch.Generator().manual_seed(1))
    return model.eval()


def ours(config: ModelConfig, prompt: list[int], sampling: GenerateConfig) -> Writer:
    weights = NAME.removeprefix("ours, ")
    model = InferenceModel(random_model(config), weights if weights in WEIGHT_FORMATS else "float32")

    def generate(count: int) -> tuple[list[list[int]], float]:
        sequences = [TokenSequence(prompt, sampling) for _ in range(count)]
        start, first = time.perf_counter(), 0.0
        for n, _ in enumerate(generate_tokens(model, sequences, CPU, batch_size=count)):
            if n == 0:
                first = time.perf_counter() - start
        return [sequence.tokens for sequence in sequences], first

    return generate


def naive_loop(config: ModelConfig, prompt: list[int], sampling: GenerateConfig) -> Writer:
    model = random_model(config)
    return lambda count: ([list(generate_naive(model, prompt, sampling, CPU)) for _ in range(count)], 0.0)


def transformers(config: ModelConfig, prompt: list[int], sampling: GenerateConfig) -> Writer:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = random_model(config)
    theirs = GPT2LMHeadModel(GPT2Config(**GPT2.write_config(config, None))).eval()
    weights = dict(model.named_parameters())
    zeros = torch.zeros(3 * config.emb_dim)
    for mapping in tensor_mappings(GPT2, GPT2.stored(config)):
        (name,) = mapping.theirs
        name = name if name == GPT2.head else GPT2.prefix + name
        weight = weights.get(mapping.ours, zeros).detach()
        theirs.get_parameter(name).data.copy_(weight.T if mapping.transposed else weight)
    del model
    ids = torch.tensor([prompt])

    def generate(count: int) -> tuple[list[list[int]], float]:
        batch = ids.expand(count, -1).contiguous()
        new = {"max_new_tokens": sampling.max_new_tokens, "min_new_tokens": sampling.max_new_tokens}
        output = theirs.generate(
            batch, attention_mask=torch.ones_like(batch), do_sample=False, use_cache=True, pad_token_id=0, **new
        )
        return output[:, ids.shape[1] :].tolist(), 0.0

    return generate


WRITERS = {"transformers": transformers, "the plain loop": naive_loop}


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
        model = random_model(shape)
        matrices = sum(weight.numel() for name, weight in model.named_parameters() if weight.dim() == 2)
        matrices -= model.get_parameter("pos_emb.weight").numel()
        matrices -= 0 if shape.tie_weights else model.get_parameter("tok_emb.weight").numel()
        writer(1)  # warm-up: allocates memory, compiles the kernel
        for line in sys.stdin:
            start = time.perf_counter()
            texts, first = writer(int(line))
            seconds = time.perf_counter() - start
            start = time.perf_counter()
            model(torch.tensor([prompt]))
            answer = {
                "seconds": seconds,
                "first": first,
                "forward": time.perf_counter() - start,
                "tokens": hashlib.sha256(repr(texts[-1]).encode()).hexdigest()[:12],
                "matrices": matrices,
                "memory": peak_memory(CPU),
            }
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
