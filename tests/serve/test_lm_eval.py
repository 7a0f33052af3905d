"""EleutherAI's lm-evaluation-harness through the server: its sums are those of `evaluate` to the last bit.

`make lm-eval` installs it in .lm-eval; the tasks and their data are in tests/serve/lm_eval, so it needs no network.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lib import Model
from tests.conftest import PROJECT, Stage
from tests.serve.running import Running

COMMAND = PROJECT / ".lm-eval" / "bin" / "lm_eval"
TASKS = Path(__file__).parent / "lm_eval"

pytestmark = pytest.mark.skipif(not COMMAND.exists(), reason="lm-eval is not installed: make lm-eval")


def harness(server: Running, model: str, tasks: list[str], folder: Path, concurrent: int = 1) -> dict[str, list[Any]]:
    """The responses to each sample of `tasks`, in the order of their data; `concurrent` requests, of as many prompts each."""
    settings = f"base_url={server.url}/v1/completions,model={model},num_concurrent={concurrent}"
    words = ["--model", "local-completions", "--model_args", settings, "--batch_size", str(concurrent)]
    words += ["--tasks", ",".join(tasks), "--include_path", ".", "--log_samples", "--output_path", str(folder / "out")]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "home")}
    done = subprocess.run([COMMAND, *words], cwd=TASKS, env=os.environ | offline, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    responses = {}
    for task in tasks:
        (path,) = (folder / "out").rglob(f"samples_{task}_*.jsonl")
        samples = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        responses[task] = [sample["resps"] for sample in sorted(samples, key=lambda sample: sample["doc_id"])]
    return responses


def data(name: str) -> list[Any]:
    return [json.loads(line) for line in (TASKS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def evaluated(stage: Stage, run: Path, context: str, ending: str) -> tuple[float, bool]:
    """The log-likelihood of the ending's tokens by `evaluate`, and whether each is the most likely one; bytes are tokens."""
    lines = stage("evaluate", run, "-", "--per-token", input=context + ending).stdout.splitlines()
    scores = [json.loads(line) for line in lines][-len(ending.encode()) :]
    return sum(score["logprob"] for score in scores), all(score["rank"] == 1 for score in scores)


def pairs(response: Any) -> list[tuple[float, bool]]:
    """The (log-likelihood, greedy) of a sample, which the harness writes as texts."""
    return [(float(value), str(greedy) == "True") for ((value, greedy),) in response]


@pytest.mark.parametrize("concurrent", [1, 2])
def test_log_likelihoods_equal_those_of_evaluate_to_the_last_bit(
    server: Running, small: Path, stage: Stage, tmp_path: Path, concurrent: int
) -> None:
    tasks = ["makegpt_endings", "makegpt_choices", "makegpt_answers"]
    endings, choices, answers = harness(server, "run", tasks, tmp_path, concurrent).values()
    for sample, response in zip(data("endings"), endings, strict=True):
        assert pairs(response) == [evaluated(stage, small / "run", sample["context"], sample["ending"])]
    for sample, response in zip(data("choices"), choices, strict=True):
        assert pairs(response) == [evaluated(stage, small / "run", sample["context"], choice) for choice in sample["choices"]]
    model = Model.from_run(small / "run", device="cpu")
    for sample, ((response,),) in zip(data("answers"), answers, strict=True):
        assert response == model.generate(sample["context"], temperature=0, max_new_tokens=12, stop=["\n\n"])


def test_whole_texts_begin_after_the_end_of_text(chat_server: Running, chat_run: Path, tmp_path: Path) -> None:
    model = Model.from_run(chat_run, device="cpu")
    assert model.tokenizer.endoftext is not None
    responses = harness(chat_server, "chat", ["makegpt_texts"], tmp_path)["makegpt_texts"]
    for sample, ((response,),) in zip(data("texts"), responses, strict=True):
        ids = [model.tokenizer.endoftext, *model.tokenizer.encode(sample["text"])]
        assert float(response) == sum(score.logprob for score in model.score_ids(ids))
