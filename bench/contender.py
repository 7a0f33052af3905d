"""One contender of a benchmark, in a process of its own: it does a training step whenever it is told to.

python bench/contender.py NAME CONFIG [SECTION.KEY=VALUE...]

NAME is ours, transformers, textbook, or ceiling; all have the shape and the batch of CONFIG. Each line on stdin asks for as
many steps as it says; the answer is a line of JSON with the seconds a step and the peak memory in bytes. `ours` adds what
`train --plan` says.
"""

import dataclasses
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable

if sys.argv[1:2] == ["ours"]:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the stages have it; the others run as they come

import numpy as np
import torch
from torch import nn

from lib.config.params import load_params, resolve_config
from lib.config.schema import Config
from lib.data.corpus import write_corpus
from lib.data.dataset import Dataset, build_dataset
from lib.data.text import open_document
from lib.device.distributed import SINGLE_PROCESS, ProcessGroup
from lib.device.hardware import keep_freed_memory, matmul_rate, peak_memory
from lib.model.registry import build_model, count_operations
from lib.tokenizer.gpt2 import GPT2_VOCAB_SIZE
from lib.train.estimate import estimate_training
from lib.train.next_token import NextToken
from lib.train.session import fit_vocabulary
from lib.train.trainer import Trainer

CPU = torch.device("cpu")
VOCABULARY = {"gpt2": GPT2_VOCAB_SIZE, "char": 65, "bytes": 256}

Step = Callable[[], Any]


def ours(config: Config, world: ProcessGroup = SINGLE_PROCESS) -> Step:
    """The trainer that the stage has, on random words."""
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as scratch:
        data = dataset_of(words(config), Path(scratch), config, config.tokenize.tokenizer)
        model_config = fit_vocabulary(config.model, data.tokens.load_tokenizer())
        data.batch(config.train.seed, 0, config.train.batch_size)  # opens the shards, which stay open when their folder is gone
    built = build_model(model_config)
    built.initialize(torch.Generator().manual_seed(1))
    trainer = Trainer(NextToken(built, data, config.train, CPU, world))
    if failure := trainer.compile():
        raise RuntimeError(failure)
    return trainer.train_step


def dataset_of(text: str, folder: Path, config: Config, tokenizer: str) -> Dataset:
    """The dataset of `text`, made in `folder`."""
    source, tokens, dataset = (folder / part for part in ("text.txt", "tokens", "dataset"))
    source.write_text(text)
    write_corpus(tokens, [open_document(source)], tokenizer, config.tokenize, started="", on_bytes=lambda _: None)
    build_dataset(tokens, dataset, context_length=config.model.context_length, stride=None, val_fraction=0.1, started="")
    return Dataset(dataset)


def words(config: Config) -> str:
    """A text of 65 characters where those are the tokens, else of some words."""
    draw = np.random.default_rng(1)
    if config.tokenize.tokenizer == "char":
        return "".join(map(chr, draw.integers(32, 32 + VOCABULARY["char"], 300_000)))
    return " ".join(draw.choice(["to", "be", "or", "not", "that", "is"], 60_000))


def plain_loop(net: nn.Module, logits: Callable[[torch.Tensor], torch.Tensor], config: Config) -> Step:
    """The training step of the textbooks: cross-entropy of all logits, backward, clip, AdamW as it comes."""
    net.train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1)
    draw = torch.Generator().manual_seed(1)
    shape = (config.train.batch_size, config.model.context_length + 1)

    def step() -> None:
        ids = torch.randint(VOCABULARY[config.tokenize.tokenizer], shape, generator=draw)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(logits(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        loss.item()

    return step


def transformers(config: Config) -> Step:
    """GPT2LMHeadModel as it comes, with AdamW."""
    import transformers as hf

    c = config.model
    shape = {"n_positions": c.context_length, "n_embd": c.emb_dim, "n_layer": c.n_layers, "n_head": c.n_heads}
    drop = {"resid_pdrop": c.drop_rate, "embd_pdrop": c.drop_rate, "attn_pdrop": c.drop_rate}
    vocabulary = VOCABULARY[config.tokenize.tokenizer]
    net = hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=vocabulary, tie_word_embeddings=c.tie_weights, **shape, **drop))
    return plain_loop(net, lambda ids: net(ids, use_cache=False).logits, config)


def textbook(config: Config) -> Step:
    """GPTModel of Raschka's book, from its package."""
    from llms_from_scratch.ch04 import GPTModel

    c = dataclasses.asdict(config.model) | {"vocab_size": VOCABULARY[config.tokenize.tokenizer]}
    net = GPTModel(c)
    return plain_loop(net, net, config)


def ceiling(config: Config) -> Step:
    """The step's arithmetic at the rate of one product of 2048² matrices, the best of five."""

    shape = model_config(config)
    tokens = config.train.batch_size * config.model.context_length

    def step() -> float:
        operations = count_operations(build_model(shape, "meta")) * tokens
        return operations / matmul_rate(CPU, (2048, 2048, 2048))

    return step


def model_config(config: Config) -> Any:
    return dataclasses.replace(config.model, vocab_size=VOCABULARY[config.tokenize.tokenizer])


def main(name: str, config_name: str, changes: list[str]) -> None:
    config = resolve_config(load_params(), config_name, changes)
    step = {"ours": ours, "transformers": transformers, "textbook": textbook, "ceiling": ceiling}[name](config)
    step()  # to warm up
    for line in sys.stdin:
        told: dict[str, Any] = {}
        began = time.perf_counter()
        done = [step() for _ in range(int(line))]
        told["seconds"] = done[0] if name == "ceiling" else (time.perf_counter() - began) / len(done)
        told["memory"] = peak_memory(CPU)
        if name == "ours":
            plan = estimate_training(model_config(config), config.train, CPU, 0)
            told |= {"planned_seconds": plan["seconds"] / plan["steps"], "planned_memory": plan["memory_bytes"]}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
