"""The models of an exported page compute what PyTorch does: logits, greedy texts, attention, every option."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lib.config.schema import GenerateConfig
from lib.errors import UsageError
from lib.generate.engine import generate_naive
from lib.model.language_model import LanguageModel
from lib.model.maps import attention_maps
from lib.page.export import export_page
from lib.run.folder import load_run
from tests.gguf.test_export import BPE, DESIGNS, LLAMA, SCALED, model_config, write_run
from tests.page.node import LOGITS, in_page, needs_node

CPU = torch.device("cpu")
T = 32

#: One design for each option that gpt.js has, besides those that GGUF files have too.
MODELS: dict[str, dict[str, Any]] = DESIGNS | {
    "sinusoidal, norms after, ReLU": {"positions": "sinusoidal", "norm_position": "post", "feed_forward": "relu"},
    "norms after, RMSNorm": {"norm": "rms", "norm_position": "post", "norm_eps": 1e-3},
    "grouped queries, normalized": {"n_kv_heads": 2, "qk_norm": True, "positions": "rotary"},
    "a window": {"window": 5},
    "strided": {"window": 5, "attention_pattern": "strided", "positions": "rotary"},
    "fixed": {"window": 8, "attention_pattern": "fixed", "summary_tokens": 2},
    "n-grams": LLAMA | {"ngram_order": 4, "ngram_rows": 53},
    "scaled angles, odd sizes": LLAMA | SCALED | {"emb_dim": 36, "n_heads": 3, "head_dim": 14, "ff_dim": 27},
    "bigram": {"kind": "bigram", "n_heads": 1, "n_layers": 1},
    "single_head": {"kind": "single_head", "n_heads": 1, "n_layers": 1, "qkv_bias": True},
    "multi_head": {"kind": "multi_head", "n_layers": 1},
    "single_block": {"kind": "single_block", "n_layers": 1},
    "pointer": {"kind": "pointer"} | LLAMA,
    "pointer with n-grams": {"kind": "pointer", "ngram_order": 2, "ngram_rows": 20, "tie_weights": True},
}


def write_page(folder: Path, **options: Any) -> tuple[LanguageModel, str]:
    """A run with random weights in folder/run: its model, and its page."""
    write_run(folder / "run", BPE, model_config(BPE, **options))
    return load_run(folder / "run", CPU).model, export_page(folder / "run").html


def random_ids(count: int) -> list[int]:
    ids: list[int] = torch.randint(BPE.vocab_size - 1, (count,), generator=torch.Generator().manual_seed(0)).tolist()
    return ids


@needs_node
@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_logits_are_those_of_pytorch_within_1e_4(tmp_path: Path, options: dict[str, Any]) -> None:
    model, page = write_page(tmp_path, **options)
    ids = random_ids(T)
    found = in_page(page, LOGITS, tmp_path, ids=ids)
    with torch.inference_mode():
        np.testing.assert_allclose(found, model(torch.tensor([ids]))[0].numpy(), atol=1e-4, rtol=1e-5)


@needs_node
@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_200_greedy_tokens_are_those_of_generate(tmp_path: Path, options: dict[str, Any]) -> None:
    """The context is of 32 tokens, so the window slides too. A token may differ where the two best logits nearly tie."""
    model, page = write_page(tmp_path, **options)
    prompt = random_ids(7)
    sampling = {"temperature": 0, "max_tokens": 200}
    code = """
    const ids = [];
    const end = await backend.complete(file.name, data.prompt, data.sampling, {onToken: ({id}) => ids.push(id)});
    return {ids, end};
    """
    found = in_page(page, code, tmp_path, prompt=prompt, sampling=sampling)
    config = GenerateConfig(
        prompt=None, max_new_tokens=200, temperature=0.0, top_k=None, top_p=None, min_p=None, repetition_penalty=1.0, seed=0
    )
    ours = list(generate_naive(model, prompt, config, CPU, end=BPE.endoftext))
    theirs = found["ids"] + ([BPE.endoftext] if found["end"] == "end_of_text" else [])
    if theirs != ours:
        place = next(n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b)
        ids = [*prompt, *ours[:place]][-T:]
        with torch.inference_mode():
            second, best = model.next_token_logits(torch.tensor([ids]))[0].sort().values[-2:].tolist()
        assert best - second < 2e-4, f"token {place} differs"
    assert found["end"] == ("end_of_text" if ours[-1] == BPE.endoftext else "length")


@needs_node
@pytest.mark.parametrize("name", ["gpt2", "fixed", "single_head", "multi_head", "n-grams", "pointer"])
def test_attention_is_that_of_pytorch(tmp_path: Path, name: str) -> None:
    model, page = write_page(tmp_path, **MODELS[name])
    ids = random_ids(T)
    code = "return (await backend.analyze(file.name, {prompt: data.ids, attention: true})).attention;"
    found = in_page(page, code, tmp_path, ids=ids)
    for ours, theirs in zip(attention_maps(model, torch.tensor([ids])), found, strict=True):
        np.testing.assert_allclose(theirs, ours.numpy(), atol=1e-5)


@pytest.mark.parametrize(("kind", "options"), [("lstm", {"n_heads": 1}), ("encoder_decoder", {"n_layers": 1})])
def test_a_kind_that_the_page_does_not_compute_is_refused_with_those_that_it_does(
    tmp_path: Path, kind: str, options: dict[str, Any]
) -> None:
    write_run(tmp_path / "run", BPE, model_config(BPE, kind=kind, **options))
    with pytest.raises(UsageError, match=rf"model\.kind={kind}.* bigram, single_head, .*, gpt, pointer"):
        export_page(tmp_path / "run")
