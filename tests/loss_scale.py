"""The loss scale of float16, on any device."""

import pytest

from lib.device.precision import LossScale
from lib.train.trainer import Trainer


def assert_too_large_a_scale_falls(scaled: Trainer, reference: Trainer, lowest: float) -> None:
    """A scale that leaves float16's range falls, to `lowest` at least, and the batch is repeated: the step of `reference`."""
    scaled.loss_scale = LossScale(2.0**40)
    step, expected = scaled.train_step(), reference.train_step()
    assert scaled.loss_scale is not None
    assert lowest < scaled.loss_scale.value < 2.0**40
    assert step.train_loss == expected.train_loss
    assert step.grad_norm == pytest.approx(expected.grad_norm, rel=1e-2)
