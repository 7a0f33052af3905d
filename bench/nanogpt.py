"""nanoGPT's own code beside ours: its recipe for a CPU, with as many steps as fit into a time, scored on our validation split.

python bench/nanogpt.py FOLDER ROW      FOLDER: a checkout of github.com/karpathy/nanoGPT
                                               ROW: of bench/results/learning.json, whose mean time it gets

Its `train.py` runs unchanged, with the command of its README but for the number of steps. The last weights are scored, in
touching windows of its context length as ours are. The result is added to the row.
"""

import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.learning import RESULTS, read, save

TEXT = Path("data/tiny_shakespeare.txt")
RECIPE = {
    "device": "cpu", "compile": "False", "dtype": "float32", "block_size": 64, "batch_size": 12,
    "n_layer": 4, "n_head": 4, "n_embd": 128, "dropout": 0.0,
}  # fmt: skip
_TRIAL = 200  # steps whose time is measured first


def prepare(folder: Path) -> np.ndarray:
    """Write the text's characters as `folder`'s data/shakespeare_char/prepare.py does; return those of the validation split."""
    text = TEXT.read_text(encoding="utf-8")
    characters = sorted(set(text))
    ids = np.array([characters.index(character) for character in text], np.uint16)
    cut = int(len(ids) * 0.9)
    target = folder / "data" / "shakespeare_char"
    ids[:cut].tofile(target / "train.bin")
    ids[cut:].tofile(target / "val.bin")
    meta = {
        "vocab_size": len(characters),
        "itos": dict(enumerate(characters)),
        "stoi": {character: id for id, character in enumerate(characters)},
    }
    (target / "meta.pkl").write_bytes(pickle.dumps(meta))
    return ids[cut:].astype(np.int64)


def train(folder: Path, out: Path, steps: int) -> float:
    """Train for `steps` steps; return the seconds of its steps, without start and validation."""
    options = RECIPE | {"max_iters": steps, "lr_decay_iters": steps, "eval_interval": steps, "eval_iters": 1, "log_interval": 1}
    options |= {"always_save_checkpoint": "True", "out_dir": out}
    words = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "train.py", "config/train_shakespeare_char.py", *words]
    lines = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.splitlines()
    milliseconds = [float(line.split("time ")[1].split("ms")[0]) for line in lines if line.startswith("iter ")]
    return (sum(milliseconds[1:-1]) + statistics.median(milliseconds)) / 1000  # the first and the last include a validation


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
    seconds = statistics.mean(results["seconds"])
    commit = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    ids = prepare(folder)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        steps = int(seconds / (train(folder, out, _TRIAL) / _TRIAL))
        began = time.perf_counter()
        spent = train(folder, out, steps)
        print(f"{steps} steps in {spent:.0f} s, with start and validation {time.perf_counter() - began:.0f} s")
        results["nanogpt"] = score(folder, out, ids) | {
            "steps": steps,
            "seconds": round(spent, 1),
            "commit": commit.strip(),
        }
    save(row, results)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2])
