"""The book: its code runs and prints what the pages show, and its links and figures exist."""

import json
import math
import re
import shlex
from pathlib import Path
from typing import Callable

import pytest

from bench.chat import RESULTS as CHAT_RESULTS
from bench.chat import chat_table
from bench.classes import RESULTS as CLASSES_RESULTS
from bench.classes import classes_table
from bench.exports import RESULTS as EXPORTS
from bench.exports import RUNS, certificates_table, sizes_table
from bench.g2p import RESULTS as G2P
from bench.g2p import g2p_section
from bench.last_token import RESULTS as LAST_TOKEN
from bench.last_token import last_token_table
from bench.lens import RESULTS as LENS
from bench.lens import first_from, lens_table, prompts_table
from bench.lora import lora_table
from bench.lstm import RESULTS as LSTM
from bench.lstm import lstm_table
from bench.original_transformer import RESULTS as ORIGINAL
from bench.original_transformer import original_table
from bench.pages import RESULTS as EXPORTED_PAGES
from bench.pages import pages_table
from bench.preferences import RESULTS as PREFERENCES
from bench.preferences import preferences_table
from bench.recall import LEARNING_RATES, recall_table
from bench.recall import RESULTS as RECALL
from bench.rewards import RESULTS as REWARDS
from bench.rewards import rewards_table
from bench.sparse import RESULTS as SPARSE
from bench.sparse import loss_table, time_table
from bench.speculative import RESULTS as SPECULATIVE
from bench.speculative import speculative_table
from bench.vocabularies import RESULTS, vocabulary_table
from docs.figures import commands
from lib.book import (
    EXAMPLE,
    Page,
    code_blocks,
    find_page,
    index_terms,
    list_pages,
    page_summary,
    run_page,
    source_lines,
    with_sources,
)
from lib.errors import MakegptError, UsageError
from lib.page.export import MOST_BYTES
from tests.compare import assert_same_numbers, assert_same_svg
from tests.conftest import FEW, PROJECT, Here, Stage
from tests.pipeline.test_make import make, project

DOCS = PROJECT / "docs"
PAGES = list_pages()
FILES = sorted(DOCS.glob("*.md"))
REFERENCE = [
    "install",
    "commands",
    "configs",
    "performance",
    "design",
    "python",
    "live_page",
    "serve_api",
    "promises",
    "bibliography",
]  # pages that are not of the book
FIGURES = commands()


def page_id(page: Page) -> str:
    return page.name


def test_the_contents_name_every_page_once_and_in_order() -> None:
    text = (DOCS / "README.md").read_text(encoding="utf-8")
    numbers = [int(number) for number in re.findall(r"^(\d+)\. ", text, re.MULTILINE)]
    assert numbers == list(range(1, len(PAGES) + 1))
    assert {path.stem for path in FILES} == {page.name for page in PAGES} | {"README", *REFERENCE}


def test_the_contents_and_the_readme_link_to_the_reference_pages() -> None:
    contents = (DOCS / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^- \[[^\]]+\]\((\w+)\.md\): ", contents, re.MULTILINE) == REFERENCE
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert all(f"](docs/{name}.md" in readme for name in REFERENCE if name != "bibliography")
    assert not set(REFERENCE) & {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_a_pages_code_prints_what_the_page_shows(
    page: Page, fetched: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    if page.name == "tokens":
        fetched("gpt2")
    monkeypatch.chdir(PROJECT)
    for ran, stands in zip(run_page(page), code_blocks(page), strict=True):
        assert ran.kind == stands.kind
        assert_same_numbers(ran.text, stands.text)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_a_page_has_a_worked_example_that_prints_numbers_and_names_its_source(page: Page) -> None:
    text = page.path.read_text(encoding="utf-8")
    assert text.startswith(f"# {page.title}\n")
    assert f"`explain {page.name}`" in text
    example = [block for block in code_blocks(page) if block.section == EXAMPLE]
    assert {"prose", "code", "output"} <= {block.kind for block in example}
    assert re.search(r"\d", "".join(block.text for block in example if block.kind == "output"))
    assert "bibliography.md" in text


@pytest.mark.parametrize("path", [*FILES, *PROJECT.glob("*.md")], ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_links_have_targets(path: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


def test_the_pages_shell_commands_can_be_run(tmp_path: Path) -> None:
    folder = project(tmp_path / "project")
    pages = [path for path in FILES if path.stem not in ("commands", "configs")]  # test_readme runs theirs
    blocks = [block for path in pages for block in re.findall(r"```sh\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)]
    commands = sorted({line for block in blocks for line in block.splitlines()})
    assert len(commands) > 10
    for command in commands:
        name, *words = shlex.split(command)
        assert name == "make"
        assert "train" in make(folder, "-n", *words).stdout


def test_every_figure_is_shown_with_its_command() -> None:
    assert {f"figures/{path.name}" for path in (DOCS / "figures").iterdir()} == set(FIGURES)


def drawn(command: str, here: Here, folder: Path, run: Path | None = None) -> str:
    """The SVG that a page's command makes, without its metadata; with `run` in place of those that take minutes to train."""
    name, *words = shlex.split(command)
    words = [str(run) if word.startswith("artifacts/runs/") else word for word in words[:-1]]
    here(name, *words, folder / "figure.svg")
    return without_metadata(folder / "figure.svg")


def without_metadata(path: Path) -> str:
    return re.sub(r"(?s)<metadata>.*</metadata>", "", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("target", [name for name, command in FIGURES.items() if "artifacts/runs/" not in command])
def test_a_figure_of_the_code_is_the_committed_one(target: str, here: Here, tmp_path: Path) -> None:
    assert FIGURES[target].endswith(f" -o docs/{target}")
    assert_same_svg(drawn(FIGURES[target], here, tmp_path), without_metadata(DOCS / target), target)


@pytest.mark.parametrize("target", [name for name, command in FIGURES.items() if "artifacts/runs/" in command])
def test_a_figure_of_runs_can_be_made_again(target: str, here: Here, copied: Path, tmp_path: Path) -> None:
    assert FIGURES[target].endswith(f" -o docs/{target}")
    if "plot ladder" in FIGURES[target]:
        here("evaluate", copied / "run", "-o", copied / "run" / "evaluation.json", *FEW)
    assert "<svg" in drawn(FIGURES[target], here, tmp_path, copied / "run")


def test_the_table_of_the_readme_has_rows_of_the_ladders_page() -> None:
    short, whole = (
        re.findall(r"```\n(val split, 111,539 tokens.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)[0].splitlines()
        for path in (PROJECT / "README.md", DOCS / "ladder.md")
    )
    assert [row for row in whole if row in short] == short
    assert [row for row in short if "tiny_shakespeare" in row] == [row for row in whole if "tiny_shakespeare" in row]


def test_the_page_and_the_results_show_the_same_tokenizers() -> None:
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]
    page = (DOCS / "tokens.md").read_text(encoding="utf-8")
    assert vocabulary_table(rows) in page
    held_out = {(row["tokenizer"], row["pattern"], row["vocab_size"]): row["held_out"] for row in rows}
    assert held_out["bpe", "llama-bpe", 4096] > held_out["bpe", "gpt2", 4096] > held_out["unigram", None, 4096]
    for size, words in ((4096, "with 4,096 tokens ours are {:.1%} longer"), (1024, "with 1,024 they are {:.1%} shorter")):
        ratio = held_out["unigram", None, size] / held_out["unigram, by SentencePiece", None, size]
        assert words.format(abs(ratio - 1)) in page


def test_the_page_and_the_results_show_the_same_exports() -> None:
    results, page = json.loads(EXPORTS.read_text(encoding="utf-8")), (DOCS / "other_programs.md").read_text(encoding="utf-8")
    assert certificates_table(results["runs"]) in page
    assert sizes_table(results["quantized"]) in page
    assert f"expects {results['quantized']['q8_0']['read_back']['bits_per_byte']:.2f} bits/byte" in page
    assert {row["run"] for row in results["runs"]} > set(RUNS)
    assert all(row["llama_cpp"]["texts_with_other_ids"] == [] for row in results["runs"])


def test_the_page_and_the_results_show_the_same_exported_pages() -> None:
    rows = json.loads(EXPORTED_PAGES.read_text(encoding="utf-8"))["rows"]
    assert pages_table(rows) in (DOCS / "other_programs.md").read_text(encoding="utf-8")
    for row in rows:
        assert row["bytes"] <= MOST_BYTES
        assert row["chromium"]["greedy_tokens_that_agree"] == row["node"]["greedy_tokens_that_agree"] == row["greedy_tokens"]


def test_the_page_and_the_results_show_the_same_classifiers() -> None:
    results = json.loads(CLASSES_RESULTS.read_text(encoding="utf-8"))
    page = (DOCS / "classes.md").read_text(encoding="utf-8")
    assert classes_table(results) in page
    assert f"Of the {results['texts']}, {results['seen_texts']} are in the training split too" in page


def test_the_page_and_the_results_show_the_same_error_rates_of_pronunciations() -> None:
    results, page = json.loads(G2P.read_text(encoding="utf-8")), (DOCS / "g2p.md").read_text(encoding="utf-8")
    assert g2p_section(results) in page
    assert f"{results['sources']:,} words and {results['pairs']:,} pronunciations" in page.replace("\n", " ")


def test_the_page_the_readme_and_the_results_show_the_same_recurrent_network() -> None:
    results, page = json.loads(LSTM.read_text(encoding="utf-8")), (DOCS / "lstm.md").read_text(encoding="utf-8")
    assert lstm_table(results) in page
    lead = results["decoder"]["loss"] - results["lstm"]["loss"]
    assert f"ahead by {lead:.3f}" in page
    assert results["lstm"]["steps"] == results["decoder"]["steps"]
    assert f"took {results['lstm']['seconds']:.0f} s, those of the decoder {results['decoder']['seconds']:.0f} s" in page
    row = json.loads(RESULTS.with_name("learning.json").read_text(encoding="utf-8"))["characters_lstm"]
    assert (
        f"its mean is {row['loss']:.3f}, ahead of the 7-gram (counts) by {row['lead']:.3f} ± {row['standard_error']:.3f}; a "
        f"training takes {math.floor(min(row['seconds']))} to {math.ceil(max(row['seconds']))} s on two idle cores" in page
    )
    readme = " ".join((PROJECT / "README.md").read_text(encoding="utf-8").split())
    assert (
        f"`CONFIG=lstm`, reaches {row['loss']:.3f}, the mean of {len(row['seeds'])} seeds: ahead of the decoder and, by "
        f"{row['lead']:.3f} ± {row['standard_error']:.3f}, of all counts" in readme
    )


def test_the_page_and_the_results_show_the_same_speculation() -> None:
    results, page = json.loads(SPECULATIVE.read_text(encoding="utf-8")), (DOCS / "speculative.md").read_text(encoding="utf-8")
    assert not results["versions"]["dirty"]
    assert speculative_table(results) in page
    for name, size in results["parameters"].items():
        assert f"{size:,} parameters" in page, name


def test_the_page_and_the_results_show_what_a_recurrent_network_forgets() -> None:
    results, page = json.loads(RECALL.read_text(encoding="utf-8")), (DOCS / "lstm.md").read_text(encoding="utf-8")
    assert recall_table(results) in page
    assert f"learn for the same time, {results['seconds']} s of one core" in page
    accuracies = {
        name: [[run["accuracy"] for run in runs] for runs in results[name]["runs"].values()] for name in LEARNING_RATES
    }
    assert max(accuracies["lstm"][2]) < 0.1 < 0.4 < min(accuracies["lstm"][1]) < 0.6 < min(accuracies["lstm"][0])
    assert min(accuracies["decoder"][0] + accuracies["decoder"][1]) > 0.995
    assert sorted(accuracy > 0.9 for accuracy in accuracies["decoder"][2]) == [False, True, True]


def test_the_page_and_the_results_show_the_same_next_tokens() -> None:
    results, page = json.loads(LAST_TOKEN.read_text(encoding="utf-8")), (DOCS / "bigram.md").read_text(encoding="utf-8")
    assert last_token_table(results) in page
    alone, cat, sun = (row["word"] for row in results["prompts"].values())
    assert "about 10,000 times as likely" in page
    assert 9_000 < cat / alone < 11_000
    assert sun < alone


def test_the_page_and_the_results_show_the_same_lens() -> None:
    results, page = json.loads(LENS.read_text(encoding="utf-8")), (DOCS / "logit_lens.md").read_text(encoding="utf-8")
    assert lens_table(results) in page
    assert prompts_table(results) in page
    views = results["prompts"]["The capital of France is"]["layers"]
    assert "SmolLM2](pretrained.md) has 30 blocks" in page
    assert len(views) == 31
    assert (
        "among the 50 most likely tokens from block 27 on, the third after block 29, and first only after the last one" in page
    )
    assert max(view["rank"] for view in views[27:]) <= 50 < min(view["rank"] for view in views[:27])
    assert (views[29]["rank"], first_from(views)) == (3, 30)
    assert "Up to block 24 it gives ` Paris` a surprisal above ln 49,152 = 10.80 nats" in page
    assert results["vocab_size"] == 49_152
    assert min(view["surprisal"] for view in views[:25]) > math.log(49_152) > views[25]["surprisal"]
    assert "after block 20 the lens is 98% sure of a space" in page
    assert (views[20]["best"], round(views[20]["p"], 2)) == (" ", 0.98)
    assert results["versions"]["dirty"] is False


def test_the_page_and_the_results_show_the_same_sparse_patterns() -> None:
    results, page = json.loads(SPARSE.read_text(encoding="utf-8")), (DOCS / "sparse_attention.md").read_text(encoding="utf-8")
    assert loss_table(results) in page
    gains = {name: results["loss"]["all tokens"]["loss"] - row["loss"] for name, row in results["loss"].items()}
    assert f"by {gains['sliding, 16']:.3f} for sliding to {gains['fixed, 8']:.3f} for fixed" in page
    assert time_table(results) in page
    seconds = results["time"]["4096"]
    window, strided, fixed = (seconds[name] / seconds["all tokens"] for name in ("sliding", "strided", "fixed"))
    assert f"a window takes {window:.2f} of the time of all tokens, strided {strided:.2f} and fixed {fixed:.2f}" in page


def test_the_page_and_the_results_show_the_same_original_transformer() -> None:
    results = json.loads(ORIGINAL.read_text(encoding="utf-8"))
    assert original_table(results) in (DOCS / "original_transformer.md").read_text(encoding="utf-8")
    assert results["versions"]["dirty"] is False


def test_the_page_and_the_results_show_the_same_preferences() -> None:
    results, page = json.loads(PREFERENCES.read_text(encoding="utf-8")), (DOCS / "dpo.md").read_text(encoding="utf-8")
    assert preferences_table(results) in page
    moved, validation = results["evaluation"]["moved"], results["validation"]
    accuracy, margin = moved["accuracy"], moved["margin"]
    assert f"In {accuracy['value']:.1%} ± {accuracy['standard_error']:.1%} of the pairs" in page
    gain, error = margin["value"] / moved["beta"], margin["standard_error"] / moved["beta"]
    assert f"by {gain:.1f} ± {error:.1f} nats on average" in page
    assert f"fell from {validation['first']['loss']:.3f} to {validation['last']['loss']:.3f}" in page
    assert f"after {results['steps']} steps of {results['batch_size']} pairs and {results['seconds'] / 60:.0f} minutes" in page


def test_the_page_and_the_results_show_the_same_rewards() -> None:
    results = json.loads(REWARDS.read_text(encoding="utf-8"))
    assert rewards_table(results) in (DOCS / "reward.md").read_text(encoding="utf-8")
    for curves in results["seeds"].values():  # in every one of them
        assert max(line["exact"] for line in curves["contains"][-10:]) < 0.1 < curves["contains"][1]["exact"]
        assert min(line["exact"] for line in curves["contains_kl"][-10:]) > 0.1


def test_the_page_and_the_results_show_the_same_answers() -> None:
    rows = json.loads(CHAT_RESULTS.read_text(encoding="utf-8"))["rows"]
    assert chat_table(rows) in (DOCS / "assistant.md").read_text(encoding="utf-8")


def test_the_page_about_lora_shows_what_was_measured() -> None:
    results = json.loads((PROJECT / "bench" / "results" / "lora.json").read_text(encoding="utf-8"))
    assert lora_table(results) in (DOCS / "lora.md").read_text(encoding="utf-8")
    whole, adapters, *_ = results["rows"]
    assert adapters["memory"] < whole["memory"]


def test_every_cited_source_is_in_the_bibliography() -> None:
    listed = (DOCS / "bibliography.md").read_text(encoding="utf-8")
    sources = [*FILES, *(PROJECT / "lib").rglob("*.py")]
    for path in sources:
        text = path.read_text(encoding="utf-8")
        found = re.findall(r"([A-Z][\w'é-]+)(?: et al\.| and [A-Z][\w-]+)? \(?((?:19|20)\d\d)\b", text)
        for author, year in found:
            if author != "SwiGLU":  # "SwiGLU  2048 wide"
                assert re.search(rf"{author}.*\b{year}\b", listed), f"{path.name}: {author} {year}"


def test_explain_lists_the_pages(stage: Stage) -> None:
    assert [line.split()[0] for line in stage("explain").stdout.splitlines()] == [page.name for page in PAGES]


def test_explain_shows_the_worked_example_with_the_numbers_of_the_running_code(stage: Stage) -> None:
    output = stage("explain", "attention").stdout
    for line in ("# Multi-head attention", "## The formula", "  │ def forward(", "  │ import torch", "The whole page: "):
        assert line in output
    page = (DOCS / "attention.md").read_text(encoding="utf-8")
    (first, *_) = re.findall(r"## A worked example.*?```text\n(.*?)```", page, re.DOTALL)
    printed = [line.removeprefix("  = ") for line in output.splitlines() if line.startswith("  = ")]
    expected = [line for line in first.splitlines() if line]
    assert_same_numbers("\n".join(printed[: len(expected)]), "\n".join(expected))
    assert "## Where it comes from" not in output
    assert "## Where it comes from" in stage("explain", "attention", "--whole").stdout


def test_explain_reads_the_projects_parameters_in_any_folder(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("defaults:\n")
    assert stage("explain", "decoder", cwd=tmp_path).stdout == stage("explain", "decoder").stdout


def test_explain_takes_names_with_hyphens_and_corrects_others(stage: Stage) -> None:
    assert "# Causal attention" in stage("explain", "causal-attention").stdout
    assert "did you mean 'rotary'" in stage("explain", "rotari", code=2).stderr


def test_a_page_is_split_into_prose_code_and_output(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(
        "# Title\n\n```sh\nls\n```\n\n## A worked example\n\nSum:\n\n```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n\nEnd\n"
    )
    page = Page("page", "Title", "about", path)
    assert [(block.kind, block.line) for block in code_blocks(page)] == [
        ("prose", 1), ("prose", 7), ("code", 12), ("output", 16), ("prose", 18),
    ]  # fmt: skip
    assert [block.text for block in page_summary(page) if block.kind == "output"] == ["2\n"]


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_the_code_on_a_page_is_that_of_the_file(page: Page) -> None:
    text = page.path.read_text(encoding="utf-8")
    assert with_sources(text) == text, "`make format` copies the code to the pages"


def test_the_pages_of_the_models_parts_show_their_code() -> None:
    without = [page.name for page in PAGES if "lib/model/" in page.path.read_text(encoding="utf-8").split("\n")[2]]
    without = [name for name in without if "source=lib/" not in (DOCS / f"{name}.md").read_text(encoding="utf-8")]
    assert without == ["notation", "decoder", "tied_head", "gpt_modern"]  # a whole config, or a line of another page's code


def test_a_pages_source_can_be_a_function_a_class_or_a_method() -> None:
    assert source_lines("lib/model/norm.py:rms_norm").startswith("def rms_norm(x: Tensor")
    assert source_lines("lib/model/layers.py:Linear").startswith("class Linear(nn.Module):\n    ")
    assert source_lines("lib/model/layers.py:Linear.forward").startswith("def forward(self, x: Tensor)")
    assert source_lines("lib/model/language_model.py:LanguageModel.initialize").startswith("@torch.no_grad()\ndef initialize")
    with pytest.raises(MakegptError, match=r"lib/model/norm.py has no rms_norms"):
        source_lines("lib/model/norm.py:rms_norms")


def test_code_of_a_file_is_shown_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("# Title\n\n```python source=lib/model/norm.py:rms_norm\ndef old(): undefined\n```\n")
    assert [block.kind for block in run_page(Page("page", "Title", "about", path))] == ["prose", "source"]
    assert with_sources(path.read_text()).splitlines()[3].startswith("def rms_norm(x: Tensor")


def test_a_term_of_the_index_finds_its_page(stage: Stage) -> None:
    names = {page.name for page in PAGES}
    assert len(index_terms()) > 50
    assert set(index_terms().values()) <= names
    assert not set(index_terms()) & names
    assert find_page("softmax").name == find_page("floating-point").name == "notation"
    assert find_page("overfitting").name == "training_loop"
    assert "# Notation" in stage("explain", "Softmax").stdout


def test_an_error_in_a_page_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("# Title\n\n```python\nx = 1\nx / 0\n```\n")
    with pytest.raises(ZeroDivisionError) as caught:
        list(run_page(Page("page", "Title", "about", path)))
    assert caught.traceback[-1].lineno + 1 == 5


def test_an_unknown_page_is_refused() -> None:
    with pytest.raises(UsageError, match="there is no page"):
        find_page("nothing")
