"""What a sparse pattern costs in loss, and what it saves in time: bench/results/sparse.json, of docs/sparse_attention.md.

python -m bench.sparse loss     three seeds of each pattern; after: make build-dataset CONFIG=decoder DATASET=tiny_shakespeare
python -m bench.sparse time     a forward and a backward pass of each pattern at long contexts, in turn: seconds of one core
"""

import json
import statistics
import sys
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lib.artifact.provenance import software_versions, timestamp
from lib.config.model import ModelConfig
from lib.config.params import load_params, resolve_config
from lib.data.dataset import Dataset
from lib.model.registry import build_model
from lib.model.sparse_attention import SparsePattern, attention_mask, sparse_pattern
from lib.run.folder import finished_manifest
from lib.train.session import train_run

RESULTS = Path(__file__).parent / "results" / "sparse.json"

#: Patterns that leave each position at most 16 keys of 64; "sliding, 8" has the window of the last two.
PATTERNS: dict[str, dict[str, Any]] = {
    "all tokens": {},
    "sliding, 16": {"window": 16},
    "sliding, 8": {"window": 8},
    "strided, 8": {"window": 8, "attention_pattern": "strided"},
    "fixed, 8": {"window": 8, "attention_pattern": "fixed"},
}
SEEDS, STEPS = (1, 2, 3), 300
SIZES = {"n_layers": 2, "emb_dim": 64}  # 4 heads of 16
LENGTHS, WINDOW, ROUNDS = (1024, 2048, 4096), 64, 3
NAMES = ("sliding", "strided", "fixed")


def losses_of(options: dict[str, Any]) -> dict[str, Any]:
    """The validation losses of a pattern, one per seed, in nats/character, and the mean number of keys of a position."""
    losses = []
    changes = [f"train.max_steps={STEPS}", "train.eval_interval=0", "train.sample_interval=0"]
    changes += [f"model.{name}={value}" for name, value in (SIZES | options).items()]
    for seed in SEEDS:
        run = Path("artifacts/sparse") / f"{'-'.join(map(str, options.values())) or 'all'}-{seed}"
        config = resolve_config(load_params(), "decoder", [*changes, f"train.seed={seed}"])
        dataset, cpu = Dataset(Path("artifacts/datasets/tiny_shakespeare.char.64")), torch.device("cpu")
        training = train_run(
            run, dataset, config.model, config.train, cpu, resume=True, started=timestamp(), stop_asked=lambda: False
        )
        deque(training, maxlen=0)
        losses.append(finished_manifest(run).metadata["published_val_loss"])
        print(run, losses[-1], flush=True)
    context = config.model.context_length
    keys = (~attention_mask(context, sparse_pattern(config.model))).sum().item() / context
    return {"keys": keys, "losses": losses, "loss": statistics.mean(losses), "deviation": statistics.stdev(losses)}


def model(length: int, options: dict[str, Any]) -> ModelConfig:
    return replace(resolve_config(load_params(), "decoder").model, vocab_size=65, context_length=length, **options)


class Masked(SparsePattern):
    """The same pattern as a mask only: all scores are computed."""

    def saves_time(self, queries: int, length: int) -> bool:
        return False


def seconds_of(length: int) -> dict[str, float]:
    """Medians of the seconds of a forward and backward pass over one text by each pattern, in blocks and masked."""
    torch.set_num_threads(1)
    ids = torch.randint(65, (1, length), generator=torch.Generator().manual_seed(1))
    models = {"all tokens": build_model(model(length, {}))}
    for name in NAMES:
        options = {"window": WINDOW, "attention_pattern": name}
        models[name] = build_model(model(length, options))
        models[f"{name}, masked"] = build_model(model(length, options))
        for block in models[f"{name}, masked"].blocks:  # type: ignore[union-attr]
            block.attention.pattern = Masked(name, WINDOW)  # type: ignore[union-attr]
    for each in models.values():
        each.initialize(torch.Generator().manual_seed(1))
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(ROUNDS + 1):
        for name, each in models.items():
            began = time.process_time()
            each(ids).logsumexp(dim=-1).mean().backward()  # type: ignore[no-untyped-call]
            seconds[name].append(time.process_time() - began)
    return {name: round(statistics.median(times[1:]), 4) for name, times in seconds.items()}


def loss_table(results: dict[str, Any]) -> str:
    """The table of losses in docs/sparse_attention.md."""
    lines = ["| pattern | keys of a position, mean | nats/character | standard deviation of 3 seeds |", "|---|---:|---:|---:|"]
    for name, row in results["loss"].items():
        lines.append(f"| {name} | {row['keys']:.1f} | {row['loss']:.3f} | {row['deviation']:.3f} |")
    return "\n".join(lines)


def time_table(results: dict[str, Any]) -> str:
    """The table of times in docs/sparse_attention.md: a row a pattern, in blocks (masked)."""
    lines = [f"| pattern | {' | '.join(f'T = {int(length):,}' for length in results['time'])} |"]
    lines.append("|---|" + "---:|" * len(results["time"]))
    for name in ("all tokens", *NAMES):
        cells = []
        for row in results["time"].values():
            masked = f" ({row[f'{name}, masked']:.2f})" if name in NAMES else ""
            cells.append(f"{row[name]:.2f}{masked}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1] == "loss":
        part: dict[str, Any] = {name: losses_of(options) for name, options in PATTERNS.items()}
    else:
        part = {str(length): seconds_of(length) for length in LENGTHS}
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    results |= {sys.argv[1]: part, f"{sys.argv[1]}_versions": software_versions()}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print((loss_table if sys.argv[1] == "loss" else time_table)(results))
