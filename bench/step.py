"""Seconds and memory of one training step of a config, on random words, beside what `train --plan` estimates: JSON.

python bench/step.py CONFIG [STEPS]
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the stages have it

import numpy as np
import torch

from lib import corpus, cost, device, model, params, training
from lib.dataset import Dataset, build
from lib.text import open_document
from lib.trainer import Trainer


def main(name: str, steps: int) -> None:
    device.keep_freed_memory()
    config = params.resolve(params.load(), name)
    with tempfile.TemporaryDirectory() as scratch:
        text, tokens, folder = (Path(scratch) / part for part in ("text.txt", "tokens", "dataset"))
        text.write_text(" ".join(np.random.default_rng(1).choice(["to", "be", "or", "not", "that", "is"], 60_000)))
        kind = config.tokenize.tokenizer
        corpus.write(tokens, [open_document(text)], kind, config.tokenize, started="", on_bytes=lambda _: None)
        build(tokens, folder, context_length=config.model.context_length, stride=None, val_fraction=0.1, started="")
        data = Dataset(folder)
        model_config = training.fit_vocabulary(config.model, data.tokens.load_tokenizer())
        plan = cost.plan(model_config, config.train, torch.device("cpu"), 0)
        built = model.build(model_config)
        built.initialise(torch.Generator().manual_seed(1))
        trainer = Trainer(built, data, config.train, torch.device("cpu"))
        trainer.train_step()
        began = time.perf_counter()
        for _ in range(steps):
            trainer.train_step()
        seconds = (time.perf_counter() - began) / steps
    estimated = {"estimated_seconds": plan["seconds"] / plan["steps"], "estimated_memory": plan["memory_bytes"]}
    print(json.dumps({"config": name, "seconds": seconds, "memory": device.peak_memory(), **estimated}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5)
