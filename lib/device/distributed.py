"""The processes that train one model together: one alone, or as many as `torchrun` has started.

Each takes its share of every batch; the gradients are summed over all of them, and all take the same step, so that their
weights stay the same bit for bit. The process of rank 0 leads: it alone writes and speaks.
"""

import os
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Callable, Iterator, TypeVar

import torch
import torch.distributed as dist
import torch.distributed.nn  # its functions' defaults would keep a group that is there at import, and its threads, to the end
from torch import Tensor, nn

from lib.errors import MakegptError

Answer = TypeVar("Answer")

_PATIENCE = timedelta(minutes=30)  # rank 0 may be reading or writing for long while the others wait


def shard_range(count: int, number: int, of: int) -> range:
    """Which of `count` things are in part `number` of so many: neighbors, as many as in the others, or one more or less."""
    return range(count * number // of, count * (number + 1) // of)


class ProcessGroup:
    """The processes of a training, seen from the one of `rank`; made by `joined`, or alone."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, count: int) -> range:
        """Which of `count` things this process takes: neighbors, as many as the others take, or one more or less."""
        return shard_range(count, self.rank, self.size)

    def total(self, number: float, device: torch.device) -> float:
        """The sum of every process's `number`."""
        if self.size == 1:
            return number
        held = torch.tensor(number, dtype=torch.float64, device=device)
        with _together():
            dist.all_reduce(held)
        return held.item()

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether `flag` is true in any process."""
        return self.total(float(flag), device) > 0

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            with _together():
                dist.barrier()

    def broadcast_from_main(self, ask: Callable[[], Answer]) -> Answer:
        """What `ask` answers, or raises, in the leading process; the others do not ask."""
        if self.size == 1:
            return ask()
        said: list[Any] = [None, None]
        if self.is_main:
            try:
                said = [ask(), None]
            except (MakegptError, OSError) as problem:
                said = [None, problem]
        with _together():
            dist.broadcast_object_list(said)
        answer, error = said
        if error is not None:
            raise error
        return answer


SINGLE_PROCESS = ProcessGroup()


class GradientSum:
    """Sums each gradient over all processes while those of earlier layers are still computed.

    Small ones travel together: a sum of a few numbers takes as long as one of many thousands.
    """

    def __init__(self, model: nn.Module, group: ProcessGroup) -> None:
        self._last_piece = False
        self._waiting: list[Tensor] = []  # gradients that are complete, too few to be sent yet
        self._sent: list[tuple[Any, Tensor, list[Tensor]]] = []  # the sum under way, its numbers, whose they are
        if group.size > 1:
            for weight in model.parameters():
                weight.register_post_accumulate_grad_hook(self._complete)  # type: ignore[no-untyped-call]

    @contextmanager
    def of(self, *, last_piece: bool) -> Iterator[None]:
        """Around a backward pass: after the `last_piece` of a batch the gradients are sums over all processes."""
        self._last_piece = last_piece
        with _together():
            yield
            self._send()
            for work, numbers, gradients in self._sent:
                work.wait()
                for gradient, part in zip(gradients, torch.split(numbers, [sent.numel() for sent in gradients]), strict=True):
                    if gradient.data_ptr() != part.data_ptr():
                        gradient.copy_(part.view_as(gradient))
        self._sent.clear()

    def _complete(self, weight: Tensor) -> None:
        if self._last_piece:
            assert weight.grad is not None
            self._waiting.append(weight.grad)
            if sum(gradient.numel() for gradient in self._waiting) >= _ENOUGH:
                self._send()

    def _send(self) -> None:
        if self._waiting:
            flat = [gradient.flatten() for gradient in self._waiting]
            numbers = flat[0] if len(flat) == 1 else torch.cat(flat)
            self._sent.append((dist.all_reduce(numbers, async_op=True), numbers, self._waiting))
            self._waiting = []


_ENOUGH = 1 << 20  # numbers that are worth a sum of their own


@contextmanager
def _together() -> Iterator[None]:
    """Around what all processes do together: MakegptError if one of them is gone."""
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error).lower() for words in _GONE):
            raise
        raise MakegptError(
            f"another process of this training has ended ({str(error).splitlines()[0]}), so this one stops; "
            "the same command resumes from the last checkpoint"
        ) from error


_GONE = ("connection closed", "connection reset", "broken pipe", "timed out", "remote process exited")


@contextmanager
def init_distributed(device: torch.device) -> Iterator[ProcessGroup]:
    """The process group that `torchrun` started this process in; a single process if it was started by itself."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield SINGLE_PROCESS
        return
    if device.type == "mps":
        raise MakegptError("several processes cannot train on mps, which PyTorch has no sums for; --device cpu can")
    try:
        if device.type == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise MakegptError(
            f"the {size} processes did not find each other ({str(error).splitlines()[0]}); start them with torchrun, "
            "no more on a machine than it has devices"
        ) from error
    try:
        yield ProcessGroup(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()
