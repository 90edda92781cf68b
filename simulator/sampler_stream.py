"""A sampler's stream as a PyTorch data set: divided between workers and ranks, the union is the same stream."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from simulator.sampler import ProgressionSampler
from simulator.synthetic_crop import SyntheticCrop
from standard_space.errors import UsageError


class ProgressionStream(IterableDataset[Any]):
    """Volumes of a `ProgressionSampler` as dictionaries of tensors.

    With `batch_size=None` a `DataLoader` gives the sampler's own order, whatever its number of workers. Crops of
    different scans differ in shape: to batch them, cut patches of one shape in `transform`.

    Parameters
    ----------
    sampler : ProgressionSampler
        Call `sampler.warm()` before workers are forked and they share its memory.
    transform : callable, optional
        Of the dictionary: `signal` float32 and `infection`, `lungs` bool, each (1, z, y, x), `air_signal`, `day`,
        `patient`, `scan` and `provenance` (JSON text).
    shard : tuple of int
        (index, number) of this process among those that share the stream, for example rank and world size.
    volumes : int, optional
        End after so many volumes of this shard, all workers together; None never ends.

    Raises
    ------
    UsageError
        When there is no such shard, or the number of volumes is negative.
    """

    def __init__(
        self,
        sampler: ProgressionSampler,
        transform: Callable[[dict[str, Any]], Any] | None = None,
        *,
        shard: tuple[int, int] = (0, 1),
        volumes: int | None = None,
    ) -> None:
        if not 0 <= shard[0] < shard[1]:
            raise UsageError("no such part of the stream", got=shard, expected="(i, n), 0 <= i < n")
        if volumes is not None and volumes < 0:
            raise UsageError("the number of volumes is negative", got=volumes)
        self.sampler, self.transform, self.shard, self.volumes = sampler, transform, shard, volumes

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        index, number = (0, 1) if worker is None else (worker.id, worker.num_workers)
        mine = self.sampler.sharded(self.shard[0] + self.shard[1] * index, self.shard[1] * number)
        if self.volumes is not None:
            mine = islice(mine, len(range(index, self.volumes, number)))
        for crop in mine:
            item = as_tensors(crop)
            yield item if self.transform is None else self.transform(item)


def as_tensors(crop: SyntheticCrop) -> dict[str, Any]:
    """A crop as a dictionary of tensors; see `ProgressionStream`."""
    return {
        "signal": torch.from_numpy(crop.signal)[None],
        "infection": torch.from_numpy(crop.infection)[None],
        "lungs": torch.from_numpy(crop.lungs.copy())[None],
        "air_signal": crop.air_signal,
        "day": crop.day,
        "patient": crop.patient,
        "scan": crop.scan,
        "provenance": json.dumps(crop.provenance),
    }
