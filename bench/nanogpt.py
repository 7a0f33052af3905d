"""nanoGPT's own code beside ours: its recipe, with as many steps as fit into our time, scored on our validation split.

python bench/nanogpt.py FOLDER ROW      FOLDER: a checkout of github.com/karpathy/nanoGPT
                                               ROW: of bench/results/learning.json

Its `train.py` runs unchanged, on the ids of our dataset. How long a step takes is measured first, ours and theirs in turn, and
the ratio says how many of theirs take as long as our training; so the speed of the machine, which varies, does not count.
The last weights are scored in touching windows of its context length, as ours are. The result is added to the row.
"""

import pickle
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.learning import RESULTS, ROWS, read, save, stage
from lib.artifact.jsonl import read_lines
from lib.data.dataset import Dataset
from lib.run.metrics import TIMINGS_FILE, Timing, read_metrics

CONFIG = "config/train_shakespeare_char.py"
CPU = {"device": "cpu", "compile": "False", "dtype": "float32"}

#: What a recipe changes in that file. Characters: the command for a CPU in its README. GPT-2's tokens: its model (6 layers,
#: 384 wide, context 256, dropout 0.2), which has the shape of gpt_balanced; batches of 8 windows instead of 64 and a shorter
#: warm-up, as gpt_balanced has them.
CHARACTERS = {
    "block_size": 64, "batch_size": 12, "n_layer": 4, "n_head": 4, "n_embd": 128, "dropout": 0.0,
}  # fmt: skip
TOKENS = {"batch_size": 8, "warmup_iters": 10}
TURNS = 3  # in which the steps are measured


def prepare(folder: Path, dataset: Dataset) -> np.ndarray:
    """Write the ids of `dataset` where nanoGPT looks for those of Shakespeare's characters; return the validation split's."""
    target = folder / "data" / "shakespeare_char"
    ids = {split: dataset.tokens.read(*dataset.split(split)) for split in ("train", "val")}
    for split, values in ids.items():
        values.astype(np.uint16).tofile(target / f"{split}.bin")
    (target / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": dataset.vocab_size}))
    return ids["val"].astype(np.int64)


def our_step(row: str, steps: int, scratch: Path) -> float:
    """Seconds of one of our steps, the median of those that a training of `steps` steps logs."""
    config, dataset = ROWS[row]
    changes = [f"train.{name}" for name in (f"max_steps={steps}", f"eval_interval={steps}", "sample_interval=0")]
    sets = [word for change in changes for word in ("--set", change)]
    folder = f"artifacts/datasets/{dataset}"
    stage("train", folder, "-o", str(scratch / "ours"), "--config", config, "--resume", "never", "--quiet", *sets)
    metrics, timings = read_metrics(scratch / "ours"), read_lines(scratch / "ours" / TIMINGS_FILE, Timing)
    tokens = metrics[-1].tokens / metrics[-1].step
    return statistics.median(tokens / timing.tokens_per_second for timing in timings)


def train(folder: Path, out: Path, recipe: dict[str, Any], steps: int) -> tuple[float, float]:
    """Train for `steps` steps; return the seconds of one, the median, and of all, without start and validation."""
    options = CPU | recipe | {"max_iters": steps, "lr_decay_iters": steps, "eval_interval": steps, "eval_iters": 1}
    options |= {"log_interval": 1, "always_save_checkpoint": "True", "out_dir": out}
    words = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "train.py", CONFIG, *words]
    lines = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.splitlines()
    milliseconds = [float(line.split("time ")[1].split("ms")[0]) for line in lines if line.startswith("iter ")]
    median = statistics.median(milliseconds)
    return median / 1000, (sum(milliseconds[1:-1]) + median) / 1000  # the first and the last include a validation


@torch.inference_mode()
def score(folder: Path, out: Path, ids: np.ndarray) -> dict[str, Any]:
    """The loss of all of `ids` but the first, in touching windows, nats/token."""
    sys.path.insert(0, str(folder))
    from model import GPT, GPTConfig  # type: ignore[import-not-found]  # nanoGPT's

    checkpoint = torch.load(out / "ckpt.pt", map_location="cpu", weights_only=False)
    model = GPT(GPTConfig(**checkpoint["model_args"])).eval()
    model.load_state_dict(checkpoint["model"])
    nats, T = 0.0, model.config.block_size
    for start in range(0, len(ids) - 1, T):
        window = torch.from_numpy(ids[start : start + T + 1])[None]
        _, loss = model(window[:, :-1], window[:, 1:])
        nats += loss.item() * (window.shape[1] - 1)
    return {"loss": nats / (len(ids) - 1), "parameters": sum(weight.numel() for weight in model.parameters())}


def main(folder: Path, row: str) -> None:
    results = read(RESULTS)[row]
    commit = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    dataset = Dataset(Path("artifacts/datasets") / ROWS[row][1])
    characters = dataset.vocab_size < 256
    recipe, ours, theirs = (CHARACTERS, 40, 200) if characters else (TOKENS, 6, 6)  # steps that are measured
    ids = prepare(folder, dataset)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        turns = [(our_step(row, ours, scratch), train(folder, scratch, recipe, theirs)[0]) for _ in range(TURNS)]
        ratio = statistics.median(our / their for our, their in turns)
        steps = round(read_metrics(Path("artifacts/learning") / f"{row}-1")[-1].step * ratio)
        _, seconds = train(folder, scratch, recipe, steps)
        scores = score(folder, scratch, ids)
    results["nanogpt"] = scores | {
        "steps": steps,
        "step_ratio": round(ratio, 4),  # ours to theirs, seconds
        "seconds": round(seconds, 1),
        "commit": commit.strip(),
    }
    save(row, results)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2])
