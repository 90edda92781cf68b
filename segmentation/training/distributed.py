"""One run divided between processes that `torchrun` has started."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

PATIENCE_OF_OTHERS = datetime.timedelta(hours=4)
"""How long the others wait while the first process validates or tunes."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of a run; the first one writes all files.

    Example r, r + world, ... of every batch are drawn by rank r. Loss and Dice are those of the whole batch:
    their sums are added up over the processes, and so are their gradients.
    """

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def total(self, sums: Tensor) -> Tensor:
        """Add sums up over the processes; gradients flow back into every process' part."""
        if self.world == 1:
            return sums
        added: Tensor = _Total.apply(sums)  # type: ignore[no-untyped-call]
        return added

    def shared(self, content: Any) -> Any:
        """Return the first process' content in every process."""
        if self.world == 1:
            return content
        held = [content]
        dist.broadcast_object_list(held, src=0)
        return held[0]

    def wrapped(self, network: nn.Module, device: torch.device, *, freezes: bool = False) -> nn.Module:
        """Return the network to call: gradients are averaged over the processes.

        On GPUs batch normalisation takes its statistics over the whole batch, on CPUs over each process' part,
        where the first process' running ones are kept.

        Parameters
        ----------
        freezes : bool
            Some layers get no gradient in some steps.
        """
        if self.world == 1:
            return network
        if device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
            return nn.parallel.DistributedDataParallel(
                network, device_ids=[device.index], find_unused_parameters=freezes
            )
        return nn.parallel.DistributedDataParallel(network, find_unused_parameters=freezes)


class _Total(torch.autograd.Function):
    """The sum over processes. Every process derives the same loss from it, and `DistributedDataParallel` averages:

    the sum of the gradients over processes, divided by their number, is the gradient of that one loss.
    """

    @staticmethod
    def forward(context: Any, sums: Tensor) -> Tensor:
        added = sums.clone()
        dist.all_reduce(added)
        return added

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        added = gradients[0].clone()
        dist.all_reduce(added)
        return added


def world_size() -> int:
    """Processes that `torchrun` has started for this run; 1 without it."""
    if not all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")):
        return 1
    return int(os.environ["WORLD_SIZE"])


def rank_here() -> int:
    """This process' number among those of `torchrun`; 0 without it."""
    return int(os.environ["RANK"]) if world_size() > 1 else 0


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[Ranks, torch.device]]:
    """Join the processes of `torchrun`, where there are several; yield this one's rank and device."""
    if world_size() == 1:
        yield Ranks(), device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE_OF_OTHERS)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size()), device
    finally:
        dist.destroy_process_group()
