"""A GPT that may copy from its context: its distribution, its loss written out and in chunks, and its cache."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lib.data.dataset import Dataset
from lib.errors import UsageError
from lib.generate.batch import TokenSequence
from lib.generate.engine import generate_tokens
from lib.generate.quantize import InferenceModel
from lib.model import mixture
from lib.model.loss import SoftTargets, naive_cross_entropy
from lib.model.mixture import Copied, linear_mixture_loss, log_mixture, naive_mixture_loss
from lib.model.packing import PackedTargets, Packing
from lib.model.pointer import Pointer, PointerGPT
from lib.model.registry import build_model
from lib.train.tasks import check_task
from tests.model.test_formulas import config_of
from tests.train.test_learning import config, trainer


def model_of(**changes: Any) -> PointerGPT:
    model = build_model(config_of("debug", kind="pointer", **changes))
    model.initialize(torch.Generator().manual_seed(1))
    assert isinstance(model, PointerGPT)
    with torch.no_grad():  # so that it copies something
        model.pointer.gate_bias.fill_(0.5)
        model.pointer.W_query.weight *= 20
        model.pointer.W_key.weight *= 20
    return model.eval()


def ids_of(rows: int, length: int, vocab_size: int) -> Tensor:
    return torch.randint(vocab_size, (rows, length), generator=torch.Generator().manual_seed(2))


def test_what_followed_the_place_it_looks_at_is_copied() -> None:
    pointer = Pointer(2, 2)
    with torch.no_grad():
        pointer.W_query.weight.copy_(torch.eye(2))
        pointer.W_key.weight.copy_(torch.eye(2) * 100)
        pointer.gate_bias.fill_(math.log(3))  # sigmoid: 3/4
    x = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])  # the last position looks like the first
    copied = pointer(x, pointer.W_key(x), torch.tensor([[7, 8, 7]]))
    p = torch.zeros(10).scatter_add(0, copied.ids[0, 2], copied.weights[0, 2])
    assert p[8].item() == pytest.approx(0.75)  # what followed the first 7
    assert copied.kept[0].tolist() == pytest.approx([1.0, 0.25, 0.25])  # nothing precedes the first


@pytest.mark.parametrize("design", [{}, {"positions": "rotary", "n_kv_heads": 1}, {"tie_weights": True}])
def test_its_probabilities_sum_to_one_and_never_depend_on_what_follows(design: dict[str, Any]) -> None:
    model = model_of(**design)
    ids = ids_of(2, 20, model.vocab_size)
    changed = ids.clone()
    changed[:, 12] += 1
    with torch.no_grad():
        log_p, others = model(ids), model(changed % model.vocab_size)
    assert torch.allclose(log_p.exp().sum(dim=-1), torch.ones(2, 20), atol=1e-5)
    assert torch.equal(log_p[:, :12], others[:, :12])
    assert not torch.equal(log_p[:, 12:], others[:, 12:])


def losses_of(rows: int, soft: SoftTargets | None, loss: object, *, copies: int = 1) -> list[Tensor]:
    """The loss of random numbers and its gradients of features, head, copies and what is kept."""
    draw = torch.Generator().manual_seed(3)
    x, weight = (torch.randn(n, 6, generator=draw).requires_grad_() for n in (rows, 11))
    weights = (torch.rand(rows, 5, generator=draw) * 0.1).requires_grad_()
    kept = (1 - weights.sum(dim=-1)).detach().requires_grad_()
    ids, targets = torch.randint(10, (rows, 5), generator=draw), torch.randint(10, (rows,), generator=draw)
    if loss is naive_mixture_loss:
        logits = x @ weight.T
        logits = torch.cat([logits[:, :-1], logits[:, -1:] + math.log(copies)], dim=-1)
        total = naive_mixture_loss(logits, targets, Copied(ids, weights, kept), soft)
    else:
        total = linear_mixture_loss(x, weight, targets, Copied(ids, weights, kept), soft, copies)
    return [total, *torch.autograd.grad(2 * total, (x, weight, weights, kept))]


@pytest.mark.parametrize("copies", [1, 7])
@pytest.mark.parametrize("share", [None, 0.7, 1.0])
def test_the_loss_in_chunks_is_the_one_written_out(share: float | None, copies: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixture, "LOGITS_AT_ONCE", 44)  # four rows
    rows = torch.rand(9, 11, generator=torch.Generator().manual_seed(4)).softmax(dim=-1)
    soft = None if share is None else SoftTargets(rows, share)
    naive, chunked = (losses_of(9, soft, loss, copies=copies) for loss in (naive_mixture_loss, linear_mixture_loss))
    for expected, result in zip(naive, chunked, strict=True):
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)


def test_without_copies_it_is_the_cross_entropy() -> None:
    logits, targets = torch.randn(5, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 3, 7, 7, 2])
    nothing = Copied(torch.zeros(5, 2, dtype=torch.long), torch.zeros(5, 2), torch.ones(5))
    torch.testing.assert_close(naive_mixture_loss(logits, targets, nothing), naive_cross_entropy(logits, targets))
    torch.testing.assert_close(log_mixture(logits, nothing), logits.log_softmax(dim=-1))


@pytest.mark.parametrize("design", [{}, {"layer_impl": "naive"}, {"tie_weights": True}])
def test_its_loss_is_that_of_its_probabilities(design: dict[str, Any]) -> None:
    model = model_of(**design)
    ids = ids_of(3, 17, model.vocab_size)
    log_p = model(ids[:, :-1])
    expected = -log_p.gather(-1, ids[:, 1:, None]).sum()
    loss = model.loss(ids[:, :-1], ids[:, 1:])
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-4)
    for name, weight in model.named_parameters():
        a, b = (torch.autograd.grad(total, weight, retain_graph=True)[0] for total in (expected, loss))
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("design", [{}, {"positions": "rotary", "n_kv_heads": 1}])
def test_the_cache_gives_the_logits_of_the_whole_text(design: dict[str, Any]) -> None:
    model = model_of(**design)
    ids = ids_of(2, 12, model.vocab_size)
    caches = [model.cache(12), model.cache(12)]
    with torch.inference_mode():
        model.next_token_logits(ids[:1, :4], caches[:1])
        model.next_token_logits(ids[1:, :7], caches[1:])
        for t in range(3):
            new = torch.stack([ids[0, 4 + t], ids[1, 7 + t]])[:, None]
            logits = model.next_token_logits(new, caches)
            for row, end in ((0, 5 + t), (1, 8 + t)):
                whole = model(ids[row : row + 1, :end])[0, -1]
                torch.testing.assert_close(logits[row], whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_it_generates_the_same_text_with_a_cache_and_without(weights: str) -> None:
    model = InferenceModel(model_of(), weights)
    greedy = config("generate.max_new_tokens=30", "generate.temperature=0").generate
    texts = []
    for cached in (True, False):
        sequences = [TokenSequence([1, 2, 3], greedy), TokenSequence([9], greedy)]
        for _ in generate_tokens(model, sequences, torch.device("cpu"), cached=cached):
            pass
        texts.append([sequence.tokens for sequence in sequences])
    assert texts[0] == texts[1]


def test_parts_of_windows_are_refused() -> None:
    model = model_of()
    ids = ids_of(1, 9, model.vocab_size)
    packed = PackedTargets(Packing(torch.zeros(1, 8, dtype=torch.long)), torch.ones(1, 8, dtype=torch.bool))
    with pytest.raises(UsageError, match=r"running text, not from conversations; use model\.kind=gpt"):
        model.loss(ids[:, :-1], ids[:, 1:], packed=packed)


@pytest.mark.parametrize("task", ["classify", "dpo", "grpo"])
def test_a_task_that_reads_parts_of_windows_is_refused(task: str, small: Path) -> None:
    chosen = config("model.kind=pointer", f"train.task={task}")
    with pytest.raises(UsageError, match=r"model\.kind=pointer learns from running text"):
        check_task(chosen.train, chosen.model, Dataset(small / "dataset"), None)


def test_it_learns_to_copy_what_no_head_could_know() -> None:
    """Random tokens, twice in each window: the second time all but the first of them can be known."""
    model = model_of(emb_dim=32, n_heads=4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    half = model.context_length // 2
    draw = torch.Generator().manual_seed(5)
    for _ in range(150):
        once = torch.randint(model.vocab_size, (16, half), generator=draw)
        ids = torch.cat([once, once], dim=1)
        optimizer.zero_grad()
        model.loss(ids[:, :-1], ids[:, 1:]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        log_p = model(ids[:, :-1]).gather(-1, ids[:, 1:, None])[..., 0]
    assert -log_p[:, half:].mean() < 0.5 * math.log(model.vocab_size)


def test_it_is_trained_by_the_stages(small: Path) -> None:
    taught = trainer(
        small, "model.kind=pointer", "train.counts_share=0.5", "train.counts_cache=true", "train.head_init=unigram"
    )
    before = taught.validate().loss
    for _ in range(10):
        taught.train_step()
    assert taught.validate().loss < before
