"""What each option beyond the textbook brings to the decoder on Tiny Shakespeare: its parameters, its loss, its seconds a step.

python bench/options.py [STEPS] [SEED]      after: make build-dataset CONFIG=decoder DATASET=tiny_shakespeare
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from lib.run.folder import finished_manifest
from lib.run.metrics import training_seconds

DATASET = "artifacts/datasets/tiny_shakespeare.char.64"
RECIPE = [  # that of the table in docs/gpt_modern.md
    "train.optimizer=adamw",
    "train.learning_rate=2e-3",
    "train.schedule=cosine",
    "train.min_lr_ratio=0.1",
]
GOOD = ["positions=rotary", "norm=rms", "feed_forward=swiglu", "qk_norm=true", "n_kv_heads=2"]
OPTIONS = {
    "decoder": [],
    "sinusoidal positions": ["positions=sinusoidal"],
    "rotary positions": ["positions=rotary"],
    "RMSNorm": ["norm=rms"],
    "SwiGLU": ["feed_forward=swiglu"],
    "query-key norm": ["qk_norm=true"],
    "2 key-value heads of 4": ["n_kv_heads=2"],
    "a window of 16": ["window=16"],
    "tied head": ["tie_weights=true"],
    "the good ones together": GOOD,
}

steps, seed = (sys.argv[1:] + ["1000", "1"][len(sys.argv) - 1 :])[:2]
for name, changes in OPTIONS.items():
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        sets = [word for change in [*RECIPE, *(f"model.{change}" for change in changes)] for word in ("--set", change)]
        command = ["train", DATASET, "-o", folder, "--config", "decoder", "--max-steps", steps, "--seed", seed, *sets]
        subprocess.run([str(word) for word in command], check=True, capture_output=True)
        metadata = finished_manifest(folder).metadata
        seconds = training_seconds(folder) or 0
    told = {"option": name, "parameters": metadata["parameters"], "val_loss": metadata["published_val_loss"]}
    print(json.dumps(told | {"seconds_a_step": round(seconds / int(steps), 4)}), flush=True)
