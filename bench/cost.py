"""How near `train --plan` comes: estimated against measured seconds a step and bytes of memory.

    python bench/cost.py [STEPS]

Each shape is trained for STEPS steps (default 5) after one to warm up, in a process of its own, on random tokens.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHAPES = ["gpt_balanced", "gpt_deep", "gpt_demo", "decoder"]


def measure(name: str, steps: int) -> dict[str, float | str]:
    """Train config `name` on random tokens in this process; return what was estimated and what was measured."""
    import numpy as np
    import torch

    from lib import corpus, cost, device, model, params, training
    from lib.corpus import saved_tokenizer
    from lib.dataset import Dataset, build
    from lib.text import open_document
    from lib.trainer import Trainer

    device.keep_freed_memory()
    config = params.resolve(params.load(), name)
    kind = "gpt2" if config.tokenize.tokenizer == "gpt2" else "bytes"
    with tempfile.TemporaryDirectory() as scratch:
        text = Path(scratch) / "text.txt"
        text.write_text(" ".join(np.random.default_rng(1).choice(["to", "be", "or", "not", "that", "is"], 60_000)))
        document = open_document(text)
        tokens, folder = Path(scratch) / "tokens", Path(scratch) / "dataset"
        corpus.write(tokens, [document], kind, config.tokenize, started="", on_bytes=lambda _: None)
        build(tokens, folder, context_length=config.model.context_length, stride=None, val_fraction=0.1, started="")
        data = Dataset(folder)
        model_config = training.fit_vocabulary(config.model, saved_tokenizer(kind, ""))
        plan = cost.plan(model_config, config.train, torch.device("cpu"), 0)
        built = model.build(model_config)
        built.initialise(torch.Generator().manual_seed(1))
        trainer = Trainer(built, data, config.train, torch.device("cpu"))
        trainer.train_step()
        began = time.perf_counter()
        for _ in range(steps):
            trainer.train_step()
        seconds = (time.perf_counter() - began) / steps
    return {
        "config": name,
        "estimated_seconds": plan["seconds"] / plan["steps"],
        "measured_seconds": seconds,
        "estimated_memory": plan["memory_bytes"],
        "measured_memory": device.peak_memory(),
    }


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print(f"{'config':14}{'s/step est.':>12}{'measured':>10}{'ratio':>7}{'MB est.':>10}{'measured':>10}{'ratio':>7}")
    for name in SHAPES:
        done = subprocess.run([sys.executable, __file__, "--one", name, str(steps)], capture_output=True, text=True, check=True)
        row = json.loads(done.stdout)
        t, m = (row["estimated_seconds"], row["measured_seconds"]), (row["estimated_memory"], row["measured_memory"])
        print(f"{name:14}{t[0]:12.4f}{t[1]:10.4f}{t[0] / t[1]:7.2f}{m[0] / 1e6:10.0f}{m[1] / 1e6:10.0f}{m[0] / m[1]:7.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(sys.argv[2], int(sys.argv[3]))))
    else:
        main()
