"""A run that answers in small and in capital letters, and datasets from which it can learn to prefer the small ones."""

import json
from pathlib import Path

from tests.chat.test_template import TOKENIZER
from tests.conftest import Here

T = 24
SETTINGS = ("--config", "debug", "--set", f"model.context_length={T}", "--set", "train.batch_size=6", "--quiet")


def base_run(folder: Path, here: Here) -> Path:
    """folder/base, the run; folder/both, what it was trained on; folder/pairs and folder/right, what is preferred."""
    if (folder / "base").exists():
        return folder / "base"
    letters = ["abcdefgh"[number % 8] * (1 + number % 3) for number in range(40)]
    examples = {
        "pairs": [{"prompt": f"{text[0]}:", "chosen": text, "rejected": text.upper() + text[0]} for text in letters],
        "both": [{"prompt": f"{t[0]}:", "completion": t.upper() if n % 2 else t} for n, t in enumerate(letters)],
        "right": [{"prompt": f"{text[0]}:", "completion": text[0]} for text in letters],
    }
    TOKENIZER.save(folder / "tokenizer.json")
    for name, lines in examples.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
        tokens = folder / f"{name}-tokens"
        here("tokenize", "--chat", folder / f"{name}.jsonl", "--tokenizer", folder, "-o", tokens)
        here("build-dataset", tokens, "-o", folder / name, "--context-length", T, "--val-fraction", 0.2)
    here("train", folder / "both", "-o", folder / "base", *SETTINGS, "--max-steps", 40)
    return folder / "base"
