"""Conversations: a model's answers, what it remembers of a long one, and the command."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lib import Model
from lib.artifact.provenance import timestamp
from lib.chat.messages import Message
from lib.chat.template import ChatML
from lib.config.params import load_params, resolve_config
from lib.errors import MakegptError
from lib.generate.chat import Dialog, encode_messages
from lib.generate.engine import generate_naive
from lib.generate.request import Request
from lib.model.registry import build_model
from lib.run.folder import read_chat_template
from lib.run.imported import write_imported_run
from tests.chat.test_template import TOKENIZER
from tests.conftest import PROJECT, Here, Stage

TEMPLATE = ChatML("s")
T = 96


def write_chat_run(folder: Path) -> Path:
    """A run in `folder` with random weights that knows ChatML."""
    debug = resolve_config(load_params(PROJECT / "params.yaml"), "debug").model
    config = replace(debug, vocab_size=TOKENIZER.vocab_size, context_length=T)
    model = build_model(config)
    model.initialize(torch.Generator().manual_seed(1))
    tensors = {name: weight.detach() for name, weight in model.named_parameters()}
    write_imported_run(
        folder,
        config,
        TOKENIZER,
        tensors,
        checkpoint={},
        inputs=[],
        metadata={},
        started=timestamp(),
        chat_template=TEMPLATE.jinja(),
    )
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chat_run(tmp_path_factory.mktemp("chat") / "run")


def test_an_answer_continues_the_written_conversation(run: Path) -> None:
    assert read_chat_template(run) == TEMPLATE
    model = Model.from_run(run, device="cpu")
    prompt = encode_messages(TOKENIZER, TEMPLATE, [Message("user", "q")])
    assert (
        TOKENIZER.decode(prompt.ids)
        == "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
    )
    assert prompt.end == TOKENIZER.tokens.index(b"<|im_end|>")
    config = replace(resolve_config(load_params(PROJECT / "params.yaml")).generate, temperature=0.0, max_new_tokens=8)
    with torch.inference_mode():
        ids = list(generate_naive(model.network, prompt.ids, config, torch.device("cpu"), prompt.end))
    answer = model.answer("q", max_new_tokens=8, temperature=0)
    assert answer == TOKENIZER.decode([id for id in ids if id != prompt.end])
    assert answer == model.answer([Message("user", "q")], max_new_tokens=8, temperature=0)


@pytest.mark.parametrize("token", [b"<|im_end|>", b"<|endoftext|>"])
def test_an_answer_ends_with_its_template_s_tag_or_the_text(token: bytes) -> None:
    config = replace(resolve_config(load_params(PROJECT / "params.yaml")).generate, temperature=0.0)
    request = Request(TOKENIZER, encode_messages(TOKENIZER, TEMPLATE, [Message("user", "q")]), config)
    logits = torch.zeros(TOKENIZER.vocab_size)
    logits[TOKENIZER.tokens.index(b"a")] = 1
    request.add(request.choose_next(logits), logits)
    logits[TOKENIZER.tokens.index(token)] = 2
    request.add(request.choose_next(logits), logits)
    assert (request.text, request.finish_reason) == ("a", "end_of_text")


def test_a_dialog_remembers_and_forgets_the_oldest() -> None:
    dialog = Dialog(TOKENIZER, TEMPLATE, T, reserve=16)
    lengths = []
    for _ in range(8):
        lengths.append(len(dialog.ask("q").ids))
        dialog.answered("a")
    assert lengths[0] < lengths[1] < lengths[2]
    assert max(lengths) <= T - 16
    assert lengths[-1] == lengths[-2] > lengths[0]
    assert dialog.forgotten > 0
    dialog.reset()
    assert len(dialog.ask("q").ids) == lengths[0]


def test_an_empty_answer_takes_the_question_back() -> None:
    dialog = Dialog(TOKENIZER, TEMPLATE, T, reserve=16, system="t")
    first = dialog.ask("q").ids
    dialog.answered("")
    assert dialog.ask("q").ids == first


def test_a_message_longer_than_the_context_is_refused_and_forgotten() -> None:
    dialog = Dialog(TOKENIZER, TEMPLATE, T, reserve=16)
    with pytest.raises(MakegptError, match="80 fit before an answer"):
        dialog.ask("long " * 40)
    with pytest.raises(MakegptError, match="is empty"):
        dialog.ask(" ")
    assert len(dialog.ask("q").ids) < 40


def test_the_command_answers_a_message_a_file_and_a_conversation(run: Path, stage: Stage, tmp_path: Path) -> None:
    few = ("--temperature", 0, "--max-new-tokens", 8)
    answer = stage("generate", run, "--chat", "q", *few).stdout
    lines = ['"q"', '{"id": 5, "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]}']
    (tmp_path / "asked.jsonl").write_text("\n".join(lines), encoding="utf-8")
    answers = [
        json.loads(line)
        for line in stage("generate", run, "--chat", "--json", "--prompts", tmp_path / "asked.jsonl", *few).stdout.splitlines()
    ]
    assert [one["text"] + "\n" for one in answers] == [answer, answer]
    assert answers[1]["id"] == 5
    other = stage("generate", run, "--chat", "q", "--system", "other", *few).stdout
    assert other == stage("generate", run, "--chat", "-", "--system", "other", *few, input="q\n").stdout
    talk = stage("generate", run, "--chat", *few, input="q\n\nq\n/reset\nq\n")
    assert talk.stdout.startswith(answer)
    assert talk.stdout.endswith(answer)
    assert "message 3, of the user, is empty" in talk.stderr


def test_a_model_that_only_continues_texts_says_so(small: Path, here: Here) -> None:
    assert "has no chat template" in here("generate", small / "run", "--chat", "Hi", code=1).err
    assert "--system goes with --chat" in here("generate", small / "run", "--system", "Hi", code=2).err
    with pytest.raises(MakegptError, match="has no chat template"):
        Model.from_run(small / "run", device="cpu").answer("Hi")


def test_a_damaged_template_in_a_run_is_refused(copied: Path) -> None:
    config = copied / "run" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"chat": {"template": "none"}}))
    with pytest.raises(MakegptError, match="chat: it must name a chat template"):
        read_chat_template(copied / "run")


def test_what_is_no_message_is_refused(run: Path, here: Here) -> None:
    assert "the message: message 1, of the user, is empty" in here("generate", run, "--chat", " ", code=1).err
    assert "leave -o" in here("generate", run, "--chat", "-o", run.parent / "x.txt", code=2).err
    assert "is for texts" in here("generate", run, "--chat", "q", "--from-endoftext", code=2).err
