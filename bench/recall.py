"""What a recurrent network forgets: bench/results/recall.json, of docs/lstm.md.

python -m bench.recall

A text is k random letters and the same k letters again. Every letter of the second half is known: it is the one k places
before. An LSTM and a decoder with about as many parameters learn it for the same time, three seeds each, from ever new texts.
"""

import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lib.artifact.provenance import software_versions
from lib.config.model import ModelConfig
from lib.config.params import load_params, resolve_config
from lib.model.language_model import LanguageModel
from lib.model.loss import cross_entropy
from lib.model.registry import build_model, count_parameters

RESULTS = Path(__file__).parent / "results" / "recall.json"
LETTERS, BATCH = 26, 32
SECONDS = 6  # of one core
DISTANCES, SEEDS = (8, 16, 32), (1, 2, 3)
LEARNING_RATES = {"lstm": 1e-2, "decoder": 1e-3}  # the best of 1e-3, 3e-3, 1e-2 and, of the LSTM, 2e-2 at k = 8


def config_of(name: str, k: int) -> ModelConfig:
    """Two layers of either kind, of about 41,000 parameters."""
    sizes: dict[str, Any] = {"vocab_size": LETTERS, "context_length": 2 * k - 1, "n_layers": 2}
    own: dict[str, Any] = {"emb_dim": 48} if name == "lstm" else {"emb_dim": 40, "positions": "rotary"}
    return replace(resolve_config(load_params(), name).model, **sizes, **own)


def draw(k: int, generator: torch.Generator, texts: int = BATCH) -> Tensor:
    """k random letters and the same again: (B, 2k)."""
    letters = torch.randint(LETTERS, (texts, k), generator=generator)
    return torch.cat([letters, letters], dim=1)


def repeats(model: LanguageModel, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The logits of the second half of each text, (B·k, V), and its letters, (B·k,)."""
    k = ids.shape[1] // 2
    return model(ids[:, :-1])[:, k - 1 :].flatten(0, 1), ids[:, k:].flatten()


def learn(name: str, k: int, seed: int, learning_rate: float) -> dict[str, Any]:
    """The accuracy on repeated letters after SECONDS of training, and the steps taken."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(seed)
    model = build_model(config_of(name, k))
    model.initialize(generator)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=0.0)
    began, steps = time.process_time(), 0
    while (spent := time.process_time() - began) < SECONDS:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (1 - spent / SECONDS)
        optimizer.zero_grad()
        (cross_entropy(*repeats(model, draw(k, generator))) / (BATCH * k)).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        steps += 1
    with torch.no_grad():
        logits, letters = repeats(model, draw(k, torch.Generator().manual_seed(0), 1000))
    return {"accuracy": (logits.argmax(dim=-1) == letters).float().mean().item(), "steps": steps}


def recall_table(results: dict[str, Any]) -> str:
    """The table of docs/lstm.md: a row a model, the accuracy at each distance, the mean of the seeds and their range."""
    distances = list(results["lstm"]["runs"])
    lines = [f"| | parameters | {' | '.join(f'k = {k}' for k in distances)} |", "|---|" + "---:|" * (1 + len(distances))]
    for name in ("lstm", "decoder"):
        row = results[name]
        accuracies = [[run["accuracy"] for run in row["runs"][k]] for k in distances]
        cells = [f"{statistics.mean(seeds):.0%} ({min(seeds):.0%} to {max(seeds):.0%})" for seeds in accuracies]
        lines.append(f"| `{name}` | {row['parameters']:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    results: dict[str, Any] = {"seconds": SECONDS, "versions": software_versions()}
    for name, learning_rate in LEARNING_RATES.items():
        runs = {str(k): [learn(name, k, seed, learning_rate) for seed in SEEDS] for k in DISTANCES}
        parameters = count_parameters(build_model(config_of(name, DISTANCES[0])))
        results[name] = {"parameters": parameters, "learning_rate": learning_rate, "runs": runs}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(recall_table(results))


if __name__ == "__main__":
    main()
