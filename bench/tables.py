"""The tables of docs/performance.md, from the JSON of bench/results/; a test holds the page to them.

python bench/tables.py      prints them, after `make bench`
"""

import json
import statistics
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

#: The name of a contender in the JSON -> in the tables.
NAMES = {
    "ours": "**makegpt**",
    "ours, Muon": "makegpt, Muon",
    "ours, dropout 0.1": "makegpt, dropout 0.1",
    "ours, bfloat16": "makegpt, bfloat16",
    "ours, int8": "makegpt, int8",
    "ours, compiled": "makegpt, `torch.compile`",
    "ours, without the kernel": "makegpt, without the C++ kernel",
    "the plain loop": "makegpt, no KV cache",
    "textbook": "the textbook's `GPTModel`",
    "ceiling": "matrix products alone",
}


def read_results(name: str) -> dict[str, Any]:
    """The results of one benchmark: training, generation, llama_cpp, quality or gpu."""
    results: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return results


def row_of(part: dict[str, Any], contender: str) -> dict[str, Any]:
    """The row of one contender."""
    row: dict[str, Any] = next(row for row in part["rows"] if row["contender"] == contender)
    return row


def ratio_of_medians(part: dict[str, Any], contender: str) -> float:
    """The contender's median speed over that of transformers."""
    speed = row_of(part, contender)["tokens_per_second"] / row_of(part, "transformers")["tokens_per_second"]
    return float(speed)


def median_of_ratios(part: dict[str, Any], contender: str) -> tuple[float, tuple[float, float] | None]:
    """The median over rounds of the speed over that of transformers in the same round, and the range if rounds are recorded."""
    row = row_of(part, contender)
    ratios = row.get("ratios")
    return (statistics.median(ratios), (min(ratios), max(ratios))) if ratios else (row["against_transformers"], None)


def _ratio(part: dict[str, Any], contender: str) -> str:
    median, span = median_of_ratios(part, contender)
    return f"{median:.2f}" if span is None else f"{median:.2f} ({span[0]:.2f} to {span[1]:.2f})"


def _table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [head, ("---", *("---:" for _ in head[1:])), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def training_table(part: dict[str, Any]) -> str:
    """A row per contender: speed, speed relative to transformers, MFU, memory, and the estimate of `train --plan`."""
    rows = []
    for row in part["rows"]:
        name = row["contender"]
        plan = [f"{row[key]:.2f}" if key in row else "" for key in ("planned_seconds", "planned_memory")]
        rows.append(
            [
                NAMES.get(name, name),
                f"{row['tokens_per_second']:,.0f}",
                f"{ratio_of_medians(part, name):.2f}",
                _ratio(part, name),
                f"{row['mfu']:.0%}",
                "" if name == "ceiling" else f"{row['memory'] / 1e6:,.0f}",
                *plan,
            ]
        )
    return _table(("", "tokens/s", "ratio of medians", "median of ratios", "MFU", "MB", "plan: time", "plan: memory"), rows)


def generation_table(part: dict[str, Any]) -> str:
    """A row per contender: speed, speed over that of transformers, fraction of the memory bandwidth, memory, same tokens."""
    rows = []
    for row in part["rows"]:
        name = row["contender"]
        rows.append(
            [
                NAMES.get(name, name),
                f"{row['tokens_per_second']:,.0f}",
                f"{ratio_of_medians(part, name):.2f}",
                _ratio(part, name),
                f"{row['share_of_memory']:.0%}",
                f"{row['memory'] / 1e6:,.0f}",
                "yes" if row["tokens_as_transformers"] else "no",
            ]
        )
    return _table(("", "tokens/s", "ratio of medians", "median of ratios", "bandwidth", "MB", "same tokens"), rows)


def llama_cpp_table(part: dict[str, Any]) -> str:
    """A row per contender: speed of the prompt and of decoding, each over that of llama.cpp, memory bandwidth, memory."""
    rows = []
    for row in part["rows"]:
        cells = [NAMES.get(row["contender"], row["contender"])]
        for phase in ("prompt", "decode"):
            ratios = row[f"{phase}_ratios"]
            median, low, high = statistics.median(ratios), min(ratios), max(ratios)
            cells += [f"{row[f'{phase}_tokens_per_second']:,.0f}", f"{median:.2f} ({low:.2f} to {high:.2f})"]
        rows.append([*cells, f"{row['bandwidth']:.0%}", f"{row['memory'] / 1e6:,.0f}", str(row["same_tokens"])])
    head = ("", "prompt, tokens/s", "× llama.cpp", "decoding, tokens/s", "× llama.cpp", "bandwidth", "MB", "same tokens")
    return _table(head, rows)


def serving_table(part: dict[str, Any]) -> str:
    """A row per contender and number of streams: tokens/s of all together, and how long the first and later tokens took."""
    rows = []
    for row in sorted(part["rows"], key=lambda row: row["streams"]):
        seconds = [f"{row['first_token'][p]:.2f}" for p in ("p50", "p99")]
        milliseconds = [f"{1000 * row['later_token'][p]:.0f}" for p in ("p50", "p99")]
        speed = f"{statistics.median(row['tokens_per_second']):,.0f}"
        rows.append([NAMES.get(row["contender"], row["contender"]), str(row["streams"]), speed, *seconds, *milliseconds])
    head = ("", "streams", "tokens/s", "first token, s: p50", "p99", "later tokens, ms: p50", "p99")
    return _table(head, rows)


def gpu_training_table(results: dict[str, Any]) -> str:
    """A row per training on the card that was measured: speed, MFU against bfloat16 products, and peak memory."""
    rows = []
    for row in results["training"]:
        if "error" in row:
            continue
        marks = ["compiled"] * (row["compile"] == "on") + ["counts"] * (not row["random_ids"])
        name = ", ".join([f"{row['config']} × {row['batch_size']}", row["precision"], row["optimizer"], *marks])
        exact = "yes" if row["deterministic"] else "no"
        numbers = [
            f"{row['tokens_per_second']:,.0f}",
            f"{row['milliseconds']:.0f}",
            f"{row['mfu']:.1%}",
            f"{row['memory'] / 1e9:.1f}",
        ]
        rows.append([name, exact, *numbers])
    return _table(("", "deterministic", "tokens/s", "ms/step", "MFU", "GB"), rows)


def gpu_decoding_table(results: dict[str, Any]) -> str:
    """A row per format of the weights and batch size: speed, and the fraction of the memory bandwidth."""
    rows = [
        [
            f"{row['weights']} × {row['batch_size']}",
            f"{row['tokens_per_second']:,.0f}",
            f"{row['milliseconds']:.1f}",
            f"{row['bandwidth']:.1%}",
        ]
        for row in results["decoding"]
        if "error" not in row
    ]
    return _table(("", "tokens/s", "ms/step", "bandwidth"), rows)


def origin(part: dict[str, Any]) -> str:
    """When and from which commit a part was measured."""
    versions = part["versions"]
    tree = "uncommitted changes" if versions["dirty"] else "clean tree"
    return f"{part['made'][:10]}, commit {versions['commit'][:7]}, {tree}"


def reached(curve: list[list[float]], goal: float) -> float:
    """The seconds after which a curve of (step, seconds, loss) is at `goal`."""
    return next(seconds for _, seconds, loss in curve if loss <= goal)


def main() -> None:
    tables = (
        ("training", training_table),
        ("generation", generation_table),
        ("llama_cpp", llama_cpp_table),
        ("serving", serving_table),
    )
    for benchmark, table in tables:
        if not (RESULTS / f"{benchmark}.json").exists():
            continue
        for name, part in read_results(benchmark).items():
            print(f"### `{name}`\n\n{table(part)}\n\n{origin(part)}\n")
    results = read_results("gpu")
    print(f"{gpu_training_table(results)}\n\n{gpu_decoding_table(results)}\n\n{origin(results)}\n")


if __name__ == "__main__":
    main()
