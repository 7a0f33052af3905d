"""What TRL makes of the same log-probabilities: its loss and its metrics, by a trainer that has nothing but what they need.

python -m tests.train.trl_dpo > tests/train/dpo.json    writes the goldens, with TRL 1.16.0
"""

import json
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

BETA = 0.3


def random_log_probs() -> tuple[Tensor, Tensor]:
    """ln p of each of at most 9 tokens of 5 chosen and 5 rejected answers, by a model and a reference; 0 after their ends."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(2, 10, (10, 1), generator=generator)
    logits = torch.randn(2, 10, 9, 7, generator=generator)
    tokens = torch.randint(7, (10, 9, 1), generator=generator)
    log_probs = logits.log_softmax(-1).gather(-1, tokens.expand(2, -1, -1, -1))[..., 0]
    return tuple(log_probs * (torch.arange(9) < lengths))  # type: ignore[return-value]


def trl_dpo(policy: Tensor, reference: Tensor) -> dict[str, Any]:
    """The loss, its gradient by the model's log-probabilities, and the metrics, as TRL computes them."""
    from trl.trainer.dpo_trainer import DPOTrainer

    policy = policy.clone().requires_grad_()
    mask = torch.ones(10, 10, dtype=torch.long)  # of the inputs, one token longer
    outputs = SimpleNamespace(
        log_probs=policy,
        **{name: torch.zeros(10, 9) for name in ("entropy", "mean_logits")},
        is_top1=torch.zeros(10, 9, dtype=torch.bool),
    )
    metrics: dict[str, dict[str, list[float]]] = {"train": _Lists()}
    same = SimpleNamespace(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x)
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True), accelerator=same, aux_loss_enabled=False, ld_alpha=None,
        precompute_ref_logps=True, f_divergence_type="reverse_kl",
        loss_types=["sigmoid"], loss_weights=[1.0], beta=BETA, use_weighting=False,
        _metrics=metrics, _total_train_tokens=0, _tp_size=1,
    )  # fmt: skip
    chosen, rejected = reference.sum(dim=1).chunk(2)
    inputs = {
        "input_ids": mask, "attention_mask": mask, "completion_mask": mask,
        "ref_chosen_logps": chosen, "ref_rejected_logps": rejected,
    }  # fmt: skip
    loss = DPOTrainer._compute_loss(trainer, lambda **_: outputs, inputs, False)
    loss.backward()
    assert policy.grad is not None
    values = {name: value[0] for name, value in metrics["train"].items() if name.startswith(("rewards/", "logps/"))}
    return {"loss": loss.item(), "gradient": policy.grad[:, 0].tolist(), **values}


class _Lists(dict[str, list[float]]):
    def __missing__(self, name: str) -> list[float]:
        self[name] = []
        return self[name]


if __name__ == "__main__":
    import trl

    print(json.dumps({"trl": trl.__version__, **trl_dpo(*random_log_probs())}, indent=2))
