"""Check the book's claims about `make ladder`: the models in order, the bigram at its floor, the time. Exit 1 if one fails.

python bench/ladder.py      after: make ladder
"""

import sys
from itertools import pairwise
from pathlib import Path

from lib.evaluate.comparison import comparison_rows

MODELS = ("bigram", "single_head", "multi_head", "single_block", "decoder")
FOLDERS = [Path("artifacts/runs") / f"{model}-tiny_shakespeare" for model in MODELS]

rows = {row.name: row for row in comparison_rows(FOLDERS)}
runs = [rows[folder.name] for folder in FOLDERS]
gains = [before.loss - after.loss for before, after in pairwise(runs)]
floor = min(rows["bigram (counts)"].loss, rows["add-one bigram (counts)"].loss)
seconds = sum(run.seconds or float("inf") for run in runs)

checks = {
    f"each model is better than the one below, by {', '.join(f'{gain:.3f}' for gain in gains)}": min(gains) > 0,
    f"the bigram is {runs[0].loss - floor:.3f} above the bigram (counts), {floor:.3f}; 0.02 at most": runs[0].loss - floor
    <= 0.02,
    f"the decoder beats the single block by {gains[-1]:.3f}; 0.1 at least": gains[-1] >= 0.1,
    f"the trainings took {seconds:.0f} s; 720 at most": seconds <= 720,
}
for claim, holds in checks.items():
    print("yes" if holds else "NO ", claim)
sys.exit(not all(checks.values()))
