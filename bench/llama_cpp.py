"""Prompts and decoding next to llama.cpp built for this machine, alternating: a table, bench/results/llama_cpp.json.

python bench/llama_cpp.py [ROUNDS [RACE...]]      make bench-llama-cpp builds llama-cpp-python first

SmolLM2's file is read by both: 4-bit weights of Q4_1, whose bytes the kernel's are. GPT-2 small's shape has random weights, the
same in both. All threads of the machine; decoding is greedy. The speed of decoding is given as a fraction of the
memory bandwidth too, measured in the same round: each token reads all matrices once.
"""

import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from bench.generation import memory_rate
from bench.training import Contender, keep
from lib.artifact.provenance import timestamp
from lib.config.params import load_params, resolve_config
from lib.data.downloads import fetch_input, find_input
from lib.errors import MakegptError
from lib.gguf.config import architecture_of, config_values
from lib.gguf.convert import import_gguf
from lib.gguf.weights import parameter_shapes, to_tensors
from lib.gguf.writer import write_gguf
from lib.model.registry import build_model
from lib.tokenizer.gpt2 import GPT2_VOCAB_SIZE

HERE = Path(__file__).parent
THEIRS = "llama.cpp"


@dataclass(frozen=True)
class Race:
    """`weights`: ours; `type`: that of llama.cpp's file."""

    model: str
    weights: str
    type: str
    prompt_tokens: int = 256
    new_tokens: int = 64


RACES = {
    "smollm2, 4 bits": Race("smollm2", "int4", "q4_1"),
    "gpt2_small, float32": Race("gpt2_small", "float32", "f32"),
    "gpt2_small, 8 bits": Race("gpt2_small", "int8", "q8_0"),
}


def prepare(race: Race, folder: Path) -> dict[str, Path]:
    """The model for each contender, a run or a GGUF file, written below `folder`."""
    run, file = folder / "run", folder / "model.gguf"
    if race.model == "smollm2":
        data = HERE.parent / "data"
        list(fetch_input(find_input(load_params(), race.model), data))
        file = next((data / race.model).glob("*.gguf"))
        import_gguf(file, run, started=timestamp())
        return {"ours": run, THEIRS: file}
    config = resolve_config(load_params(), race.model, [f"model.vocab_size={GPT2_VOCAB_SIZE}"]).model
    model = build_model(config)
    model.initialize(torch.Generator().manual_seed(1))
    torch.save(model.state_dict(), run)
    architecture = architecture_of(config, race.model)
    ff_dim = parameter_shapes(config)["blocks.0.feed_forward.expand.weight"][0]
    values = {"general.architecture": architecture.name, "tokenizer.ggml.model": "no_vocab"}
    values |= {f"{architecture.name}.vocab_size": GPT2_VOCAB_SIZE} | config_values(config, architecture, ff_dim)
    write_gguf(file, values, to_tensors(dict(model.named_parameters()), config, architecture), race.type)
    return {"ours": run, THEIRS: file}


def compete(race: Race, rounds: int) -> list[dict[str, Any]]:
    """The rows of a race: medians over the rounds; each ratio is the median of the ratios within a round."""
    with tempfile.TemporaryDirectory(prefix="makegpt-") as scratch:
        field = [contender(name, race, path) for name, path in prepare(race, Path(scratch)).items()]
        bandwidths = []
        for _ in range(rounds):
            bandwidths.append(memory_rate())
            for racer in field:
                racer.turn(race.new_tokens)
        for racer in field:
            racer.process.communicate()
    theirs = field[1]
    rows = []
    for racer in field:
        row: dict[str, Any] = {"contender": racer.name}
        for part, count in (("prompt", race.prompt_tokens), ("decode", race.new_tokens - 1)):
            seconds = racer.column(part)
            row[f"{part}_tokens_per_second"] = count / statistics.median(seconds)
            row[f"{part}_ratios"] = [a / b for a, b in zip(theirs.column(part), seconds, strict=True)]
        read = racer.told[0]["bytes"] * (race.new_tokens - 1)
        row["bandwidth"] = statistics.median(
            read / seconds / bandwidth for seconds, bandwidth in zip(racer.column("decode"), bandwidths, strict=True)
        )
        row["memory"] = max(racer.column("memory"))
        row["same_tokens"] = matching(racer.told[0]["tokens"], theirs.told[0]["tokens"])
        rows.append(row)
    return rows


def contender(name: str, race: Race, path: Path) -> Contender:
    command = [sys.executable, str(HERE / "llama_cpp_writer.py"), name, str(path), race.model, race.weights]
    return Contender(
        name, subprocess.Popen([*command, str(race.prompt_tokens)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    )


def matching(tokens: list[int], others: list[int]) -> int:
    """How many tokens agree before the first that does not."""
    return next((n for n, (a, b) in enumerate(zip(tokens, others, strict=True)) if a != b), len(tokens))


def show(name: str, rows: list[dict[str, Any]]) -> None:
    head = ("prompt, tokens/s", "× llama.cpp", "decode, tokens/s", "× llama.cpp", "bandwidth", "MB", "same tokens")
    print(f"\n{name:24}" + "".join(f"{word:>18}" for word in head))
    for row in rows:
        cells = [
            f"{row['prompt_tokens_per_second']:,.0f}",
            f"{statistics.median(row['prompt_ratios']):.2f}",
            f"{row['decode_tokens_per_second']:,.1f}",
            f"{statistics.median(row['decode_ratios']):.2f}",
            f"{row['bandwidth']:.0%}",
            f"{row['memory'] / 1e6:,.0f}",
            str(row["same_tokens"]),
        ]
        print(f"{row['contender']:24}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


def main(rounds: int, names: list[str]) -> None:
    if find_spec("llama_cpp") is None:
        print("llama-cpp-python is not installed, so nothing was measured; `make bench-llama-cpp` builds it")
        return
    for name in names or RACES:
        try:
            rows = compete(RACES[name], rounds)
        except MakegptError as error:
            print(f"{name}: {error}")
            continue
        show(name, rows)
        keep("llama_cpp.json", name, rows, rounds)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, sys.argv[2:])
