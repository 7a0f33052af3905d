"""Generation beside transformers' `generate`, alternating: a table, bench/results/generation.json.

python bench/generation.py [ROUNDS [RACE...]]      make bench installs transformers first

Each race has a shape, a prompt, and so many texts side by side. A step reads all matrices of the model once, for all texts:
its speed is told as a share of that of the memory, measured in the same round.
"""

import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.training import Contender, keep
from lib.generate.quantize import WEIGHT_FORMATS

HERE = Path(__file__).parent
OURS = ("ours", "ours, bfloat16", "ours, int8", "ours, without the kernel")


@dataclass(frozen=True)
class Race:
    config: str
    prompt_tokens: int
    new_tokens: int
    texts: int
    contenders: tuple[str, ...]


RACES = {
    "gpt2_small": Race("gpt2_small", 32, 96, 1, ("transformers", *OURS)),
    "gpt2_small, 8 texts": Race("gpt2_small", 32, 96, 8, ("transformers", *OURS[:3])),
    "decoder": Race("decoder", 8, 56, 1, ("transformers", *OURS[:1], "ours, without the kernel", "the plain loop")),
    "decoder, 8 texts": Race("decoder", 8, 56, 8, ("transformers", *OURS[:1])),
}


def contender(name: str, race: Race) -> Contender:
    command = [sys.executable, str(HERE / "writer.py"), name, race.config, str(race.prompt_tokens), str(race.new_tokens)]
    return Contender(name, subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))


def memory_rate() -> float:
    """Bytes a second that all cores together read of numbers that no cache holds, the best of some tries."""
    numbers = torch.ones(1 << 26)
    best = float("inf")
    for _ in range(4):
        began = time.perf_counter()
        numbers.sum().item()
        best = min(best, time.perf_counter() - began)
    return 4 * numbers.numel() / best


def compete(race: Race, rounds: int) -> list[dict[str, Any]]:
    """The rows of a race: medians over the rounds; each ratio is the median of the ratios within a round."""
    field = [contender(name, race) for name in race.contenders]
    rates = []
    for _ in range(rounds):
        rates.append(memory_rate())
        for each in field:
            each.turn(race.texts)
    for each in field:
        each.process.communicate()
    theirs = field[0].column("seconds")
    rows = []
    for each in field:
        seconds = each.column("seconds")
        ratios = [a / b for a, b in zip(theirs, seconds, strict=True)]  # one a round
        bits = WEIGHT_FORMATS.get(each.name.removeprefix("ours, "), 32.0)
        read = each.told[0]["matrices"] * bits / 8 * race.new_tokens
        row = {
            "contender": each.name,
            "tokens_per_second": race.texts * race.new_tokens / statistics.median(seconds),
            "ratios": ratios,
            "against_transformers": statistics.median(ratios),
            "share_of_memory": statistics.median(read / s / rate for s, rate in zip(seconds, rates, strict=True)),
            "tokens_as_transformers": each.told[0]["tokens"] == field[0].told[0]["tokens"],
            "memory": max(each.column("memory")),
        }
        if each.told[0]["first"] and race.texts == 1:
            row["first_token_against_a_forward_pass"] = statistics.median(
                a / b for a, b in zip(each.column("first"), each.column("forward"), strict=True)
            )
        rows.append(row)
    return rows


def show(name: str, rows: list[dict[str, Any]]) -> None:
    head = ("tokens/s", "× transformers", "of the memory", "first token", "same tokens", "MB")
    print(f"\n{name:28}" + "".join(f"{word:>16}" for word in head))
    for row in rows:
        first = row.get("first_token_against_a_forward_pass")
        cells = [
            f"{row['tokens_per_second']:,.1f}",
            f"{row['against_transformers']:.2f}",
            f"{row['share_of_memory']:.0%}",
            "" if first is None else f"{first:.2f}",
            "yes" if row["tokens_as_transformers"] else "no",
            f"{row['memory'] / 1e6:,.0f}",
        ]
        print(f"{row['contender']:28}" + "".join(f"{cell:>16}" for cell in cells), flush=True)


def main(rounds: int, names: list[str]) -> None:
    for name in names or RACES:
        rows = compete(RACES[name], rounds)
        show(name, rows)
        keep("generation.json", name, rows, rounds)
    print("\nfirst token: the time to it, as a multiple of one forward pass over the prompt")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, sys.argv[2:])
