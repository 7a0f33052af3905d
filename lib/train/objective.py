"""What a training minimizes: the loss of a batch, and of what is held out.

`lib.train.trainer` takes the steps and knows nothing of texts; an objective knows data and model and takes no steps.
Pretraining is one of them (`lib.train.next_token`).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Callable, Mapping

import torch
from torch import Tensor

from lib.config.schema import TrainConfig
from lib.data.dataset import Dataset
from lib.device.distributed import SINGLE_PROCESS, ProcessGroup
from lib.generate.request import Prompt, encode_prompt
from lib.model.language_model import LanguageModel
from lib.model.registry import count_operations
from lib.tokenizer.base import Tokenizer


@dataclass(frozen=True)
class BatchLoss:
    """Of some rows of a batch: the summed `loss`, with its graph, and sums of other numbers for metrics.jsonl."""

    loss: Tensor
    values: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Validation:
    """The mean loss on what is held out, and other means over it."""

    loss: float
    values: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Start:
    """What a training starts from: `model()`, loaded again, and, if it resumes, what it computed of that model."""

    model: Callable[[], LanguageModel]
    reference: dict[str, Tensor] | None = None


class Objective(ABC):
    """The loss of one training. All that concerns batch t is a function of (seed, t), so that a training resumes exactly."""

    #: Whether the model writes texts, so that samples of them make sense.
    writes_text = True

    #: Whether the model is compared with the one that the training starts from, so that there must be one.
    compares = False

    def __init__(
        self,
        model: LanguageModel,
        dataset: Dataset,
        config: TrainConfig,
        device: torch.device,
        group: ProcessGroup = SINGLE_PROCESS,
        start: Start | None = None,
    ) -> None:
        """`start`: needed by an objective that `compares`. UsageError if the objective cannot learn from `dataset`."""
        self._model = model.train()
        self.dataset = dataset
        self.config = config
        self.device = device
        self.group = group
        self._prepare(start)

    @abstractmethod
    def _prepare(self, start: Start | None) -> None:
        """Read and compute what all steps need."""

    @property
    def model(self) -> LanguageModel:
        """The whole model with the weights of this step, to be saved and sampled."""
        return self._model

    @property
    def trained(self) -> LanguageModel:
        """The model whose parameters are trained: `model`, or what stands for it in a step."""
        return self._model

    @property
    @abstractmethod
    def tokens_per_step(self) -> int:
        """Tokens that a batch puts through the model."""

    @property
    def operations_per_token(self) -> int:
        """Floating-point operations of a step for each of these tokens."""
        return count_operations(self.trained)

    @abstractmethod
    def terms(self, step: int) -> int:
        """How many terms the loss of the whole batch `step` (from 0) is the mean of."""

    @abstractmethod
    def loss(self, step: int, rows: range) -> BatchLoss:
        """The summed loss of these `rows` of batch `step` (from 0); there are `config.batch_size` rows."""

    @abstractmethod
    def validate(self) -> Validation:
        """The loss on the validation split. Each process takes its part, and all return the same."""

    @abstractmethod
    def describe_batch(self, step: int) -> Any:
        """Batch `step` as JSON, for the report about a loss that is not finite."""

    def sample_prompt(self, tokenizer: Tokenizer) -> Prompt:
        """What samples continue. MakegptError if it cannot be encoded."""
        return encode_prompt(tokenizer, self.config.sample_prompt, name="train.sample_prompt")

    def _means(self, sums: Mapping[str, float], count: int) -> dict[str, float]:
        """The `sums` of all processes, each divided by `count`."""
        return {name: self.group.total(value, self.device) / count for name, value in sums.items()}

    def reference(self) -> dict[str, Tensor]:
        """What was computed before the first step and never changes; checkpoints keep it."""
        return {}

    def compile(self, sizes: list[int]) -> str | None:
        """Compile the loss of pieces of these `sizes` in rows; None, or why it runs without compilation."""
        return f"train.task={self.config.task} has no compiled form"

    def finish_gradient(self) -> None:  # noqa: B027
        """Change the summed gradients before they are measured and applied, if the objective has to."""

    def after_step(self) -> None:  # noqa: B027
        """Take note that the trained weights have changed, if the objective has to."""
