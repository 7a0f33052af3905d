"""Learning for the time: `decoder_fast` beside a plain loop of the published small recipe, on Tiny Shakespeare's characters.

python bench/quality.py      after: make build-dataset DATASET=tiny_shakespeare CONFIG=published_char, and CONFIG=decoder_fast

The recipe: 4 layers, 4 heads, 128 wide, context 64, batches of 12, 2,000 steps of AdamW, rate 1e-3 with warm-up and cosine
(nanoGPT's for a CPU, which reports a validation loss of 1.88). Both count the seconds of their training steps; validations, on
the whole split, are not counted. The curves go to bench/results/quality.json.
"""

import json
import os
import time
from pathlib import Path
from typing import Callable

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the stages have it

import torch

from bench.training import machine
from lib.artifact.provenance import software_versions, timestamp
from lib.config.params import load_params, resolve_config
from lib.config.schema import Config
from lib.data.dataset import Dataset
from lib.device.hardware import keep_freed_memory
from lib.evaluate.windows import total_nats
from lib.model.language_model import LanguageModel
from lib.model.registry import build_model
from lib.train.naive import train_naive
from lib.train.next_token import NextToken
from lib.train.session import fit_vocabulary
from lib.train.trainer import Trainer

CPU = torch.device("cpu")
GOAL = 1.88
EVERY = 50  # steps between validations
RECIPE = ["model.tie_weights=false", "train.beta2=0.95"]

Curve = list[tuple[int, float, float]]  # step, seconds, validation loss


def watched(step: Callable[[], object], net: LanguageModel, data: Dataset, steps: int) -> Curve:
    """Do `steps` steps, validating in between."""
    seconds, curve = 0.0, []
    for number in range(1, steps + 1):
        began = time.perf_counter()
        step()
        seconds += time.perf_counter() - began
        if number % EVERY == 0:
            nats = total_nats(net, data.tokens, *data.split("val"), CPU)
            curve.append((number, seconds, nats / data.predicted("val")))
    return curve


def built(config: Config, data: Dataset) -> LanguageModel:
    net = build_model(fit_vocabulary(config.model, data.tokens.load_tokenizer()))
    net.initialize(torch.Generator().manual_seed(config.train.seed))
    return net


def dataset(config: Config) -> Dataset:
    return Dataset(Path(f"artifacts/datasets/tiny_shakespeare.char.{config.model.context_length}"))


def plain() -> Curve:
    """`train_naive` around the same model: fused attention, all logits, AdamW as it comes."""
    config = resolve_config(load_params(), "published_char", RECIPE)
    data = dataset(config)
    model = built(config, data)
    steps = train_naive(model, data, config.train)
    return watched(lambda: next(steps), model, data, config.train.max_steps)


def fast() -> Curve:
    keep_freed_memory()
    config = resolve_config(load_params(), "decoder_fast")
    data = dataset(config)
    trainer = Trainer(NextToken(built(config, data), data, config.train, CPU))
    return watched(trainer.train_step, trainer.model, data, config.train.max_steps)


def reached(curve: Curve) -> float:
    return next((seconds for _, seconds, loss in curve if loss <= GOAL), float("inf"))


def main() -> None:
    curves = {"plain": plain(), "decoder_fast": fast()}
    for name, curve in curves.items():
        step, seconds, loss = curve[-1]
        print(f"{name:14}{step:6} steps in {seconds:5.0f} s: {loss:.4f}; {GOAL} reached after {reached(curve):.0f} s")
    end = curves["plain"][-1][1]
    same = min((loss, seconds) for _, seconds, loss in curves["decoder_fast"] if seconds <= end)
    print(f"decoder_fast within the plain loop's {end:.0f} s: {same[0]:.4f}, after {same[1]:.0f} s")
    metadata = {"made": timestamp(), "versions": software_versions(), "machine": machine(), "goal": GOAL}
    (Path(__file__).parent / "results" / "quality.json").write_text(json.dumps(metadata | {"curves": curves}, indent=1) + "\n")


if __name__ == "__main__":
    main()
