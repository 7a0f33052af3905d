"""Which of two sentences is grammatical, by models of this project and by counts: bench/results/blimp.json.

python bench/blimp.py RUN [LIMIT]      after: fetch blimp; the rows of other runs stay. LIMIT: items of each of the 67 files
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from lib.artifact.provenance import software_versions, timestamp

RESULTS = Path(__file__).parent / "results" / "blimp.json"


def measure(run: Path, limit: int) -> dict[str, Any]:
    """The scores of a run and of the counts of its training text on the first `limit` pairs of each file."""
    words = [str(run), "--tasks", "data/blimp", "--limit", str(limit)]
    done = subprocess.run([sys.executable, "-m", "stages.evaluate", *words], check=True, stdout=subprocess.PIPE)
    result = json.loads(done.stdout)
    return {key: result[key] for key in ("items", "model", "counts", "groups", "model_sha256")}


def main(run: Path, limit: int) -> None:
    rows = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    row = {"limit": limit, "made": timestamp(), "versions": software_versions(), **measure(run, limit)}
    RESULTS.write_text(json.dumps(rows | {run.name: row}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 100)
