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


def harness(server: Running, model: str, tasks: list[str], folder: Path, **arguments: Any) -> dict[str, list[Any]]:
    """The responses to each sample of `tasks`, in the order of their data."""
    settings = {"base_url": f"{server.url}/v1/completions", "model": model} | arguments
    words = ["--model", "local-completions", "--model_args", ",".join(f"{key}={value}" for key, value in settings.items())]
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


@pytest.mark.parametrize("arguments", [{"num_concurrent": 1}, {"num_concurrent": 4, "batch_size": 2}])
def test_log_likelihoods_equal_those_of_evaluate_to_the_last_bit(
    server: Running, small: Path, stage: Stage, tmp_path: Path, arguments: dict[str, int]
) -> None:
    responses = harness(server, "run", ["makegpt_endings", "makegpt_choices"], tmp_path, **arguments)
    for sample, response in zip(data("endings"), responses["makegpt_endings"], strict=True):
        assert pairs(response) == [evaluated(stage, small / "run", sample["context"], sample["ending"])]
    for sample, response in zip(data("choices"), responses["makegpt_choices"], strict=True):
        assert pairs(response) == [evaluated(stage, small / "run", sample["context"], choice) for choice in sample["choices"]]


def test_whole_texts_begin_after_the_end_of_text(chat_server: Running, chat_run: Path, tmp_path: Path) -> None:
    model = Model.from_run(chat_run, device="cpu")
    assert model.tokenizer.endoftext is not None
    responses = harness(chat_server, "chat", ["makegpt_texts"], tmp_path)["makegpt_texts"]
    for sample, ((response,),) in zip(data("texts"), responses, strict=True):
        ids = [model.tokenizer.endoftext, *model.tokenizer.encode(sample["text"])]
        assert float(response) == sum(score.logprob for score in model.score_ids(ids))


def test_answers_are_those_of_generate(server: Running, small: Path, tmp_path: Path) -> None:
    model = Model.from_run(small / "run", device="cpu")
    responses = harness(server, "run", ["makegpt_answers"], tmp_path, max_length=32, max_gen_toks=12)["makegpt_answers"]
    for sample, ((response,),) in zip(data("endings"), responses, strict=True):
        kept = sample["context"].encode()[-(32 - 1 - 12) :]  # the harness cuts a prompt from the left
        answer = model.generate(kept.decode("utf-8", "replace"), temperature=0, max_new_tokens=12, stop=["\n\n"])
        assert response == answer
