"""From which block on SmolLM2 says what it says in the end, by the logit lens: bench/results/lens.json, of docs/logit_lens.md.

python -m bench.lens      after: make demo
"""

import json
import math
from pathlib import Path
from typing import Any

from lib import Model
from lib.artifact.provenance import software_versions

RESULTS = Path(__file__).parent / "results" / "lens.json"
PROMPTS = (
    "The capital of France is",
    "The opposite of hot is",
    "Monday, Tuesday, Wednesday,",
    "The sun rose over the",
    "To be, or not to",
)
_SHOWN = (0, 1, 5, 10, 15, 20, 25, 27, 28, 29, 30)


def lens_table(results: dict[str, Any]) -> str:
    """A row for each of some layers as they read the first prompt: the most likely token, and the rank of the model's."""
    row = next(iter(results["prompts"].values()))
    lines = [f"| after block | most likely next | rank of `{row['word']}` | its surprisal |", "|---:|---|---:|---:|"]
    for layer in _SHOWN:
        view = row["layers"][layer]
        lines.append(f"| {layer} | `{view['best']}` {view['p']:.2f} | {view['rank']:,} | {view['surprisal']:.2f} |")
    return "\n".join(lines)


def prompts_table(results: dict[str, Any]) -> str:
    """A row for each prompt: from which block on the model's token is the most likely one, and its probability in the end."""
    lines = ["| prompt | next | first from block | p in the end |", "|---|---|---:|---:|"]
    for prompt, row in results["prompts"].items():
        p = math.exp(-row["layers"][-1]["surprisal"])
        lines.append(f"| {prompt} | `{row['word']}` | {first_from(row['layers'])} | {p:.2f} |")
    return "\n".join(lines)


def first_from(layers: list[dict[str, Any]]) -> int:
    """The block after which the token is the most likely one, and stays so."""
    return max((view["layer"] + 1 for view in layers if view["rank"] > 1), default=0)


def main() -> None:
    model = Model.from_run("artifacts/runs/smollm2", device="cpu")
    prompts = {}
    for prompt in PROMPTS:
        word = model.analyze(prompt).next.alternatives[0]
        prediction = model.analyze([*model.tokenizer.encode(prompt), word.id], lens=True).tokens[-1].prediction
        assert prediction is not None
        assert prediction.lens is not None
        layers = [
            {
                "layer": view.layer,
                "rank": view.rank,
                "surprisal": view.surprisal,
                "best": view.top[0].text,
                "p": view.top[0].probability,
            }
            for view in prediction.lens
        ]
        prompts[prompt] = {"word": word.text, "layers": layers}
    results = {"prompts": prompts, "vocab_size": model.config.vocab_size, "versions": software_versions()}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(lens_table(results), prompts_table(results), sep="\n\n")


if __name__ == "__main__":
    main()
