"""What a step learns from: a pure function of the seed, the view and the step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from segmentation.methods import recipe_of
from segmentation.segmenter import seed_for
from segmentation.training.cut import TYPICAL_SHARE, CutScan, bytes_per_voxel
from segmentation.training.examples import Batch, Example
from segmentation.training.items import TrainingItem
from segmentation.training.options import SLICES_PER_SCAN, TrainingOptions
from segmentation.training.pool import Note, Pool, ProgressionPool, ScanPool
from segmentation.training.recipe import Turn
from simulator.sampler import ProgressionSampler
from standard_space.errors import DataError, UsageError
from standard_space.jobs import core_count

SLICES_PER_VOLUME = 16
"""Drawn of a volume made on the fly, on average, before the next one takes its place."""

VOLUMES_HELD = 48
"""Volumes made on the fly that are drawn from at a time, where they fit. Of few, batches look much alike: with 8,
two models of eight training patients scored 0.03 of Dice less, which chance can do as well (docs/evidence.md)."""

FEWEST_PER_SCAN = 8
"""Slices of a kind after which a scan is exchanged at the earliest: reading one takes long."""

BATCHES_AHEAD = 8
"""Drawn beforehand for a GPU."""


class Mixture:
    """Original scans, stored synthetic ones, and volumes made on the fly, mixed at the stated shares.

    Parameters
    ----------
    originals, synthetic : sequence of TrainingItem
    sampler : ProgressionSampler or None
    options : TrainingOptions
    note : callable
        Told about scans that are left out.
    steps : int, optional
        Of the run as it was begun: scans are exchanged so often that one pass fits, see `slices_per_scan`. Endless
        when absent.
    ahead : bool
        Examples will be drawn before their turn, for a GPU.

    Raises
    ------
    DataError
        No scan of a kind can be used, or scans lie on different grids.
    UsageError
        Shares above one together, or a sampler that cannot be used.
    """

    def __init__(
        self,
        originals: Sequence[TrainingItem],
        synthetic: Sequence[TrainingItem],
        sampler: ProgressionSampler | None,
        options: TrainingOptions,
        note: Note,
        *,
        steps: int | None = None,
        ahead: bool = False,
    ) -> None:
        self._options = options
        self._recipe = recipe_of(options.method)
        self._steps = steps
        self._kinds: list[tuple[str, Sequence[TrainingItem]]] = []
        wanted = shares_of(bool(originals), bool(synthetic), sampler is not None, options)
        self.grid_size = grid_size_of([*originals, *synthetic], sampler, options, note)
        self.shares = list(wanted.values())
        self._pools: list[Pool] = []
        voxels = self.grid_size**3 * TYPICAL_SHARE[options.target]
        volume_mb = bytes_per_voxel(self._recipe.needs_lungs) * voxels / 2**20
        # The sampler's own sources take a part as large as that of each kind.
        parts = len(wanted) + ("on_the_fly" in wanted)
        held = max(1, int(options.memory_mb / parts / volume_mb))
        waiting = BATCHES_AHEAD * options.batch_size if ahead else 0
        for kind, share in wanted.items():
            items = {"original": originals, "synthetic": synthetic}.get(kind, ())
            self._kinds.append((kind, items))
            if sampler is not None and kind == "on_the_fly":
                self._pools.append(
                    ProgressionPool(
                        sampler,
                        options,
                        held=min(held, VOLUMES_HELD),
                        draws_per_volume=SLICES_PER_VOLUME / share,
                        note=note,
                        ahead=waiting,
                    )
                )
                continue
            self._pools.append(
                ScanPool(
                    items,
                    options,
                    held=held,
                    draws_per_volume=slices_per_scan(self._slices(steps, share), len(items)) / share,
                    note=note,
                    ahead=waiting,
                )
            )
        for pool in self._pools:
            pool.grid_size = self.grid_size

    def _slices(self, steps: int | None, share: float) -> float:
        return math.inf if steps is None else steps * self._options.batch_size * share

    def example(self, view: str, number: int) -> Example:
        """Draw the example of a number, 0 or more, of a view."""
        rng = self._rng(view, number)
        options, step = self._options, number // self._options.batch_size
        turn = Turn(options, self.grid_size, step, self._steps or step + 1, options.vary)
        return self._recipe.example(self.volume(view, number, rng), view, rng, turn)

    def _rng(self, view: str, number: int) -> np.random.Generator:
        return np.random.default_rng(seed_for(self._options.seed, view, "example", str(number)))

    def volume(self, view: str, number: int, rng: np.random.Generator) -> CutScan:
        """Choose the volume an example is drawn from: its kind at the stated shares, then one of the kind."""
        return self._pools[self._kind(rng)].draw(view, number, rng)

    def _kind(self, rng: np.random.Generator) -> int:
        chance, kind = rng.random(), 0
        while kind < len(self.shares) - 1 and chance >= self.shares[kind]:
            chance -= self.shares[kind]
            kind += 1
        return kind

    def drawn(self, view: str, steps: int) -> dict[str, list[TrainingItem]]:
        """Return the stored scans that a view's first steps draw from, by kind; nothing is read.

        A scan that cannot be used is among them, in the place of the one that is drawn from instead.
        """
        found: list[set[int]] = [set() for _ in self._kinds]
        waiting = {place for place, (_, items) in enumerate(self._kinds) if items}
        for number in range(steps * self._options.batch_size):
            if not waiting:
                break
            rng = self._rng(view, number)
            kind = self._kind(rng)
            if kind in waiting:
                found[kind].add(self._pools[kind].choose(view, number, rng))
                if len(found[kind]) == len(self._kinds[kind][1]):
                    waiting.remove(kind)
        return {
            kind: [items[number] for number in sorted(numbers)]
            for (kind, items), numbers in zip(self._kinds, found, strict=True)
            if items
        }

    def count(self, kind: str) -> int:
        """Return the number of stored scans of a kind."""
        return len(dict(self._kinds)[kind])

    def steps_for_all(self, kind: str) -> int:
        """Return the steps of a run in which a view very likely draws from every stored scan of a kind."""
        place, count = [name for name, _ in self._kinds].index(kind), self.count(kind)
        # Of n slices on average a scan gets none with a chance of exp(-n).
        slices = count * max(FEWEST_PER_SCAN, math.log(20 * count))
        return math.ceil(slices / self.shares[place] / self._options.batch_size)

    def batch(self, view: str, step: int, rank: int = 0, world: int = 1) -> Batch:
        """Draw a step's batch, or one process' part of it: every `world`-th example from `rank` on."""
        first = step * self._options.batch_size
        numbers = range(first + rank, first + self._options.batch_size, world)
        return Batch.of([self.example(view, number) for number in numbers])

    def batches(
        self, view: str, steps: range, device: torch.device, rank: int = 0, world: int = 1
    ) -> Generator[Batch]:
        """Yield the batches of steps. For a GPU the next ones are drawn meanwhile, by several threads.

        On a CPU other threads would fight the network's own for the cores (a third slower on two cores).
        """
        if device.type == "cpu":
            for step in steps:
                yield self.batch(view, step, rank, world)
            return
        waiting: list[Future[Batch]] = []
        following = iter(steps)
        workers = ThreadPoolExecutor(max_workers=max(1, min(BATCHES_AHEAD, core_count() - 1)))
        try:
            for _ in steps:
                while len(waiting) < BATCHES_AHEAD and (coming := next(following, None)) is not None:
                    waiting.append(workers.submit(self.batch, view, coming, rank, world))
                batch = waiting.pop(0).result()
                yield _pinned(batch) if device.type == "cuda" else batch
        finally:
            workers.shutdown(wait=True, cancel_futures=True)


def _pinned(batch: Batch) -> Batch:
    return Batch(*(getattr(batch, field.name).pin_memory() for field in dataclasses.fields(batch)))


def slices_per_scan(slices: float, scans: int) -> int:
    """Return after how many slices of a kind one of its scans is exchanged, where not all fit into memory.

    As many as let a run pass over all scans once, at most `SLICES_PER_SCAN` and at least `FEWEST_PER_SCAN`.

    Parameters
    ----------
    slices : float
        Of the kind, in the whole run.
    scans : int
        Of the kind.
    """
    return int(max(FEWEST_PER_SCAN, min(SLICES_PER_SCAN, slices / scans)))


def shares_of(originals: bool, synthetic: bool, sampler: bool, options: TrainingOptions) -> dict[str, float]:
    """Return the share of slices of each kind that is there and has one; they add up to one.

    Without original scans the other kinds share all slices in their proportion.

    Raises
    ------
    UsageError
        The shares are above one together, or a sampler is given where the lungs are the target.
    DataError
        Nothing to draw from.
    """
    if sampler and options.target == "lungs":
        raise UsageError(
            "progressions on the fly are cropped to the lungs and cannot teach where lungs end",
            remedy="train the lungs on stored scans",
        )
    shares = {}
    if synthetic:
        shares["synthetic"] = options.synthetic_share
    if sampler:
        shares["on_the_fly"] = options.on_the_fly_share
    rest = 1.0 - sum(shares.values())
    if rest < -1e-9:
        raise UsageError(
            "the shares of stored synthetic scans and of progressions on the fly are above 1 together",
            got=" + ".join(f"{share:g}" for share in shares.values()),
            remedy="lower --synthetic-share or --on-the-fly",
        )
    if originals:
        shares["original"] = max(rest, 0.0)
    whole = sum(shares.values())
    if whole == 0:
        raise DataError("there is no scan to train on")
    return {kind: share / whole for kind, share in shares.items() if share > 0}


def grid_size_of(
    items: Sequence[TrainingItem], sampler: ProgressionSampler | None, options: TrainingOptions, note: Note
) -> int:
    """Return the size of the grid that all scans lie on; where it is not known beforehand, from the first usable.

    Raises
    ------
    DataError
        Different grids, or no scan can be used.
    """
    sizes = {item.grid_size for item in items if item.grid_size}
    for synthetic in (False, True):
        unknown = [item for item in items if item.synthetic == synthetic]
        if unknown and not any(item.grid_size for item in unknown):
            pool = ScanPool(unknown, options, held=1, draws_per_volume=1, note=note)
            pool.next_usable()
            sizes.add(pool.grid_size)
    if sampler is not None:
        sizes.add(int(sampler.cohort.head(sampler.entries[0])["grid"]))
    if len(sizes) > 1:
        raise DataError("the scans to train on lie on different grids", got=sorted(sizes))
    if not sizes:
        raise DataError("no scan to train on can be used")
    return sizes.pop()
