"""The original transformer's choices, each exchanged for GPT-2's: bench/results/original_transformer.json.

python bench/original_transformer.py      after: make build-dataset CONFIG=reverse_text DATASET=reverse

Of docs/original_transformer.md. Every variant of config `reverse_text` is trained for some steps with three seeds, in memory.
"""

import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lib.artifact.provenance import software_versions
from lib.config.params import load_params, resolve_config
from lib.data.dataset import Dataset
from lib.model.registry import build_model
from lib.train.sequence_to_sequence import SequenceToSequence
from lib.train.trainer import Trainer

RESULTS = Path(__file__).parent / "results" / "original_transformer.json"
DATASET = Path("artifacts/datasets/reverse.char.16")
SEEDS = (1, 2, 3)
STEPS = (50, 100, 150, 200)

#: How each variant differs from the config.
VARIANTS = (
    None,
    "model.norm_position=pre",
    "model.positions=learned",
    "train.label_smoothing=0",
    "train.warmup_steps=0",
)


def validation_losses(dataset: Dataset, variant: str | None, seed: int) -> list[float]:
    """The validation losses after `STEPS`, in nats/token."""
    config = resolve_config(load_params(), "reverse_text", [variant] if variant else [])
    model = build_model(replace(config.model, vocab_size=dataset.vocab_size))
    model.initialize(torch.Generator().manual_seed(seed))
    trainer = Trainer(SequenceToSequence(model, dataset, replace(config.train, seed=seed), torch.device("cpu")))
    losses = []
    for step in range(1, STEPS[-1] + 1):
        trainer.train_step()
        if step in STEPS:
            losses.append(trainer.validate().loss)
    return losses


def original_table(results: dict[str, Any]) -> str:
    """The table of the page: the mean of the seeds and their standard deviation after each of `STEPS`."""
    lines = [f"| | {' | '.join(f'step {step}' for step in results['steps'])} |", "|---|" + "---:|" * len(results["steps"])]
    for name, seeds in results["losses"].items():
        columns = list(zip(*seeds, strict=True))
        cells = " | ".join(f"{statistics.mean(column):.3f} ± {statistics.stdev(column):.3f}" for column in columns)
        lines.append(f"| `{name}` | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    dataset, versions = Dataset(DATASET), software_versions()
    losses = {variant or "reverse_text": [validation_losses(dataset, variant, seed) for seed in SEEDS] for variant in VARIANTS}
    results = {"steps": STEPS, "seeds": SEEDS, "losses": losses, "versions": versions}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(original_table(json.loads(RESULTS.read_text(encoding="utf-8"))))
