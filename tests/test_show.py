"""What the pipeline shows: comparisons and figures, through their commands."""

import json
import shutil
from pathlib import Path

import pytest

from lib import comparison, figures, params, report
from lib.comparison import Row
from lib.model.causal_attention import causal_mask
from tests.conftest import PROJECT, Stage

KINDS = ["mask", "positions", "architecture", "schedule", "activations", "gradients"]


@pytest.fixture(scope="module")
def evaluated(small: Path, tmp_path_factory: pytest.TempPathFactory, stage: Stage) -> Path:
    """A folder with one run twice, evaluated, under two names."""
    folder = tmp_path_factory.mktemp("evaluated")
    shutil.copytree(small / "run", folder / "one")
    stage("evaluate", folder / "one", small / "dataset", "-o", folder / "one" / "evaluation.json", "--ngram-order", "5")
    shutil.copytree(folder / "one", folder / "two")
    return folder


def test_compare_puts_runs_and_each_baseline_once_the_best_first(evaluated: Path, stage: Stage) -> None:
    rows = [json.loads(line) for line in stage("compare", evaluated / "one", evaluated / "two", "--json").stdout.splitlines()]
    names = [row["name"] for row in rows]
    counted = ["unigram", "bigram", "add-one bigram", "trigram", "4-gram", "5-gram"]
    assert sorted(names) == sorted(["one", "two", "uniform", *(f"counted {name}" for name in counted)])
    losses = [row["bits_per_byte"] for row in rows]
    assert losses == sorted(losses)
    evaluation = json.loads((evaluated / "one" / "evaluation.json").read_text())
    (one,) = [row for row in rows if row["name"] == "one"]
    assert (one["loss"], one["parameters"], one["split"]) == (evaluation["loss"], 42_688, "val")
    timings = [json.loads(line) for line in (evaluated / "one" / "timings.jsonl").read_text().splitlines()]
    assert one["seconds"] == pytest.approx(sum(line["seconds"] for line in timings))


def test_the_table_has_a_head_a_line_a_row_and_dashes_where_nothing_is_known(evaluated: Path, stage: Stage) -> None:
    head, *lines = stage("compare", evaluated / "one").stdout.splitlines()
    assert " ".join(head.split()) == "val split parameters nats a token perplexity bits a byte seconds"
    (one,) = [line for line in lines if line.startswith("one ")]
    assert one.split()[1] == "42,688"
    (uniform,) = [line for line in lines if line.startswith("uniform")]
    assert uniform.split() == ["uniform", "-", "5.545", "256.0", "8.000", "-"]
    assert len({len(line) for line in [head, *lines]}) == 1


def test_a_run_without_timings_or_bytes_has_dashes() -> None:
    row = Row("run", "val", 1.5, None, None, 1000)
    assert comparison.table([row])[1].split() == ["run", "1,000", "1.500", "-", "-", "-"]


def test_a_run_that_was_not_evaluated_is_refused(small: Path, stage: Stage) -> None:
    assert "evaluation.json" in stage("compare", small / "run", code=1).stderr


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["gpt_modern", "bigram", "single_block"])
def test_what_a_config_describes_is_drawn(kind: str, name: str, tmp_path: Path) -> None:
    changes = ["model.vocab_size=97", "model.context_length=16", "train.max_steps=9"]
    config = params.resolve(params.load(PROJECT / "params.yaml"), name, changes)
    figures.save(report.figure(kind, (), config), tmp_path / "figure.svg", config.plot, report.provenance((), config))
    assert b"<svg" in (tmp_path / "figure.svg").read_bytes()


def test_the_architecture_names_every_part_with_its_parameters(tmp_path: Path) -> None:
    config = params.resolve(params.load(PROJECT / "params.yaml"), "gpt2_small", ["model.vocab_size=50257"])
    (axes,) = report.figure("architecture", (), config).axes
    told = [text.get_text() for text in axes.texts]
    for name, holds in [("tok_emb", "38,597,376"), ("attention", "2,362,368"), ("feed_forward", "4,722,432")]:
        assert holds in told[told.index(name) :]
    assert {"× 12", "1024 ids", "tok_emb once more"} <= set(told)
    assert axes.get_title() == "124,439,808 parameters"


def test_the_mask_is_drawn_as_the_model_has_it() -> None:
    config = params.resolve(params.load(PROJECT / "params.yaml"), None, ["model.context_length=6", "model.window=2"])
    (axes,) = report.figure("mask", (), config).axes
    assert (axes.images[0].get_array() == causal_mask(6, 2).numpy()).all()


def test_attention_is_drawn_for_every_layer_and_head(evaluated: Path, stage: Stage, tmp_path: Path) -> None:
    stage("plot", "attention", evaluated / "one", "--prompt", "to be", "-o", tmp_path / "figure.svg")
    drawn = (tmp_path / "figure.svg").read_text()
    for layer in (0, 1):
        for head in (0, 1):
            assert f"<!-- layer {layer}, head {head} -->" in drawn
    assert "<!-- layer 2" not in drawn


def test_a_prompt_longer_than_the_context_is_refused(evaluated: Path, stage: Stage, tmp_path: Path) -> None:
    done = stage("plot", "attention", evaluated / "one", "--prompt", "x" * 40, "-o", tmp_path / "figure.svg", code=1)
    assert "40 tokens are more than the model's context of 32" in done.stderr
