"""Training and generation on one CUDA device: a table, and bench/results/gpu.json.

python bench/gpu.py [SECONDS]      no row is begun after SECONDS, 140 if not given

Weights and ids are random. Training: `Trainer.train_step` with the deterministic kernels of the stage, unless the row says
otherwise. Decoding: also the bytes of the matrices that were read, as a fraction of the memory bandwidth.
"""

import gc
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable

import numpy as np
import torch

from bench.contender import dataset_of
from bench.training import PLAIN
from lib.artifact.provenance import software_versions, timestamp
from lib.config.params import load_params, resolve_config
from lib.config.schema import Config
from lib.data.dataset import Dataset
from lib.device.hardware import deterministic_kernels, matmul_rate, peak_memory
from lib.device.precision import choose_precision
from lib.generate.batch import TokenSequence
from lib.generate.engine import generate_tokens
from lib.generate.linear import QuantizedLinear
from lib.generate.quantize import InferenceModel
from lib.model.language_model import LanguageModel
from lib.model.layers import Linear
from lib.model.registry import build_model, count_operations
from lib.tokenizer.gpt2 import GPT2_VOCAB_SIZE
from lib.train.next_token import NextToken
from lib.train.trainer import Trainer

TARGET = Path(__file__).parent / "results" / "gpu.json"
CUDA, CPU = torch.device("cuda"), torch.device("cpu")
PRECISIONS = ("float32", "bfloat16", "float16")
WARMUP_STEPS, STEPS, MAX_STEP_SECONDS = 3, 12, 8.0
PROMPT_TOKENS, NEW_TOKENS = 32, 224

Row = dict[str, Any]


@dataclass(frozen=True)
class Training:
    """A row of the training table."""

    config: str
    batch_size: int
    optimizer: str
    precision: str
    compile: str
    deterministic: bool = True
    random_ids: bool = True  # False: words, taught by counts as the config says

    @property
    def name(self) -> str:
        words = [f"{self.config} × {self.batch_size}", self.precision, self.optimizer]
        words += ["compiled" if self.compile == "on" else "eager"]
        marks = {"not deterministic": not self.deterministic, "counts": not self.random_ids}
        return ", ".join([*words, *(mark for mark, holds in marks.items() if holds)])


def trainings() -> list[Training]:
    """All rows, the most important ones first: a row that comes too late is not measured."""
    shapes = [("gpt2_small", 16, ("adamw",)), ("gpt_balanced", 64, ("adamw", "muon"))]
    rows = [
        Training(config, batch_size, optimizer, precision, compile)
        for precision in ("bfloat16", "float32", "float16")
        for config, batch_size, optimizers in shapes
        for optimizer in optimizers
        for compile in ("off", "on")
    ]
    compiled = [row for row in rows if row.precision == "bfloat16" and row.compile == "on"]
    others = [replace(row, deterministic=False) for row in compiled]
    late = [row for row in rows if row.precision != "bfloat16" and row.compile == "on"]
    recipe = [Training("gpt_balanced", size, "muon", "bfloat16", "on", random_ids=False) for size in (8, 64)]
    return [row for row in rows if row not in late] + others + recipe + late


class RandomWindows:
    """What a `Trainer` takes of a dataset: windows of random ids, all of GPT-2's vocabulary."""

    def __init__(self, context_length: int) -> None:
        self.context_length, self.vocab_size = context_length, GPT2_VOCAB_SIZE
        self._ids = np.random.default_rng(1).integers(0, GPT2_VOCAB_SIZE, 1 << 20, dtype=np.uint16)

    def window_starts(self, seed: int, step: int, size: int, rows: range) -> np.ndarray:
        starts = np.random.default_rng((seed, step)).integers(0, len(self._ids) - self.context_length - 1, size)
        return starts[rows.start : rows.stop]

    def read_windows(self, starts: np.ndarray) -> np.ndarray:
        return np.stack([self._ids[start : start + self.context_length + 1] for start in starts])


def random_model(config: str, vocab_size: int = GPT2_VOCAB_SIZE) -> LanguageModel:
    """The model of `config` with random weights on the device."""
    model = build_model(replace(resolve_config(load_params(), config).model, vocab_size=vocab_size), CUDA)
    model.initialize(torch.Generator(CUDA).manual_seed(1))
    return model


def words_dataset(folder: Path, config: Config) -> Dataset:
    """120,000 words, drawn from 8,000 by Zipf's law, as a dataset of `folder`."""
    p = 1 / np.arange(1, 8001)
    words = np.random.default_rng(1).choice(8000, 120_000, p=p / p.sum())
    return dataset_of(" ".join(f"w{word}" for word in words), folder, config, tokenizer="word")


def measure_training(row: Training, peaks: dict[str, float]) -> Row:
    """Tokens/s and MFU, medians over the steps after the warm-up; seconds of compilation; peak memory in bytes."""
    changes = [
        f"train.batch_size={row.batch_size}", f"train.optimizer={row.optimizer}", f"train.precision={row.precision}",
        f"train.compile={row.compile}",
    ]  # fmt: skip
    changes += PLAIN if row.random_ids else ()
    config = resolve_config(load_params(), row.config, changes)
    with tempfile.TemporaryDirectory() as folder:
        dataset: Any = RandomWindows(config.model.context_length) if row.random_ids else words_dataset(Path(folder), config)
        return measure_steps(
            Trainer(NextToken(random_model(row.config, dataset.vocab_size), dataset, config.train, CUDA)), peaks
        )


def measure_steps(trainer: Trainer, peaks: dict[str, float]) -> Row:
    """The numbers of `measure_training`."""
    config = trainer.config
    begin = time.perf_counter()
    if failure := trainer.compile():
        raise RuntimeError(failure)
    compile_seconds = time.perf_counter() - begin
    for _ in range(WARMUP_STEPS):
        loss = trainer.train_step().train_loss
    assert math.isfinite(loss or math.nan), loss
    seconds: list[float] = []
    while len(seconds) < STEPS and sum(seconds) < MAX_STEP_SECONDS:
        torch.cuda.synchronize()
        begin = time.perf_counter()
        trainer.train_step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    tokens_per_second = trainer.objective.tokens_per_step / statistics.median(seconds)
    flops = tokens_per_second * count_operations(trainer.trained)
    return {
        "tokens_per_second": tokens_per_second,
        "mfu": flops / peaks["bfloat16"],
        "mfu_of_precision": flops / peaks[config.precision],
        "milliseconds": 1000 * statistics.median(seconds),
        "slowest_milliseconds": 1000 * max(seconds),
        "steps": len(seconds),
        "compile_seconds": compile_seconds if config.compile == "on" else None,
        "memory": peak_memory(CUDA),
    }


def measure_decoding(weights: str, batch_size: int, bandwidth: float) -> Row:
    """New tokens/s of GPT-2 small's shape, greedy, with a KV cache; the better of two passes."""
    model = InferenceModel(random_model("gpt2_small"), weights)
    matrix_bytes = sum(module.weight.nbytes for module in model.modules() if isinstance(module, Linear))
    matrix_bytes += sum(module.nbytes for module in model.modules() if isinstance(module, QuantizedLinear))
    greedy = resolve_config(load_params(), "gpt2_small", ["generate.temperature=0"]).generate
    prompts = torch.randint(GPT2_VOCAB_SIZE, (batch_size, PROMPT_TOKENS), generator=torch.Generator().manual_seed(2))

    def pass_seconds(new_tokens: int) -> float:
        sampling = replace(greedy, max_new_tokens=new_tokens)
        sequences = [TokenSequence(prompt, sampling) for prompt in prompts.tolist()]
        torch.cuda.synchronize()
        begin = time.perf_counter()
        count = sum(1 for _ in generate_tokens(model, sequences, CUDA, batch_size=batch_size))
        torch.cuda.synchronize()
        assert count == batch_size * new_tokens
        return time.perf_counter() - begin

    pass_seconds(8)
    seconds = min(pass_seconds(NEW_TOKENS) for _ in range(2))
    return {
        "tokens_per_second": batch_size * NEW_TOKENS / seconds,
        "bandwidth": matrix_bytes * NEW_TOKENS / seconds / bandwidth,
        "milliseconds": 1000 * seconds / NEW_TOKENS,
        "matrix_bytes": matrix_bytes,
        "memory": peak_memory(CUDA),
    }


def copy_bandwidth() -> float:
    """Bytes per second of a copy of 1 GiB, read and written, the best of ten."""
    source = torch.zeros(1 << 28, device=CUDA)
    target, best = torch.empty_like(source), math.inf
    for _ in range(10):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        target.copy_(source)
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begin)
    return 2 * source.numel() * source.element_size() / best


def measured(measure: Callable[[], Row], deadline: float) -> Row:
    """What `measure` returns; `error` if it fails, or if it is too late to begin."""
    if time.perf_counter() > deadline:
        return {"error": "not measured: out of time"}
    gc.collect()
    torch.compiler.reset()
    try:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return measure()
    except Exception as error:  # one row must not cost the others
        first = (str(error).strip().splitlines() or [""])[0]
        return {"error": f"{type(error).__name__}: {first}"}


def card() -> dict[str, Any]:
    """What the numbers were measured on."""
    properties = torch.cuda.get_device_properties(0)
    try:
        words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
        driver = subprocess.check_output(words, text=True, timeout=20).strip()
    except (OSError, subprocess.SubprocessError):
        driver = None
    return {
        "card": properties.name,
        "memory": properties.total_memory,
        "capability": f"{properties.major}.{properties.minor}",
        "driver": driver,
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
    }


def cells(row: Row, columns: dict[str, tuple[str, str, float]]) -> str:
    """The numbers of a row as text; its error if it has one."""
    if "error" in row:
        return f"   {row['error'][:90]}"
    numbers = [(row[key], text, factor) for key, text, factor in columns.values()]
    return "".join(f"{'' if number is None else format(number * factor, text):>15}" for number, text, factor in numbers)


#: The columns of the tables: head -> key of a row, format, factor.
SPEED = {"tokens/s": ("tokens_per_second", ",.0f", 1), "ms/step": ("milliseconds", ".2f", 1)}
MEMORY = {"memory, GB": ("memory", ".2f", 1e-9)}
TRAINING = SPEED | {
    "slowest": ("slowest_milliseconds", ".2f", 1), "MFU (bfloat16)": ("mfu", ".1%", 1),
    "MFU (own)": ("mfu_of_precision", ".1%", 1), "compile, s": ("compile_seconds", ".1f", 1),
} | MEMORY  # fmt: skip
DECODING = SPEED | {"of bandwidth": ("bandwidth", ".1%", 1)} | MEMORY


def main(seconds: float) -> None:
    if not torch.cuda.is_available():
        print("no CUDA device: nothing to measure")
        return
    began, machine = time.perf_counter(), card()
    peaks = {name: matmul_rate(CUDA, dtype=choose_precision(name, CUDA), repeats=20) for name in PRECISIONS}
    bandwidth = copy_bandwidth()
    results: dict[str, Any] = {"made": timestamp(), "versions": software_versions(), "machine": machine}
    results |= {"matmul_flops": peaks, "copy_bandwidth": bandwidth, "training": [], "decoding": []}
    print(f"{machine['card']}, driver {machine['driver']}, torch {machine['torch']}")
    rates = ", ".join(f"{name} {rate / 1e12:.0f}" for name, rate in peaks.items())
    print(f"products of 8192² matrices, TFLOP/s: {rates}; copy: {bandwidth / 1e12:.2f} TB/s")

    def keep(table: str, row: Row) -> None:
        results[table].append(row)
        TARGET.parent.mkdir(exist_ok=True)
        TARGET.write_text(json.dumps(results, indent=1) + "\n")

    def show_head(name: str, columns: dict[str, tuple[str, str, float]]) -> None:
        print(f"\n{name:58}" + "".join(f"{word:>15}" for word in columns))

    def train_rows(rows: list[Training]) -> None:
        for training in rows:
            with deterministic_kernels(CUDA if training.deterministic else CPU):
                row = measured(lambda training=training: measure_training(training, peaks), began + seconds)
            keep("training", vars(training) | row)
            print(f"{training.name:58}{cells(row, TRAINING)}", flush=True)

    show_head("training", TRAINING)
    train_rows(trainings()[:6])
    show_head("decoding, gpt2_small", DECODING)
    for weights in ("float32", "bfloat16", "int8"):
        for batch_size in (1, 8):
            row = measured(lambda w=weights, b=batch_size: measure_decoding(w, b, bandwidth), began + seconds)
            keep("decoding", {"weights": weights, "batch_size": batch_size} | row)
            print(f"{f'{weights}, batch size {batch_size}':58}{cells(row, DECODING)}", flush=True)
    show_head("training, continued", TRAINING)
    train_rows(trainings()[6:])
    print("\nMFU (bfloat16): a fraction of the FLOP/s of bfloat16 products above; MFU (own): of those in the row's precision.")
    print("Of bandwidth: the bytes of all matrices, once a step, as a fraction of the bytes of a copy.")
    print(f"{time.perf_counter() - began:.0f} s; {TARGET}")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 140.0)
