"""What exported pages compute, how large and how fast they are: bench/results/pages.json, docs/other_programs.md.

python bench/pages.py [RUNS]      after: make ladder LADDER="single_block decoder_fast", make setup EXTRAS=dev,browser

RUNS is the folder of the runs, artifacts/runs if none is named. Each run is exported in every format that fits; Node.js and
Chromium open the file, continue a text greedily, and their tokens are compared with PyTorch's.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lib.artifact.provenance import software_versions, timestamp
from lib.errors import UsageError
from lib.huggingface.parity import greedy_tokens
from lib.page.bundle import bundle
from lib.page.export import export_page
from lib.page.weights import FORMATS
from lib.run.folder import load_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser

RESULTS = Path(__file__).parent / "results" / "pages.json"
RUNS = {
    "`single_block`, Tiny Shakespeare": "single_block-tiny_shakespeare",
    "`decoder_fast`, Tiny Shakespeare": "decoder_fast-tiny_shakespeare",
}
PROMPT = "KING RICHARD:"
REPEATS = 3

#: Opens the model of a page and continues a text; the best time of several.
MEASURE = """
async ([file, base64, prompt, count, repeats]) => {
  const start = performance.now();
  const tensors = tensors_module.readTensors(file.tensors, tensors_module.bytesOfBase64(base64));
  const seconds = (performance.now() - start) / 1000;
  let [best, ids] = [Infinity, []];
  for (let n = 0; n < repeats; n++) {
    const backend = local_module.localBackend(file, tensors);
    const [tokens, onToken] = [[], ({ id }) => tokens.push(id)];
    const start = performance.now();
    await backend.complete(file.name, prompt, { temperature: 0, max_tokens: count }, { onToken });
    best = Math.min(best, (performance.now() - start) / 1000);
    ids = tokens;
  }
  return { seconds_to_open: seconds, tokens_per_second: (prompt.length + count) / best, ids };
}
"""
READ = '[JSON.parse(document.getElementById("model-file").textContent), document.getElementById("model-weights").textContent]'


def in_chromium(browser: "Browser", path: Path, prompt: list[int], count: int) -> dict[str, Any]:
    page = browser.new_page()
    page.goto(path.as_uri())
    found: dict[str, Any] = page.evaluate(f"(rest) => ({MEASURE})([...{READ}, ...rest])", [prompt, count, REPEATS])
    page.close()
    return found


def in_node(file: list[str], prompt: list[int], count: int) -> dict[str, Any]:
    values = f"[JSON.parse({json.dumps(file[0])}), {json.dumps(file[1])}, {prompt}, {count}, {REPEATS}]"
    code = f"({MEASURE})({values}).then((result) => console.log(JSON.stringify(result)));"
    script = bundle("local", "tensors") + code
    done = subprocess.run(["node", "-"], input=script, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(run: Path, weights: str, browser: "Browser", folder: Path) -> dict[str, Any]:
    """One row of the table."""
    trained = load_run(run, torch.device("cpu"))
    prompt = trained.tokenizer.encode(PROMPT)
    count = trained.config.context_length + 1 - len(prompt)
    continuation = greedy_tokens(trained.model, prompt, count)
    page = export_page(run, weights)
    path = folder / "page.html"
    path.write_text(page.html, encoding="utf-8")
    row: dict[str, Any] = {"weights": weights, "bytes": path.stat().st_size, "greedy_tokens": count} | page.metadata
    parts = [page.html.partition(f' id="{id}">')[2].partition("</script>")[0] for id in ("model-file", "model-weights")]
    for name, found in {
        "node": in_node(parts, prompt, count),
        "chromium": in_chromium(browser, path, prompt, count),
    }.items():
        pairs = zip(found.pop("ids"), continuation, strict=True)
        agreeing = next((n for n, (theirs, ours) in enumerate(pairs) if theirs != ours), count)
        row[name] = {key: float(f"{value:.3g}") for key, value in found.items()} | {"greedy_tokens_that_agree": agreeing}
    return row


def main(runs: Path) -> None:
    from playwright.sync_api import sync_playwright

    rows = []
    with tempfile.TemporaryDirectory(prefix="makegpt-") as scratch, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, run in RUNS.items():
            for weights in FORMATS:
                try:
                    rows.append({"run": name} | measure(runs / run, weights, browser, Path(scratch)))
                except UsageError:
                    continue  # too large
        versions = software_versions() | {"chromium": browser.version, "node": _node_version()}
        browser.close()
    RESULTS.write_text(json.dumps({"made": timestamp(), "versions": versions, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(pages_table(rows))


def _node_version() -> str:
    return subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()


def pages_table(rows: list[dict[str, Any]]) -> str:
    """A row per run and format: the size of the page, what rounding costs, and how fast browsers are."""
    head = ["run", "parameters", "`--weights`", "MB", "more bits/byte", "greedy tokens that agree"]
    head += ["tokens/s in Chromium"]
    lines = [f"| {' | '.join(head)} |", "|---|---:|---|---:|---:|---:|---:|"]
    for row in rows:
        more = row.get("more_bits_per_byte")
        cells = [
            row["run"],
            f"{row['parameters']:,}",
            row["weights"],
            f"{row['bytes'] / 1e6:.1f}",
            "" if more is None else f"{more:.5f}",
            f"{row['chromium']['greedy_tokens_that_agree']} of {row['greedy_tokens']}",
            f"{row['chromium']['tokens_per_second']:,.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("artifacts/runs"))
