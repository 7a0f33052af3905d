"""What the tokens before the last one are worth to a trained model: bench/results/last_token.json, of docs/bigram.md.

python -m bench.last_token      after: make demo
"""

import json
from pathlib import Path
from typing import Any

import torch

from lib.artifact.provenance import software_versions
from lib.run.folder import load_run

RESULTS = Path(__file__).parent / "results" / "last_token.json"
PROMPTS, WORD = (" the", "The cat chased the", "The sun rose over the"), " mouse"


def last_token_table(results: dict[str, Any]) -> str:
    """The table of docs/bigram.md: a row a prompt, its three most probable tokens and the probability of " mouse"."""
    lines = ["| the model reads | most probable next | p(mouse) |", "|---|---|---:|"]
    for prompt, row in results["prompts"].items():
        best = ", ".join(f"`{token}` {p:.2f}" for token, p in row["best"])
        lines.append(f"| {prompt.strip()} | {best} | {row['word']:.1e} |")
    return "\n".join(lines)


def main() -> None:
    trained = load_run(Path("artifacts/runs/smollm2"), torch.device("cpu"))
    tokenizer = trained.tokenizer
    rows = {}
    for prompt in PROMPTS:
        with torch.no_grad():
            p = torch.softmax(trained.model.next_token_logits(torch.tensor([tokenizer.encode(prompt)]))[0], dim=-1)
        best = [(tokenizer.decode([id]).strip(), p[id].item()) for id in p.topk(3).indices.tolist()]
        rows[prompt] = {"best": best, "word": p[tokenizer.encode(WORD)[0]].item()}
    RESULTS.write_text(json.dumps({"prompts": rows, "versions": software_versions()}, indent=1) + "\n", encoding="utf-8")
    print(last_token_table({"prompts": rows}))


if __name__ == "__main__":
    main()
