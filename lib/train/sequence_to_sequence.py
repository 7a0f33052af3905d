"""Translation: the target that belongs to a source, token by token, by an encoder-decoder.

In training the decoder reads the right target, whatever it would have written itself (teacher forcing), so all its tokens are
learned at once.

B pairs, S tokens of the longest source, T of the longest target with the end after it
"""

from typing import Any, Sequence

import torch

from lib.data.parallel import ParallelBatch
from lib.errors import UsageError
from lib.generate.request import Prompt, encode_prompt
from lib.model.encoder_decoder import EncoderDecoder
from lib.model.registry import matmul_operations
from lib.tokenizer.base import Tokenizer
from lib.train.objective import BatchLoss, Objective, Start, Validation

_PAIRS_AT_ONCE = 64  # in a validation


class SequenceToSequence(Objective):
    """Cross-entropy of the targets' tokens and ends, in nats/token."""

    def _prepare(self, start: Start | None) -> None:
        assert self.dataset.parallel is not None
        assert isinstance(self._model, EncoderDecoder)
        self._network, self._pairs = self._model, self.dataset.parallel
        self._train, self._val = self._pairs.numbers("train"), self._pairs.numbers("val")

    @property
    def tokens_per_step(self) -> int:
        """Of sources and targets, on average: the pairs differ in length."""
        return round(self.config.batch_size * self.dataset.train_tokens / len(self._train))

    @property
    def operations_per_token(self) -> int:
        """Without the scores of attention: the texts are short. The encoder computes the sources, the rest the targets."""
        targets = self._pairs.target_tokens(self._train) / (self.dataset.train_tokens + len(self._train))
        encoder, all_weights = matmul_operations(self._network.encoder), matmul_operations(self._network)
        return round(encoder * (1 - targets) + (all_weights - encoder) * targets)

    def terms(self, step: int) -> int:
        return self._pairs.target_tokens(self._numbers(step))

    def _numbers(self, step: int) -> Sequence[int]:
        """The numbers of the pairs of batch `step`."""
        places = self.dataset.window_numbers(self.config.seed, step, self.config.batch_size)
        return self._train[places].tolist()

    def loss(self, step: int, rows: range) -> BatchLoss:
        batch = self.dataset.parallel_batch(self.config.seed, step, self.config.batch_size, rows)
        return self._loss(batch, self.config.label_smoothing)

    def _loss(self, batch: ParallelBatch, smoothing: float = 0.0) -> BatchLoss:
        """The summed loss of some pairs."""
        source, source_lengths, target, target_lengths = (torch.from_numpy(part).to(self.device) for part in batch)
        ids, targets = target[:, :-1], target[:, 1:]  # (B, T) each
        is_learned = torch.arange(targets.shape[1], device=self.device) < target_lengths[:, None]
        x = self._network.decode(ids, [self._network.encode(source, source_lengths)])[is_learned]  # (N, C)
        return BatchLoss(self._network.head_loss(x, targets[is_learned], self._network.smooth(len(x), smoothing)))

    @torch.inference_mode()
    def validate(self) -> Validation:
        self._model.eval()
        groups = [self._val[at : at + _PAIRS_AT_ONCE] for at in range(0, len(self._val), _PAIRS_AT_ONCE)]
        mine = self.group.share(len(groups))
        nats = sum(self._loss(self._pairs.batch(group)).loss.item() for group in groups[mine.start : mine.stop])
        self._model.train()
        return Validation(self._means({"loss": nats}, self._pairs.target_tokens(self._val))["loss"])

    def describe_batch(self, step: int) -> Any:
        return self._numbers(step)

    def sample_prompt(self, tokenizer: Tokenizer) -> Prompt:
        """The source `train.sample_prompt`, or the first one for validation."""
        text = self.config.sample_prompt or tokenizer.decode(self._pairs.source(int(self._val[0])).tolist())
        prompt = encode_prompt(tokenizer, text, name="train.sample_prompt", is_source=True)
        if len(prompt.source) > self._network.context_length:
            raise UsageError(
                f"train.sample_prompt has {len(prompt.source)} tokens, more than the model's context of "
                f"{self._network.context_length}; give a shorter source"
            )
        return prompt
