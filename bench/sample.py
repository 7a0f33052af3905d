"""The sample of README.md: bench/results/sample.json.

python bench/sample.py      after: make evaluate CONFIG=decoder_fast DATASET=tiny_shakespeare
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from lib import Model
from lib.config.params import load_params, resolve_config
from lib.data.dataset import Dataset
from lib.evaluate.memorization import CopyIndex

CONFIG, DATASET = "decoder_fast", "tiny_shakespeare"
PROMPT, TOKENS, TEMPERATURE, SEED = "ROMEO:\n", 240, 0.5, 2
RESULTS = Path(__file__).parent / "results" / "sample.json"


def sample_of(run: Path, dataset: Path) -> dict[str, Any]:
    """A continuation of PROMPT at TEMPERATURE, up to its last whole line, and its longest run of copied tokens."""
    model = Model.from_run(run)
    text = model.generate(PROMPT, max_new_tokens=TOKENS, temperature=TEMPERATURE, seed=SEED).rpartition("\n")[0]
    data = Dataset(dataset)
    copied = CopyIndex(data.tokens, 0, data.train_tokens).longest_run([np.array(model.encode_prompt(text).ids)])
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    sampling = resolve_config(load_params(), CONFIG).generate
    return {
        "config": CONFIG,
        "dataset": DATASET,
        "parameters": manifest["metadata"]["parameters"],
        "loss": json.loads((run / "evaluation.json").read_text(encoding="utf-8"))["loss"],
        "temperature": TEMPERATURE,
        "top_k": sampling.top_k,
        "seed": SEED,
        "prompt": PROMPT,
        "text": text,
        "longest_copied": len(copied),
        "versions": manifest["versions"],
        "sessions": [{key: session["versions"][key] for key in ("commit", "dirty")} for session in manifest["sessions"]],
    }


if __name__ == "__main__":
    sample = sample_of(Path("artifacts/runs") / f"{CONFIG}-{DATASET}", Path("artifacts/datasets") / f"{DATASET}.char.128")
    RESULTS.write_text(json.dumps(sample, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(sample["prompt"] + sample["text"])
