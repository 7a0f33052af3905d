"""The process group of a training: one process, or as many as `torchrun` has started.

Each takes a part of every batch; the gradients are summed over all processes, and all take the same step, so that their
weights stay the same bit for bit. Only the main process, of rank 0, writes files and messages.
"""

import os
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Callable, Iterator, TypeVar

import torch
import torch.distributed as dist
import torch.distributed.nn  # imported while there is no group: its functions' defaults would keep a group and its threads
from torch import Tensor, nn

from lib.errors import MakegptError

Result = TypeVar("Result")

_TIMEOUT = timedelta(minutes=30)  # rank 0 may read or write for a long time while the others wait


def shard_range(count: int, number: int, of: int) -> range:
    """The indices of part `number` when `count` things are split into `of` contiguous parts, equal up to one."""
    return range(count * number // of, count * (number + 1) // of)


class ProcessGroup:
    """The process group of a training, seen from the process of `rank`; `init_distributed` creates it."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, count: int) -> range:
        """The indices of `count` things that this process takes."""
        return shard_range(count, self.rank, self.size)

    def total(self, number: float, device: torch.device) -> float:
        """The sum of every process's `number`."""
        if self.size == 1:
            return number
        total = torch.tensor(number, dtype=torch.float64, device=device)
        with _explain_lost_process():
            dist.all_reduce(total)
        return total.item()

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether `flag` is true in any process."""
        return self.total(float(flag), device) > 0

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            with _explain_lost_process():
                dist.barrier()

    def broadcast_from_main(self, function: Callable[[], Result]) -> Result:
        """What `function` returns, or raises, in the main process; the others do not call it."""
        if self.size == 1:
            return function()
        objects: list[Any] = [None, None]
        if self.is_main:
            try:
                objects = [function(), None]
            except (MakegptError, OSError) as exception:
                objects = [None, exception]
        with _explain_lost_process():
            dist.broadcast_object_list(objects)
        result, error = objects
        if error is not None:
            raise error
        return result


SINGLE_PROCESS = ProcessGroup()


class GradientSum:
    """Sums each gradient over all processes while those of earlier layers are still computed.

    Small gradients are summed in one bucket: a sum of a few numbers takes as long as one of many thousands.
    """

    def __init__(self, model: nn.Module, group: ProcessGroup) -> None:
        self._last_piece = False
        self._bucket: list[Tensor] = []  # gradients that are complete, too few to be sent yet
        self._sent: list[tuple[Any, Tensor, list[Tensor]]] = []  # the sum in progress, its numbers, the gradients
        if group.size > 1:
            for weight in model.parameters():
                if weight.requires_grad:
                    weight.register_post_accumulate_grad_hook(self._complete)  # type: ignore[no-untyped-call]

    @contextmanager
    def of(self, *, last_piece: bool) -> Iterator[None]:
        """Around a backward pass: after the `last_piece` of a batch the gradients are sums over all processes."""
        self._last_piece = last_piece
        with _explain_lost_process():
            yield
            self._send()
            for work, numbers, gradients in self._sent:
                work.wait()
                sizes = [gradient.numel() for gradient in gradients]
                for gradient, part in zip(gradients, torch.split(numbers, sizes), strict=True):
                    if gradient.data_ptr() != part.data_ptr():
                        gradient.copy_(part.view_as(gradient))
        self._sent.clear()

    def _complete(self, weight: Tensor) -> None:
        if self._last_piece:
            assert weight.grad is not None
            self._bucket.append(weight.grad)
            if sum(gradient.numel() for gradient in self._bucket) >= _BUCKET_SIZE:
                self._send()

    def _send(self) -> None:
        if self._bucket:
            flat = [gradient.flatten() for gradient in self._bucket]
            numbers = flat[0] if len(flat) == 1 else torch.cat(flat)
            self._sent.append((dist.all_reduce(numbers, async_op=True), numbers, self._bucket))
            self._bucket = []


_BUCKET_SIZE = 1 << 20  # numbers


@contextmanager
def _explain_lost_process() -> Iterator[None]:
    """Around collective operations: MakegptError if another process has ended."""
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error).lower() for words in _CONNECTION_ERRORS):
            raise
        raise MakegptError(
            f"another process of this training has ended ({str(error).splitlines()[0]}), so this one stops; "
            "the same command resumes from the last checkpoint"
        ) from error


_CONNECTION_ERRORS = ("connection closed", "connection reset", "broken pipe", "timed out", "remote process exited")


@contextmanager
def init_distributed(device: torch.device) -> Iterator[ProcessGroup]:
    """The process group that `torchrun` started this process in; a single process if it was started by itself."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield SINGLE_PROCESS
        return
    if device.type == "mps":
        raise MakegptError("several processes cannot train on mps, where PyTorch has no all-reduce; use --device cpu")
    try:
        if device.type == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise MakegptError(
            f"the {size} processes could not connect ({str(error).splitlines()[0]}); start them with torchrun, "
            "at most one per device of a machine"
        ) from error
    try:
        yield ProcessGroup(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()
