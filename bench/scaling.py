"""Tokens/s and memory with 1, 2 and 3 processes of one thread each, next to what `group_step_seconds` estimates: a table.

python bench/scaling.py [CONFIG] [STEPS]      starts torchrun on itself
"""

import json
import os
import statistics
import subprocess
import sys
import time

import torch
import torch.distributed as dist

from bench.contender import CPU, ours
from lib.config.params import load_params, resolve_config
from lib.device.distributed import init_distributed
from lib.device.hardware import peak_memory
from lib.model.registry import count_parameters
from lib.train.estimate import group_step_seconds


def work(config_name: str, steps: int) -> None:
    """What each process does: steps, then sums of as many numbers as there are gradients. Rank 0 tells."""
    config = resolve_config(load_params(), config_name)
    with init_distributed(CPU) as world:
        step = ours(config, world)
        step()
        seconds = [_timed(step) for _ in range(steps)]
        trainer = step.__self__  # type: ignore[attr-defined]
        parameters = count_parameters(trainer.model)
        update = statistics.median(_timed(lambda: [optimizer.step() for optimizer in trainer.optimizers]) for _ in range(3))
        sums = [0.0]
        if world.size > 1:
            gradients = torch.zeros(parameters)
            sums = [_timed(lambda: dist.all_reduce(gradients)) for _ in range(5)]
        told = {"seconds": statistics.median(seconds), "update": update, "sum": min(sums), "parameters": parameters}
        if world.is_main:
            print(json.dumps(told | {"memory": peak_memory(CPU)}))


def _timed(what: object) -> float:
    began = time.perf_counter()
    what()  # type: ignore[operator]
    return time.perf_counter() - began


def main(config_name: str, steps: int) -> None:
    config = resolve_config(load_params(), config_name)
    tokens = config.train.batch_size * config.model.context_length
    found = {}
    print(f"{config_name:14}{'tokens/s':>12}{'said':>10}{'MB each':>10}{'sum of gradients':>20}")
    for size in (1, 2, 3):
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
        command = [*launch, __file__, "work", config_name, str(steps)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found[size] = row = json.loads(done.stdout)
        update = found[1]["update"]
        batch = found[1]["seconds"] - update
        seconds = group_step_seconds(batch, update, row["parameters"], size, _bandwidth(row, size), os.cpu_count() or 1)
        print(f"{size} process{'es' if size > 1 else '':5}{tokens / row['seconds']:11,.0f}{tokens / seconds:10,.0f}", end="")
        print(f"{row['memory'] / 1e6:10,.0f}{row['sum'] * 1e3:17,.0f} ms", flush=True)


def _bandwidth(row: dict[str, float], size: int) -> float:
    """Bytes a second that a process sends, found from the time of one sum."""
    return 2 * (size - 1) / size * 4 * row["parameters"] / row["sum"] if size > 1 else float("inf")


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        work(sys.argv[2], int(sys.argv[3]))
    else:
        main(sys.argv[1] if len(sys.argv) > 1 else "gpt_balanced", int(sys.argv[2]) if len(sys.argv) > 2 else 4)
