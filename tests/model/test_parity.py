"""The whole model and its optimizer against other implementations."""

import copy

import pytest
import torch

from lib.model.loss import cross_entropy
from lib.model.registry import build_model
from lib.train.muon import MOMENTUM, Muon, newton_schulz
from lib.train.optimizer import naive_adamw
from tests.model.test_formulas import config_of

V, T, C, H, LAYERS = 211, 32, 48, 4, 3


def test_naive_adamw_is_pytorchs() -> None:
    settings = {"beta1": 0.9, "beta2": 0.95, "weight_decay": 0.1}
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(7, 5, generator=generator)
    theirs = torch.nn.Parameter(weight.clone())
    optimizer = torch.optim.AdamW([theirs], lr=0.0, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    mean, square = torch.zeros_like(weight), torch.zeros_like(weight)
    for step in range(1, 30):
        gradient = torch.randn(7, 5, generator=generator) * 10.0 ** (step % 5 - 2)
        theirs.grad = gradient.clone()
        optimizer.param_groups[0]["lr"] = lr = 0.01 * step
        optimizer.step()
        weight, mean, square = naive_adamw(weight, gradient, mean, square, step, lr=lr, **settings)
        torch.testing.assert_close(weight, theirs.data, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(24, 24), (12, 40), (40, 12)])
def test_newton_schulz_makes_the_singular_values_nearly_one_and_keeps_their_directions(shape: tuple[int, int]) -> None:
    # in float64: float32 has few digits of a small singular value, and they differ between processors
    gradient = torch.randn(*shape, generator=torch.Generator().manual_seed(1)).double()
    u, _, v = torch.linalg.svd(gradient, full_matrices=False)
    orthogonal = newton_schulz(gradient)
    values = torch.linalg.svdvals(orthogonal)
    assert values.min() > 0.6
    assert values.max() < 1.3
    # in the basis of the singular vectors it is diagonal
    torch.testing.assert_close(u.T @ orthogonal @ v.T, torch.diag(torch.diag(u.T @ orthogonal @ v.T)), atol=1e-9, rtol=0)


@pytest.mark.parametrize("shape", [(24, 24), (12, 40), (40, 12)])
def test_muon_is_pytorchs_except_for_its_bfloat16(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(*shape, generator=generator)
    ours, theirs = torch.nn.Parameter(weight.clone()), torch.nn.Parameter(weight.clone())
    our_muon = Muon([{"params": [ours], "lr": 0.02, "weight_decay": 0.1}])
    their_muon = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw")
    for _ in range(10):
        gradient = torch.randn(*shape, generator=generator)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        our_muon.step()
        their_muon.step()
    update, expected = (ours - weight).flatten(), (theirs - weight).flatten()
    assert torch.cosine_similarity(update, expected, dim=0) > 0.999
    assert abs(update.norm() / expected.norm() - 1) < 0.02


@pytest.fixture(scope="module")
def theirs() -> torch.nn.Module:
    """GPT-2 of `transformers` with random weights, without dropout."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: make setup EXTRAS=dev,parity")
    config = transformers.GPT2Config(
        vocab_size=V, n_positions=T, n_embd=C, n_layer=LAYERS, n_head=H, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
    )
    torch.manual_seed(1)
    model = transformers.GPT2LMHeadModel(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.2)  # far from the initial weights, also biases and norms
    return model  # type: ignore[no-any-return]


#: Our names -> theirs, in a block; their matrices are (in, out), ours (out, in).
BLOCK = {
    "norm1.scale": "ln_1.weight",
    "norm1.shift": "ln_1.bias",
    "attention.W_qkv.weight": "attn.c_attn.weight",
    "attention.W_qkv.bias": "attn.c_attn.bias",
    "attention.out_proj.weight": "attn.c_proj.weight",
    "attention.out_proj.bias": "attn.c_proj.bias",
    "norm2.scale": "ln_2.weight",
    "norm2.shift": "ln_2.bias",
    "feed_forward.expand.weight": "mlp.c_fc.weight",
    "feed_forward.expand.bias": "mlp.c_fc.bias",
    "feed_forward.contract.weight": "mlp.c_proj.weight",
    "feed_forward.contract.bias": "mlp.c_proj.bias",
}
NAMES = {
    "tok_emb.weight": "transformer.wte.weight",
    "pos_emb.weight": "transformer.wpe.weight",
    "final_norm.scale": "transformer.ln_f.weight",
    "final_norm.shift": "transformer.ln_f.bias",
} | {f"blocks.{n}.{ours}": f"transformer.h.{n}.{their}" for n in range(LAYERS) for ours, their in BLOCK.items()}


def as_ours(name: str, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.T if "blocks" in name and tensor.dim() == 2 else tensor


@pytest.mark.parametrize("impl", ["naive", "fused"])
def test_gpt_is_the_gpt_2_of_transformers(theirs: torch.nn.Module, impl: str) -> None:
    config = config_of(
        "gpt2_small",
        vocab_size=V,
        context_length=T,
        emb_dim=C,
        n_heads=H,
        n_layers=LAYERS,
        attention_impl=impl,
        layer_impl=impl,
    )
    ours = build_model(config)
    their_weights = dict(theirs.named_parameters())
    assert {name for name, _ in ours.named_parameters()} == set(NAMES)
    assert set(their_weights) == set(NAMES.values())
    with torch.no_grad():
        for name, weight in ours.named_parameters():
            weight.copy_(as_ours(name, their_weights[NAMES[name]]))
    ids = torch.randint(0, V, (3, T), generator=torch.Generator().manual_seed(2))

    their_model = copy.deepcopy(theirs)
    output = their_model(ids, labels=ids)
    output.loss.backward()
    logits = ours(ids)
    loss = cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()) / (3 * (T - 1))
    loss.backward()  # type: ignore[no-untyped-call]

    torch.testing.assert_close(logits, output.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(loss, output.loss, rtol=1e-5, atol=1e-5)
    their_gradients = {name: weight.grad for name, weight in their_model.named_parameters()}
    for name, weight in ours.named_parameters():
        torch.testing.assert_close(
            weight.grad, as_ours(name, their_gradients[NAMES[name]]), rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )
