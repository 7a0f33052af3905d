"""The front door, `from lib import Model`: it gives the same as the commands, and the code of its page runs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lib import Model
from lib.data.dataset import Dataset
from lib.errors import UsageError
from tests.conftest import PROJECT, TEXT, Here, Stage


@pytest.fixture(scope="module")
def model(small: Path) -> Model:
    return Model.from_run(small / "run", device="cpu")


def test_it_generates_what_the_command_generates(model: Model, small: Path, here: Here) -> None:
    words = ["--max-new-tokens", 12, "--temperature", 0.8, "--seed", 3]
    printed = here("generate", small / "run", "To be", *words, "--device", "cpu").out
    text = model.generate("To be", max_new_tokens=12, temperature=0.8, seed=3)
    assert printed == text + "\n"
    assert "".join(model.stream("To be", max_new_tokens=12, temperature=0.8, seed=3)) == text


def test_a_list_of_prompts_gives_a_list_in_its_order(model: Model) -> None:
    prompts = ["To be", "Or not", ""]
    assert model.generate(prompts, max_new_tokens=6, temperature=0) == [
        model.generate(prompt, max_new_tokens=6, temperature=0) for prompt in prompts
    ]


@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_the_scores_of_a_text_are_those_of_evaluate_to_the_last_bit(small: Path, stage: Stage, weights: str) -> None:
    lines = stage("evaluate", small / "run", "-", "--per-token", "--weights", weights, input=TEXT[:400]).stdout.splitlines()
    expected = [json.loads(line) for line in lines]
    model = Model.from_run(small / "run", weights=weights, device="cpu")
    scores = model.logprobs(TEXT[:400])
    assert [(score.id, score.logprob, score.rank) for score in scores] == [
        (token["id"], token["logprob"], token["rank"]) for token in expected
    ]
    assert list(model.score_ids(model.tokenizer.encode(TEXT[:400]))) == scores


def test_a_wrong_name_or_value_is_refused_with_what_is_right(model: Model, small: Path) -> None:
    with pytest.raises(UsageError, match=r"did you mean 'temperature'"):
        model.generate("To be", temprature=1)
    with pytest.raises(UsageError, match=r"generate\.top_p=2 must be greater than 0 and at most 1"):
        model.generate("To be", top_p=2)
    with pytest.raises(UsageError, match=r"weights='int3' is unknown"):
        Model.from_run(small / "run", weights="int3")


def test_training_from_a_text_equals_the_commands(small: Path, tmp_path: Path) -> None:
    changes = ["train.max_steps=12", "train.eval_interval=4", "train.batch_size=4", "build-dataset.val_fraction=0.2"]
    steps: list[object] = []
    trained = Model.train(small / "play.txt", tmp_path / "run", changes=changes, device="cpu", on_event=steps.append)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (small / "run" / "model.safetensors").read_bytes()
    assert trained.generate("To be", max_new_tokens=5) == Model.from_run(small / "run").generate("To be", max_new_tokens=5)
    assert len(steps) > 13


def test_training_from_a_text_holds_out_a_test_split_that_is_asked_for(small: Path, tmp_path: Path) -> None:
    changes = ["train.max_steps=1", "train.batch_size=1", "train.sample_interval=0", "build-dataset.test_fraction=0.1"]
    Model.train(small / "play.txt", tmp_path / "run", changes=changes, device="cpu")
    dataset = Dataset(tmp_path / "run-dataset")
    assert (dataset.val_tokens, dataset.test_tokens) == (399, 399)


def test_the_code_of_the_page_runs(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "play.txt").write_text(TEXT, encoding="utf-8")
    run = tmp_path / "artifacts" / "runs" / "gpt_balanced-hamlet"
    run.parent.mkdir(parents=True)
    run.symlink_to(small / "run")
    page, readme = ((PROJECT / name).read_text(encoding="utf-8") for name in ("docs/python.md", "README.md"))
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL) + re.findall(
        r"door -->\n```python\n(.*?)```", readme, re.DOTALL
    )
    assert len(blocks) == 3
    for block in blocks:
        exec(block, {})
        assert capsys.readouterr().out


def test_the_package_alone_loads_no_torch() -> None:
    code = "import sys, lib; assert 'torch' not in sys.modules; from lib import Model; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)
