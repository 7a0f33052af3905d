"""The README and the reference pages: their commands run, with config debug for gpt_balanced; their numbers are in JSON."""

import html
import json
import math
import re
import shutil
import statistics
import subprocess
from pathlib import Path
from typing import Any, Callable

import pytest
import torch
import yaml

import lib
from bench.tables import (
    RESULTS,
    generation_table,
    gpu_decoding_table,
    gpu_training_table,
    llama_cpp_table,
    median_of_ratios,
    origin,
    ratio_of_medians,
    reached,
    read_results,
    row_of,
    serving_table,
    training_table,
)
from lib.config.params import load_params, resolve_config
from lib.model.registry import build_model, count_parameters
from lib.ngrams.counts import NGRAM_NAMES
from lib.study.findings import mean_losses, rows_of
from lib.study.results import read_results as study_results
from tests.conftest import PROJECT, TEXT
from tests.pipeline.test_make import ENVIRONMENT, make, project

README, COMMANDS, CONFIGS, PERFORMANCE, DESIGN, LADDER = (
    (PROJECT / name).read_text(encoding="utf-8")
    for name in ("README.md", "docs/commands.md", "docs/configs.md", "docs/performance.md", "docs/design.md", "docs/ladder.md")
)
REFERENCE = ("install", "commands", "configs", "performance", "design", "promises")
WORDS, LINES = 1700, 200  # of the README, at most


def shell_blocks(page: str) -> list[str]:
    return re.findall(r"```sh\n(.*?)```", page, re.DOTALL)


def flat(page: str) -> str:
    """A page as one line, so that a sentence can be found however it is wrapped."""
    return " ".join(page.split())


def as_debug(text: str) -> str:
    names = {"hamlet.gpt2.256": "hamlet.bytes.32", "hamlet.gpt2": "hamlet.bytes", "gpt_balanced": "debug"}
    for real, small in (names | {"decoder_fast-tiny_shakespeare": "debug-hamlet"}).items():
        text = text.replace(real, small)
    return text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, fetched: Callable[[str], Path]) -> Path:
    """A project folder where `make all` has been run, without a network: data/ is a copy."""
    made = project(tmp_path_factory.mktemp("readme") / "project")
    for name in ("hamlet", "gpt2"):
        shutil.copytree(fetched(name), made / "data", dirs_exist_ok=True)
    (made / "my.txt").write_text(TEXT, encoding="utf-8")
    make(made, "all", CONFIG="debug")
    return made


def run(folder: Path, command: str) -> str:
    words = ["bash", "-c", f"set -euo pipefail\n{command}"]
    done = subprocess.run(words, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_citation_and_the_changelog_are_about_this_version() -> None:
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == lib.__version__
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    releases = re.findall(r"^## (\S+)(?: \((\S+)\))?$", (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert releases[:2] == [("Unreleased", ""), (lib.__version__, citation["date-released"])]


@pytest.mark.parametrize("path", sorted((PROJECT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem)
def test_an_issue_form_asks_for_what_is_needed(path: Path) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.stem == "config":
        assert form == {"blank_issues_enabled": True}
        return
    assert {"name", "description", "body"} <= set(form)
    for field in form["body"]:
        assert field["type"] in ("input", "textarea")
        assert field["attributes"]["label"]
    assert len({field["id"] for field in form["body"]}) == len(form["body"])
    assert any(field.get("validations", {}).get("required") for field in form["body"])


def test_no_number_is_left_to_be_filled_in() -> None:
    for path in (PROJECT / "README.md", *(PROJECT / "docs").glob("*.md")):
        assert not re.search(r"@[A-Z]+@|to be filled", path.read_text(encoding="utf-8")), path


def test_the_readme_is_short() -> None:
    assert len(README.split()) <= WORDS
    assert len(README.splitlines()) <= LINES


def test_the_page_about_design_lists_the_rooms_in_the_order_of_their_imports() -> None:
    (tree,) = re.findall(r"```\nlib/\n(.*?)```", DESIGN, re.DOTALL)
    rooms = re.findall(r"^[├└]── (\w+)(?:/|\.py) +# \S", tree, re.MULTILINE)
    assert rooms == list(lib.LAYERS)


def test_the_tree_of_the_readme_names_what_exists() -> None:
    (tree,) = re.findall(r"```\n(stages/ .*?)```", README, re.DOTALL)
    names = re.findall(r"^([a-z./]+) +# \S", tree, re.MULTILINE)
    assert len(names) == len(tree.splitlines())
    assert not [name for name in names if not (PROJECT / name).exists()]


@pytest.mark.parametrize("page", [README, COMMANDS], ids=["README", "commands"])
def test_the_shell_examples_work(page: str, folder: Path) -> None:
    (block,) = [block for block in shell_blocks(page) if "tokenize --ids" in block]
    printed = run(folder, as_debug(block).replace(". .venv/bin/activate", 'export PATH="$PWD/.venv/bin:$PATH"'))
    assert printed.startswith("53603\n" if page is README else "2514 307 11 393 407 284 307 198\n53603\n68875\n")


STAGES = [
    "fetch",
    "tokenize",
    "build-dataset",
    "train",
    "evaluate",
    "generate",
    "serve",
    "classify",
    "plot",
    "report",
    "compare",
    "inspect",
    "explain",
    "practise",
    "check",
    "study",
    "reproduce",
    "import-weights",
    "export-weights",
    "export-page",
]


def test_the_readme_and_the_page_of_commands_list_the_same_stages() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| ([^|]+) \|", README, re.MULTILINE)
    assert [name for name, _ in rows] == STAGES
    assert rows == re.findall(r"^\| `([a-z-]+)` \| ([^|]+) \| `", COMMANDS, re.MULTILINE)


def test_the_table_of_stages_works(folder: Path) -> None:
    examples = re.findall(r"^\| `([a-z-]+)` \|.*\| `([^`]+)` \|$", COMMANDS, re.MULTILINE)
    assert [name for name, _ in examples] == STAGES
    for name, example in examples:
        assert example.startswith(name)
        # GPT-2's weights are 548 MB, a study takes long, a server does not end, a classifier is none of the folder's runs, an
        # exercise has holes
        if name not in ("fetch", "tokenize", "import-weights", "study", "serve", "classify", "check"):
            context = " --context-length 32" if name == "build-dataset" else ""
            run(folder, "export PATH=$PWD/.venv/bin:$PATH\n" + as_debug(example) + context)


def test_the_make_examples_work(folder: Path) -> None:
    (block,) = [block for block in shell_blocks(CONFIGS) if "TEXT=my.txt" in block]
    for line in block.splitlines():
        run(folder, line.replace("make all", "make -n all") if "debug" not in line else line)


def test_the_table_of_configs_is_that_of_params_yaml() -> None:
    params = load_params(PROJECT / "params.yaml")
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", CONFIGS, re.MULTILINE)
    assert {name for name, _ in rows} == set(params["configs"])
    for name, cells in rows:
        config = resolve_config(params, name, [])
        sizes = {"gpt2": 50257, "char": 65, "bytes": 256, "symbols": 69}
        vocabulary = config.tokenize.vocab_size or sizes[config.tokenize.tokenizer]
        sized = resolve_config(params, name, [f"model.vocab_size={vocabulary}"]).model
        shape = [str(number) for number in (sized.n_layers, sized.emb_dim, sized.n_heads)]
        parameters = f"{count_parameters(build_model(sized, torch.device('meta'))):,}"
        shape = {"bigram": ["–"] * 3, "lstm": [*shape[:2], "–"]}.get(name, shape)
        assert cells.split(" | ") == [*shape, str(sized.context_length), config.tokenize.tokenizer, parameters], name


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", *(f"docs/{page}.md" for page in REFERENCE)])
def test_the_files_that_a_page_names_exist(name: str) -> None:
    text = (PROJECT / name).read_text(encoding="utf-8")
    paths = set(re.findall(r"`((?:lib|stages|tests|bench|docs)/[a-z0-9_./]*)`", text))
    assert not [path for path in sorted(paths) if not (PROJECT / path).exists()]


# ── numbers: each from the JSON it was measured into ──


def test_the_claims_of_speed_are_those_of_the_results() -> None:
    training, generation = read_results("training")["gpt_balanced"], read_results("generation")["gpt2_small"]
    ratios = (ratio_of_medians(training, "ours"), median_of_ratios(training, "ours")[0])
    speed = f"`gpt_balanced` trains {ratios[1]:.2f} times as fast as the same model of `transformers`"
    assert f"{speed} (AdamW, float32, the median of paired rounds)" in flat(README)
    assert ratios[1] == min(ratios)
    assert f"the two can differ: {ratios[0]:.2f} and {ratios[1]:.2f} for `gpt_balanced`" in flat(PERFORMANCE)
    times = re.search(r"generates ([\d.]+) times as fast, ([\d.]+) times with int8", flat(README))
    assert times is not None
    assert not training["versions"]["dirty"]
    assert not generation["versions"]["dirty"]
    assert times.groups() == tuple(f"{median_of_ratios(generation, name)[0]:.1f}" for name in ("ours", "ours, int8"))


@pytest.mark.parametrize(("name", "table"), [("training", training_table), ("generation", generation_table)])
def test_the_tables_of_performance_are_those_of_the_results(name: str, table: Callable[[dict[str, Any]], str]) -> None:
    for part in read_results(name).values():
        assert f"{table(part)}\n\nMeasured on {origin(part)}." in PERFORMANCE
        assert f"for {part['rounds']} rounds" in PERFORMANCE
        machine = part["machine"]
        assert f"{machine['threads']} cores of an {machine['processor']} with {machine['instructions']}" in flat(PERFORMANCE)
        assert machine["torch"].startswith("2.13.0")
        assert "torch 2.13.0" in PERFORMANCE


def test_the_tables_next_to_llama_cpp_are_those_of_the_results() -> None:
    assert read_results("llama_cpp")
    for part in read_results("llama_cpp").values():
        assert f"{llama_cpp_table(part)}\n\nMeasured on {origin(part)}." in PERFORMANCE


def test_the_tables_of_the_server_are_those_of_the_results() -> None:
    if not (RESULTS / "serving.json").exists():
        pytest.skip("bench/serving.py has not been run yet")
    for part in read_results("serving").values():
        assert f"{serving_table(part)}\n\nMeasured on {origin(part)}." in PERFORMANCE


def test_the_tables_of_the_gpu_are_those_of_the_results() -> None:
    results = read_results("gpu")
    for table in (gpu_training_table, gpu_decoding_table):
        assert table(results) in PERFORMANCE
    machine, rates = results["machine"], results["matmul_flops"]
    assert (
        f"One {machine['card']} with torch {machine['torch']}, whose products of 8,192² matrices in bfloat16 do "
        f"{rates['bfloat16'] / 1e12:.0f} TFLOP/s and in float32 {rates['float32'] / 1e12:.0f}, "
        f"and whose memory copies {results['copy_bandwidth'] / 1e12:.2f} TB/s" in flat(PERFORMANCE)
    )
    assert f"Measured on {origin(results)}." in flat(PERFORMANCE)


def test_the_loss_against_time_is_that_of_the_results() -> None:
    quality = read_results("quality")
    plain, fast = quality["curves"]["plain"], quality["curves"]["decoder_fast"]
    end = plain[-1][1]
    within = min(loss for _, seconds, loss in fast if seconds <= end)
    for sentence in (
        f"takes {end:.0f} s for {plain[-1][0]:,} steps and reaches {plain[-1][2]:.3f} nats/character",
        f"below {quality['goal']} after {reached(fast, quality['goal']):.0f} s, "
        f"at {within:.3f} when those {end:.0f} s are over, "
        f"and at {fast[-1][2]:.3f} after its {fast[-1][0]:,} steps and {fast[-1][1]:.0f} s",
        f"Measured on {origin(quality)}",
    ):
        assert sentence in flat(PERFORMANCE)


def test_the_first_token_takes_as_long_as_measured() -> None:
    results = read_results("generation")
    small, decoder = (row_of(results[name], "ours")["first_token_against_a_forward_pass"] for name in ("gpt2_small", "decoder"))
    assert (
        f"takes {small:.2f} times as long as one plain forward pass over the prompt, that of `decoder` {decoder:.2f} times"
        in flat(PERFORMANCE)
    )


def test_the_run_of_the_quick_start_is_that_of_the_results() -> None:
    row = read_results("learning")["hamlet_pointer"]
    seconds = statistics.median(row["seconds"])
    assert (
        f"The second trains `{row['config']}`, a GPT of {row['parameters']:,} parameters: {seconds:.0f} s of training on two "
        "cores" in flat(README)
    )
    assert row["versions"]["processor"].startswith("2 cores")
    assert max(row["seconds"]) <= 600
    results = read_results("hamlet")
    assert not results["versions"]["dirty"]
    assert results["seconds"] <= 600
    _, best = min(results["baselines"].items(), key=lambda item: item[1]["loss"])
    assert best["loss"] == pytest.approx(results["loss"] + best["behind"])


def test_the_sample_is_that_of_the_results() -> None:
    sample = read_results("sample")
    assert not sample["versions"]["dirty"]
    assert (
        f"This is what `{sample['config']}` ({sample['parameters']:,} parameters, {sample['loss']:.3f} nats/character) writes "
        f"after `{sample['prompt'].strip()}`, at a temperature of {sample['temperature']}; its longest run of copied "
        f"characters is {sample['longest_copied']}:" in flat(README)
    )
    assert f"```\n{sample['prompt']}{sample['text']}\n```\n" in README


def test_the_claim_about_hamlet_is_that_of_the_results() -> None:
    results = read_results("learning")
    row, plain, verdict = results["hamlet_pointer"], results["hamlet"], results["the_verdict"]
    lead = f"{row['lead']:.3f} ± {row['standard_error']:.3f}"
    for learned in (row, plain):
        assert not learned["versions"]["dirty"]
        assert learned["loss"] == pytest.approx(statistics.mean(learned["losses"]))
        assert learned["lead"] == pytest.approx(learned["counts"]["loss"] - learned["loss"])
    assert row["lead"] > 2 * row["standard_error"]
    assert (
        f"On *Hamlet*, `{row['config']}` reaches {row['loss']:.3f} nats/token, the mean of {len(row['seeds'])} seeds, "
        f"and {row['counts']['name']} counts with Kneser-Ney smoothing {row['counts']['loss']:.3f}: "
        f"the model is ahead by {lead}."
    ) in flat(README)
    assert abs(plain["lead"]) < 2 * plain["standard_error"]
    assert f"Without the pointer it is `{plain['config']}`: {plain['loss']:.3f}, level with counts." in flat(README)
    page = flat((PROJECT / "docs" / "pointer.md").read_text(encoding="utf-8"))
    assert f"`{row['config']}` reaches {row['loss']:.3f} nats/token, the mean of {len(row['seeds'])} seeds" in page
    assert f"it is ahead of counts by {lead}" in page
    assert f"{verdict['loss']:.3f} and {verdict['counts']['loss']:.3f}" in page
    experiments = flat((PROJECT / "EXPERIMENTS.md").read_text(encoding="utf-8"))
    assert ", ".join(f"{loss:.3f}" for loss in row["losses"]) in experiments
    assert f"ahead by {verdict['lead']:.3f} ± {verdict['standard_error']:.3f}, which is level" in experiments


def test_the_claim_about_characters_is_that_of_the_results() -> None:
    best = read_results("learning")["characters"]
    experiments = (PROJECT / "EXPERIMENTS.md").read_text(encoding="utf-8")
    assert not best["versions"]["dirty"]
    lead = f"{best['lead']:.3f} ± {best['standard_error']:.3f}"
    assert (
        f"`{best['config']}` reaches {best['loss']:.3f} and {best['counts']['name']} counts {best['counts']['loss']:.3f}: "
        f"the model is ahead by {lead}." in flat(README)
    )
    assert f"with windows that overlap by half {best['sliding']:.3f}" in flat(experiments)
    assert f"It took {best['seconds'][0]:,.0f} s" in flat(experiments)


@pytest.mark.parametrize(("name", "page"), [("characters_ladder", "ladder"), ("characters_fast", "ngram_embeddings")])
def test_the_seeds_of_a_character_model_are_those_of_the_results(name: str, page: str) -> None:
    row = read_results("learning")[name]
    assert not row["versions"]["dirty"]
    losses, lead = ", ".join(f"{loss:.3f}" for loss in row["losses"]), row["lead"]
    assert (
        f"`{row['config']}`, {len(row['seeds'])} seeds: {losses}, mean {row['loss']:.3f}, with windows that overlap by half "
        f"{row['sliding']:.3f}. {row['counts']['name']} counts have {row['counts']['loss']:.3f}: the model is "
        f"{'ahead' if lead > 0 else 'behind'} by {abs(lead):.3f} ± {row['standard_error']:.3f}. "
        f"A training took {min(row['seconds']):.0f} to {max(row['seconds']):.0f} s."
    ) in flat((PROJECT / "docs" / f"{page}.md").read_text(encoding="utf-8"))


def test_the_extras_of_their_page_are_those_of_the_results() -> None:
    results, page = read_results("hamlet"), (PROJECT / "docs" / "ensembles.md").read_text(encoding="utf-8")
    assert f"| the model | | {results['loss']:.3f} | |" in page
    assert results["extras"]
    for label, extra in results["extras"].items():
        lead = extra["lead"]
        assert f"| {label} | {extra['loss']:.3f} | −{lead['loss']:.3f} ± {lead['standard_error']:.3f} |" in page


def test_the_cost_of_smaller_weights_is_that_of_the_results() -> None:
    table = re.findall(r"^\| (float32|bfloat16|int8|int4) \| ([\d.]+) \| ([\d.]+) \|$", COMMANDS, re.MULTILINE)
    weights = read_results("hamlet")["weights"]
    assert table == [(name, f"{scores['loss']:.4f}", f"{scores['bits_per_byte']:.4f}") for name, scores in weights.items()]


def test_the_models_of_the_ladder_have_the_losses_of_their_figure() -> None:
    svg = (PROJECT / "docs" / "figures" / "ladder.svg").read_text(encoding="utf-8")
    described = re.search(r"<dc:description>(.*?)</dc:description>", svg)
    assert described is not None
    for source in json.loads(html.unescape(described[1]))["runs"]:
        facts = source.get("metadata") or source["facts"]
        row = re.search(rf"^{source['run']} +([\d,]+) +([\d.]+) ", LADDER, re.MULTILINE)
        assert row is not None
        assert row.groups() == (f"{facts['parameters']:,}", f"{facts.get('published_val_loss') or facts['best_val_loss']:.3f}")


def test_the_baselines_of_the_ladder_are_those_that_are_measured_again() -> None:
    references = yaml.safe_load((PROJECT / "lib" / "reproduce" / "references.yaml").read_text(encoding="utf-8"))
    runs = json.loads((PROJECT / "docs" / "study" / "results.json").read_text(encoding="utf-8"))["runs"]
    baselines = next(row["baselines"] for row in runs if row["dataset"] == "tiny_shakespeare")
    order = resolve_config(load_params()).evaluate.ngram_order
    counted = references["kneser-ney-shakespeare"]["expected"]
    measured = {NGRAM_NAMES[n]: counted[n - 1] for n in range(1, order + 1)}
    measured |= {"add-one bigram": references["add-one-shakespeare"]["expected"]}
    measured |= {name: baselines[name] for name in ("uniform", "gzip", "xz")}
    for name, loss in measured.items():
        row = re.search(rf"^{re.escape(name)}(?: \(counts\))? +- +([\d.]+) ", LADDER, re.MULTILINE)
        assert row is not None, name
        assert float(row[1]) == pytest.approx(loss, abs=0.0006), name


def test_the_study_in_two_sentences_is_that_of_its_results() -> None:
    runs = study_results(PROJECT / "docs" / "study" / "results.json").runs
    means = {mean.x: mean for mean in mean_losses(rows_of(runs, "equal_size"), lambda row: row.layers)}
    best = min(means.values(), key=lambda mean: mean.loss)
    behind = {layers: means[layers].loss - best.loss for layers in (4, 8, 12)}
    error = math.sqrt(2) * best.error
    assert (
        f"{best.x} layers reach {best.loss:.3f} nats/character and 1 layer {means[1].loss:.3f}; "
        f"4, 8 and 12 layers are worse by {behind[4]:.3f}, {behind[8]:.3f} and {behind[12]:.3f} (± {error:.3f})" in flat(README)
    )
    assert {row.steps for row in rows_of(runs, "equal_size")} == {400}
    assert best.seeds == 3
    dropout = {
        mean.x: mean
        for mean in mean_losses(
            [row for row in rows_of(runs, "regularization") if row.weight_decay == 0.1], lambda row: row.drop_rate
        )
    }
    worse = dropout[0.4].loss - dropout[0.0].loss
    assert f"0.4 is worse by {worse:.3f} ± {math.sqrt(2) * dropout[0.4].error:.3f}" in flat(DESIGN)


def test_what_nanogpt_reaches_in_our_time_is_that_of_the_results() -> None:
    theirs = read_results("learning")["characters_fast"]["nanogpt"]
    experiments = flat((PROJECT / "EXPERIMENTS.md").read_text(encoding="utf-8"))
    steps = f"{theirs['steps']:,} steps in {theirs['seconds']:.0f} s"
    assert f"reaches {theirs['loss']:.3f} in the time of `decoder_fast`, {steps}" in experiments
