"""Training as everybody writes it first: zero_grad, forward, backward, step.

`lib.train.trainer` does the same arithmetic, and also accumulates gradients, sums them over processes, lowers precision,
scales losses and stops at a number that is not finite. A test holds the losses of both equal.

B batch, T time, V vocabulary
"""

from typing import Iterator

import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from lib.config.schema import TrainConfig
from lib.data.dataset import Dataset
from lib.model.language_model import LanguageModel
from lib.train.schedule import learning_rate


def train_naive(model: LanguageModel, dataset: Dataset, config: TrainConfig) -> Iterator[float]:
    """Train `model` with AdamW in float32 on the CPU; yield the loss of each step, in nats/token.

    One learning rate for all weights (`config.embedding_lr_mult` is 1), no dropout, no gradient accumulation.
    """
    matrices = [weight for weight in model.parameters() if weight.dim() >= 2]
    biases_and_norms = [weight for weight in model.parameters() if weight.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": config.weight_decay}, {"params": biases_and_norms, "weight_decay": 0.0}],
        betas=(config.beta1, config.beta2),
    )
    model.train()
    for step in range(config.max_steps):
        ids = torch.from_numpy(dataset.batch(config.seed, step, config.batch_size).astype("int64"))  # (B, T + 1)
        inputs, targets = ids[:, :-1], ids[:, 1:]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config)

        optimizer.zero_grad()
        logits = model(inputs)  # (B, T, V)
        loss = cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        clip_grad_norm_(model.parameters(), config.grad_clip)
        optimizer.step()
        yield loss.item()
