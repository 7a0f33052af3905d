"""Memory and time of a training step on SmolLM2's shape: all weights, the last block, adapters; bench/results/lora.json.

python -m bench.lora [ROUNDS [STEPS [WINDOWS]]]      with the table of docs/lora.md; each measurement is a process, in turn
"""

import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from lib.artifact.provenance import processor_name, software_versions, timestamp
from lib.artifact.record import from_json
from lib.config.params import load_params, resolve_config
from lib.device.hardware import keep_freed_memory, peak_memory
from lib.model.finetuning import Finetuning, select_trained
from lib.model.registry import build_model
from lib.train.optimizer import build_optimizers, set_lr

RESULTS = Path(__file__).parent / "results" / "lora.json"
TOKENS = 49_152  # SmolLM2's

#: What is trained -> the settings of section train.
CONTENDERS = {
    "all weights": ["finetune=all"],
    "adapters of all matrices": ["finetune=lora", "lora_targets=all"],
    "adapters of queries and values": ["finetune=lora", "lora_targets=query,value"],
    "last block and final norm": ["finetune=last_block"],
}


def measure(changes: list[str], steps: int, windows: int) -> dict[str, Any]:
    """Processor seconds of each step after the first, with batches of `windows`, and the highest memory of this process."""
    keep_freed_memory()
    config = resolve_config(load_params(), "smollm2", [f"train.{change}" for change in changes])
    model = build_model(replace(config.model, vocab_size=TOKENS))
    model.initialize(torch.Generator().manual_seed(1))
    select_trained(model, from_json(Finetuning, asdict(config.train)))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizers = build_optimizers(model, config.train)
    set_lr(optimizers, config.train.learning_rate)
    ids = torch.randint(TOKENS, (windows, config.model.context_length + 1))
    seconds = []
    for _ in range(steps + 1):
        began = time.process_time()
        (model.loss(ids[:, :-1], ids[:, 1:]) / ids[:, 1:].numel()).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
        seconds.append(time.process_time() - began)
    return {
        "trained": sum(weight.numel() for weight in weights),
        "seconds": seconds[1:],
        "memory": peak_memory(torch.device("cpu")),
    }


def compare(rounds: int = 3, steps: int = 5, windows: int = 4) -> dict[str, Any]:
    """Every contender once per round, in turn, each in a process."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
    for number in range(rounds):
        for name in CONTENDERS:
            command = [sys.executable, "-m", "bench.lora", "--measure", name, str(steps), str(windows)]
            runs[name].append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
            print(f"{number + 1}/{rounds} {name}: {runs[name][-1]}", file=sys.stderr)
    return {
        "measured": timestamp(),
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "versions": software_versions(),
        "rounds": rounds,
        "steps": steps,
        "windows": windows,
        "rows": [
            {
                "name": name,
                "trained": results[0]["trained"],
                "seconds": statistics.median(second for result in results for second in result["seconds"]),
                "memory": max(result["memory"] for result in results),
            }
            for name, results in runs.items()
        ],
    }


def lora_table(results: dict[str, Any]) -> str:
    """The table of docs/lora.md, and its batch: processor time as a fraction of that of all weights."""
    whole = results["rows"][0]["seconds"]
    lines = [
        f"A batch of {results['windows']} × 256 tokens:",
        "",
        "| trained | parameters | processor time of a step | highest memory |",
        "|---|---|---|---|",
    ]
    for row in results["rows"]:
        lines.append(f"| {row['name']} | {row['trained']:,} | {row['seconds'] / whole:.2f} | {row['memory'] / 1e9:.2f} GB |")
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(CONTENDERS[sys.argv[2]], *map(int, sys.argv[3:]))))
    else:
        measured = compare(*map(int, sys.argv[1:]))
        RESULTS.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
        print(lora_table(measured))
