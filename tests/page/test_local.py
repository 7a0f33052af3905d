"""The backend of an exported page: the same answers as the server's, computed in the page."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lib.evaluate.analysis import Alternative, LayerView, analyze
from lib.page.export import export_page
from lib.page.weights import pack
from lib.run.folder import load_run
from lib.tokenizer.char import CharTokenizer
from lib.tokenizer.word import WordTokenizer
from tests.gguf.test_export import BPE, model_config, write_run
from tests.page.node import LOGITS, in_page, needs_node
from tests.page.test_model import CPU, LLAMA, MODELS, random_ids, write_page

TEXT = "to be, or naïve 1851"
ANALYZE = "return await backend.analyze(file.name, data.request);"


def same_alternatives(theirs: list[dict[str, Any]], ours: tuple[Alternative, ...]) -> None:
    assert [(one["id"], one["text"], bytes(one["bytes"])) for one in theirs] == [(a.id, a.text, a.content) for a in ours]
    np.testing.assert_allclose([one["probability"] for one in theirs], [a.probability for a in ours], rtol=1e-4)


def same_lens(theirs: list[dict[str, Any]], ours: tuple[LayerView, ...]) -> None:
    assert [(one["layer"], one["rank"]) for one in theirs] == [(view.layer, view.rank) for view in ours]
    for one, view in zip(theirs, ours, strict=True):
        same_alternatives(one["top"], view.top)
        assert (one["surprisal"] is None) == (view.surprisal is None)
        assert one["surprisal"] is None or abs(one["surprisal"] - (view.surprisal or 0)) < 1e-4


@needs_node
@pytest.mark.parametrize("name", ["gpt2", "llama", "sinusoidal, norms after, ReLU", "single_block", "n-grams", "pointer"])
def test_an_analysis_is_that_of_pytorch(tmp_path: Path, name: str) -> None:
    model, page = write_page(tmp_path, **MODELS[name])
    ids = BPE.encode(TEXT)
    request = {
        "prompt": TEXT,
        "alternatives": 7,
        "lens": True,
        "attention": True,
        "counts": True,
        "memorized": True,
        "full": True,
    }
    found = in_page(page, ANALYZE, tmp_path, request=request)
    ours = analyze(model, BPE, ids, CPU, alternatives=7, lens=True, attention=True, full=True)
    assert {name: found[name] for name in ("object", "model", "unit")} == {"object": "analysis", "model": "run", "unit": "nats"}
    for theirs, token in zip(found["tokens"], ours.tokens, strict=True):
        assert (theirs["id"], theirs["text"], bytes(theirs["bytes"]), theirs["rank"]) == (
            token.id, token.text, token.content, token.rank,
        )  # fmt: skip
        if token.prediction is None:
            assert theirs["surprisal"] is theirs["entropy"] is theirs["alternatives"] is None
            continue
        assert abs(theirs["surprisal"] - (token.surprisal or 0)) < 1e-4
        assert abs(theirs["entropy"] - token.prediction.entropy) < 1e-4
        same_alternatives(theirs["alternatives"], token.prediction.alternatives)
        same_lens(theirs["lens"], token.prediction.lens or ())
    assert abs(found["next"]["entropy"] - ours.next.entropy) < 1e-4
    same_alternatives(found["next"]["alternatives"], ours.next.alternatives)
    same_lens(found["next"]["lens"], ours.next.lens or ())
    assert ours.logits is not None
    np.testing.assert_allclose(found["next"]["logits"], ours.logits.numpy(), atol=1e-4)
    for weights, layer in zip(found["attention"], ours.attention or (), strict=True):
        np.testing.assert_allclose(weights, layer.numpy(), atol=1e-5)
    assert "not hold the counts" in found["counts_missing"]
    assert "not hold the training text" in found["memorized_missing"]


@needs_node
def test_what_is_not_asked_for_is_absent(tmp_path: Path) -> None:
    _, page = write_page(tmp_path, **LLAMA)
    found = in_page(page, ANALYZE, tmp_path, request={"prompt": TEXT})
    assert found.keys() == {"object", "model", "unit", "tokens", "next"}
    assert found["tokens"][1].keys() == {"id", "text", "bytes", "surprisal", "rank", "entropy", "alternatives"}
    assert len(found["tokens"][1]["alternatives"]) == 10


@needs_node
@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"prompt": "a" * 33}, "The text has 33 tokens, and the model a context of 32; give it the last 32."),
        ({"prompt": "a" * 10001}, "The text has 10001 characters; this page takes up to 10000."),
        ({"prompt": ""}, "The text has no tokens"),
        ({"prompt": [270]}, "The id 270 is not in the vocabulary of 270 tokens, 0 to 269."),
        ({"prompt": [-1]}, "The id -1 is not"),
        ({"prompt": [0.5]}, "The id 0.5 is not"),
        ({"prompt": TEXT, "lens": True}, "a bigram, which has no blocks"),
        ({"prompt": TEXT, "attention": True}, "a bigram, which has no attention"),
    ],
)
def test_what_cannot_be_analyzed_is_an_error_in_words(tmp_path: Path, request_: dict[str, Any], message: str) -> None:
    _, page = write_page(tmp_path, **MODELS["bigram"])
    code = "try { await backend.analyze(file.name, data.request); } catch (error) { return error.message; } return null;"
    assert message in in_page(page, code, tmp_path, request=request_)


@needs_node
def test_the_model_is_described_as_the_server_does(tmp_path: Path) -> None:
    model, page = write_page(tmp_path, **LLAMA)
    (found,) = in_page(page, "return await backend.models();", tmp_path)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert found == {
        "id": "run", "context_length": 32, "vocab_size": 270, "chat": False, "kind": "gpt", "layers": 2, "heads": 4,
        "parameters": parameters,
    }  # fmt: skip


WRITE = """
const write = async (sampling, signal, stopAt = Infinity) => {
  const tokens = [];
  const onToken = (token) => { tokens.push(token); if (tokens.length === stopAt) stop.abort(); };
  const end = await backend.complete(file.name, data.prompt, sampling, {signal, onToken}).catch((error) => error.name);
  return {tokens, end};
};
const stop = new AbortController();
"""


@needs_node
def test_a_seed_gives_the_same_text_again_and_tokens_are_scored_by_the_model_alone(tmp_path: Path) -> None:
    model, page = write_page(tmp_path, **LLAMA)
    sampling = {"temperature": 0.9, "top_k": 50, "top_p": 0.9, "min_p": None, "seed": 3, "max_tokens": 20}
    code = WRITE + "const all = []; for (const seed of [3, 3, 4]) all.push(await write({...data.sampling, seed})); return all;"
    prompt = BPE.encode(TEXT)
    first, again, other = in_page(page, code, tmp_path, prompt=prompt, sampling=sampling)
    assert first == again
    assert [token["id"] for token in first["tokens"]] != [token["id"] for token in other["tokens"]]
    assert first["end"] in ("length", "end_of_text")
    ids = prompt + [token["id"] for token in first["tokens"]]
    scored = analyze(model, BPE, ids[:32], CPU, alternatives=5).tokens[len(prompt) :]
    for theirs, token in zip(first["tokens"], scored, strict=False):
        assert (theirs["rank"], bytes(theirs["bytes"]), theirs["text"]) == (token.rank, token.content, token.text)
        assert abs(theirs["surprisal"] - (token.surprisal or 0)) < 1e-4
        assert token.prediction is not None
        same_alternatives(theirs["alternatives"], token.prediction.alternatives)


@needs_node
def test_an_aborted_text_ends_and_the_next_one_is_not_disturbed(tmp_path: Path) -> None:
    _, page = write_page(tmp_path, **LLAMA)
    code = (
        WRITE
        + """
    const stopped = await write({temperature: 0, max_tokens: 1000}, stop.signal, 9);
    const [one, two] = await Promise.all([1, 2].map(() => write({temperature: 0, max_tokens: 9})));
    return {stopped, one, two};
    """
    )
    found = in_page(page, code, tmp_path, prompt=BPE.encode(TEXT))
    assert found["stopped"]["end"] == "AbortError"
    assert found["stopped"]["tokens"] == found["one"]["tokens"] == found["two"]["tokens"]


@needs_node
def test_a_text_is_shown_in_the_tokens_of_the_model_and_in_bytes(tmp_path: Path) -> None:
    _, page = write_page(tmp_path, **LLAMA)
    own, in_bytes = in_page(page, 'return backend.tokenizations("naïve");', tmp_path)
    assert [token["id"] for token in own["tokens"]] == BPE.encode("naïve")
    assert bytes(token["id"] for token in in_bytes["tokens"]) == "naïve".encode()
    assert [token["text"] for token in in_bytes["tokens"]] == ["n", "a", r"\xc3", r"\xaf", "v", "e"]


@needs_node
def test_the_bytes_of_words_have_the_spaces_between_them(tmp_path: Path) -> None:
    tokenizer = WordTokenizer(["be", "to", "<|endoftext|>", "<unk>"])
    write_run(tmp_path / "run", tokenizer, model_config(tokenizer, **LLAMA))
    page = export_page(tmp_path / "run").html
    words, _ = in_page(page, 'return backend.tokenizations("to be");', tmp_path)
    assert [bytes(token["bytes"]) for token in words["tokens"]] == [b"to", b" be"]


@needs_node
def test_a_tokenizer_that_cannot_encode_a_text_says_why(tmp_path: Path) -> None:
    tokenizer = CharTokenizer("ab")
    write_run(tmp_path / "run", tokenizer, model_config(tokenizer, **LLAMA))
    own, in_bytes = in_page(export_page(tmp_path / "run").html, 'return backend.tokenizations("abc");', tmp_path)
    assert own == {"name": "char", "error": '"c" at position 2 is not among the 2 tokens of this model; leave it out'}
    assert len(in_bytes["tokens"]) == 3


@needs_node
def test_only_what_is_new_in_a_text_is_computed(tmp_path: Path) -> None:
    """One token more is one step of the model; a change in the middle, those from there on. The numbers are the same."""
    _, page = write_page(tmp_path, **LLAMA)
    code = """
    const next = gpt_module.GPT.prototype.next;
    let steps = 0;
    gpt_module.GPT.prototype.next = function (...words) { steps++; return next.apply(this, words); };
    const all = [];
    for (const prompt of data.texts) {
      steps = 0;
      const again = await backend.analyze(file.name, {prompt, full: true});
      const needed = steps;
      const fresh = await local_module.localBackend(file, tensors).analyze(file.name, {prompt, full: true});
      all.push([needed, JSON.stringify(again) === JSON.stringify(fresh)]);
    }
    return all;
    """
    ids = random_ids(32)
    changed = [*ids[:10], 3, *ids[11:20]]
    texts = [ids[:20], ids[:21], changed, changed[:5], ids[:31], ids, ids]
    found = in_page(page, code, tmp_path, texts=texts)
    assert [same for _, same in found] == [True] * len(texts)
    assert [steps for steps, _ in found] == [20, 1, 10, 0, 26, 1, 0]


@needs_node
@pytest.mark.parametrize(("weights", "tolerance"), [("float16", 2e-2), ("int8", 0.3)])
def test_fewer_bits_are_the_numbers_that_the_error_is_measured_with(tmp_path: Path, weights: str, tolerance: float) -> None:
    write_run(tmp_path / "run", BPE, model_config(BPE, **LLAMA))
    model = load_run(tmp_path / "run", CPU).model
    page = export_page(tmp_path / "run", weights)
    assert 0 <= page.metadata["more_bits_per_byte"] < 0.1
    found = in_page(
        page.html, "return Object.fromEntries(Object.entries(tensors).map(([n, t]) => [n, [...t.data]]));", tmp_path
    )
    rounded = {name: pack(name, tensor, weights).rounded for name, tensor in model.named_parameters()}
    assert found.keys() == rounded.keys()
    for name, tensor in rounded.items():
        assert found[name] == tensor.flatten().tolist(), name
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            np.testing.assert_allclose(rounded[name].numpy(), parameter.numpy(), atol=tolerance * float(parameter.abs().max()))
            parameter.copy_(rounded[name])
    ids = BPE.encode(TEXT)
    with torch.inference_mode():
        np.testing.assert_allclose(
            in_page(page.html, LOGITS, tmp_path, ids=ids), model(torch.tensor([ids]))[0].numpy(), atol=1e-4
        )
