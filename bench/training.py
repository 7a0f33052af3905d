"""A training step of ours beside those of transformers and the textbook, alternating: a table, bench/results/training.json.

python bench/training.py [ROUNDS [SHAPE...]]      make bench installs the two packages first
"""

import json
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lib.artifact.provenance import processor_name, software_versions, timestamp
from lib.config.params import load_params, resolve_config

HERE = Path(__file__).parent
DROPOUT = ("model.drop_rate=0.1",)


@dataclass
class Contender:
    """A process that does steps when it is told to, and what it told."""

    name: str
    process: "subprocess.Popen[str]"
    told: list[dict[str, Any]] = field(default_factory=list)

    def turn(self, steps: int) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        self.told.append(json.loads(self.process.stdout.readline()))

    def column(self, key: str) -> list[float]:
        return [line[key] for line in self.told]


def contender(name: str, config: str, changes: tuple[str, ...]) -> Contender:
    kind = name.split(",")[0]
    command = [sys.executable, str(HERE / "contender.py"), kind, config, *changes]
    return Contender(name, subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))


@dataclass(frozen=True)
class Shape:
    """A shape to compete on: a config, what is changed in it for all, and the contenders: name -> what is changed for it."""

    config: str
    changes: tuple[str, ...]
    steps: int  # in a row; short ones need some, or the threads of the one before are still spinning
    contenders: dict[str, tuple[str, ...]]


#: The recipe of all is AdamW without dropout, but where the name says otherwise.
PLAIN = ("train.counts_share=0", "train.invented_share=0", "train.unseen_rows=separate")  # the work that the others do
ADAMW = ("train.optimizer=adamw", "model.drop_rate=0", *PLAIN)
MUON = ("train.optimizer=muon",)
OURS: dict[str, tuple[str, ...]] = {
    "ours": (),
    "ours, Muon": MUON,
    "ours, dropout 0.1": DROPOUT,
    "ours, bfloat16": ("train.precision=bfloat16",),
}
COMPILED = {"ours, compiled": ("train.compile=on",)}
PEERS: dict[str, tuple[str, ...]] = {"transformers": (), "textbook": (), "ceiling": ()}
SHAPES = {
    "gpt_balanced": Shape("gpt_balanced", ADAMW, 1, OURS | {"transformers, dropout 0.1": DROPOUT} | PEERS),
    "gpt_real": Shape("gpt_real", ADAMW, 1, {"ours": (), "ours, dropout 0.1": DROPOUT} | PEERS),  # 24 GB hold no more
    "decoder": Shape("decoder", ADAMW, 12, OURS | COMPILED | PEERS),
    "decoder, batches of 12": Shape("decoder", (*ADAMW, "train.batch_size=12"), 24, OURS | COMPILED | PEERS),
}


def compete(shape: Shape, rounds: int) -> list[dict[str, Any]]:
    """The rows of one shape: medians over the rounds; each ratio is the median of the ratios within a round."""
    made = resolve_config(load_params(), shape.config, list(shape.changes))
    tokens = made.train.batch_size * made.model.context_length
    field = [contender(name, shape.config, (*shape.changes, *changes)) for name, changes in shape.contenders.items()]
    for _ in range(rounds):
        for each in field:
            each.turn(shape.steps)
    for each in field:
        each.process.communicate()
    theirs = next(each for each in field if each.name == "transformers").column("seconds")
    limit = next(each for each in field if each.name == "ceiling").column("seconds")
    rows = []
    for each in field:
        seconds = each.column("seconds")
        ratios = [a / b for a, b in zip(theirs, seconds, strict=True)]  # one a round
        row = {
            "contender": each.name,
            "tokens_per_second": tokens / statistics.median(seconds),
            "ratios": ratios,
            "against_transformers": statistics.median(ratios),
            "mfu": statistics.median(a / b for a, b in zip(limit, seconds, strict=True)),
            "memory": max(each.column("memory")),
        }
        if "planned_seconds" in each.told[0]:
            row["planned_seconds"] = statistics.median(
                a / b for a, b in zip(each.column("planned_seconds"), seconds, strict=True)
            )
            row["planned_memory"] = each.told[0]["planned_memory"] / row["memory"]
        rows.append(row)
    return rows


def show(name: str, rows: list[dict[str, Any]]) -> None:
    head = ("tokens/s", "× transformers", "of ceiling", "MB", "plan: time", "memory")
    print(f"\n{name:28}" + "".join(f"{word:>16}" for word in head))
    for row in rows:
        memory = "" if row["contender"] == "ceiling" else f"{row['memory'] / 1e6:.0f}"
        plan = [f"{row[key]:.2f}" if key in row else "" for key in ("planned_seconds", "planned_memory")]
        cells = [f"{row['tokens_per_second']:,.0f}", f"{row['against_transformers']:.2f}", f"{row['mfu']:.0%}"]
        print(f"{row['contender']:28}" + "".join(f"{cell:>16}" for cell in [*cells, memory, *plan]), flush=True)


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    return {
        "processor": processor_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def keep(file: str, name: str, rows: list[dict[str, Any]], rounds: int) -> None:
    """Put the rows called `name` among the results in `file`, with what they were measured on."""
    target = HERE / "results" / file
    target.parent.mkdir(exist_ok=True)
    results = json.loads(target.read_text()) if target.is_file() else {}
    metadata = {"made": timestamp(), "versions": software_versions(), "machine": machine(), "rounds": rounds}
    target.write_text(json.dumps(results | {name: metadata | {"rows": rows}}, indent=1) + "\n")


def main(rounds: int, names: list[str]) -> None:
    for name in names or SHAPES:
        rows = compete(SHAPES[name], rounds)
        show(name, rows)
        keep("training.json", name, rows, rounds)
    print("\nplan: what `train --plan` says, as a multiple of the truth")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, sys.argv[2:])
