"""Which scans are in memory: a window that slides over shuffled passes, chosen by number and never by chance.

The scans an example may come from depend on the example's number alone, not on what happens to be loaded. What is
kept in memory is only a shortcut: a run that is resumed, or one of several processes, draws the same slices.
"""

from __future__ import annotations

import functools
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np

from segmentation.methods import recipe_of
from segmentation.segmenter import seed_for
from segmentation.training.cut import MARGIN_MM, CutScan, cut_crop, cut_scan
from segmentation.training.items import TrainingItem, lacking, loaded_or_noted
from segmentation.training.options import TrainingOptions
from simulator.sampler import ProgressionSampler
from standard_space.errors import DataError, LungcastError, UsageError
from standard_space.scanfile import window_of

Note = Callable[[str], None]

_TRIES = 8


class Pool(ABC):
    """Cut volumes to draw examples from.

    Position p of a view's endless sequence holds volume `volume_at(view, p)`. Example e is drawn from the `held`
    positions from e // draws_per_volume on.

    Parameters
    ----------
    held : int
        Volumes kept in memory.
    draws_per_volume : float
        Examples of the run between two exchanges.
    ahead : int
        Examples that may be drawn before their turn, by other threads.
    """

    def __init__(self, held: int, draws_per_volume: float, ahead: int = 0) -> None:
        self.held = held
        self.draws_per_volume = draws_per_volume
        self.grid_size = 0
        """Of the scans; 0 before the first is loaded."""
        self._behind = 0 if ahead == 0 else 1 + int(ahead // draws_per_volume)
        self._cache: dict[int, Future[CutScan | None]] = {}
        self._view, self._newest = "", 0
        self._lock = threading.Lock()

    @abstractmethod
    def volume_at(self, view: str, position: int) -> int:
        """Return the number of the volume at a position of a view."""

    @abstractmethod
    def load(self, volume: int) -> CutScan | None:
        """Return a volume; None, after a note, when it cannot be used."""

    @property
    @abstractmethod
    def period(self) -> int:
        """Positions after which every volume has come up."""

    def choose(self, view: str, example: int, rng: np.random.Generator) -> int:
        """Return the number of a volume for an example: one of its window."""
        return self.volume_at(view, self.first_position(example) + int(rng.integers(self.held)))

    def draw(self, view: str, example: int, rng: np.random.Generator) -> CutScan:
        """Return the volume that an example is drawn from.

        A volume that cannot be used is replaced by another of the same window, then by the next that can.

        Raises
        ------
        DataError
            None can be used.
        """
        first = self.first_position(example)
        for _ in range(_TRIES):
            cut = self._held(view, self.choose(view, example, rng), first)
            if cut is not None:
                return cut
        return self.next_usable(view, first)

    def first_position(self, example: int) -> int:
        """Return where the window of an example begins."""
        return int(example // self.draws_per_volume)

    def next_usable(self, view: str = "", first: int = 0) -> CutScan:
        """Return the first volume from a position on that can be used.

        Raises
        ------
        DataError
            None can be used.
        """
        for position in range(first, first + 2 * self.period):
            cut = self._held(view, self.volume_at(view, position), first)
            if cut is not None:
                return cut
        raise DataError("no scan to train on can be used", remedy="the notes say why each was left out")

    def _held(self, view: str, volume: int, first: int) -> CutScan | None:
        with self._lock:
            future = self._cache.get(volume)
            mine = future is None
            if future is None:
                future = self._cache[volume] = Future()
        if mine:
            try:
                future.set_result(self.load(volume))
            except BaseException as error:
                self._cache.pop(volume)
                future.set_exception(error)
                raise
            self._forget(view, first)
        return future.result()

    def _forget(self, view: str, first: int) -> None:
        """Let go of what the window has left behind; what cannot be used is remembered, it takes no room."""
        with self._lock:
            if view != self._view:  # it begins where its own window is, not where the last view's ended
                self._view, self._newest = view, first
            self._newest = max(self._newest, first)
            begin = max(0, self._newest - self._behind)
            kept = {self.volume_at(view, position) for position in range(begin, self._newest + self.held)}
            for volume, future in list(self._cache.items()):
                if volume not in kept and future.done() and future.result() is not None:
                    del self._cache[volume]


class ScanPool(Pool):
    """Stored scans, in shuffled passes; when all fit into memory, every example is drawn from all of them.

    Each view has an order of its own. Its second pass is in the order of the first: the scans at the beginning of
    the first one leave the window early, and so a run of one pass draws from every scan equally often.

    Raises
    ------
    DataError
        From `draw`: a scan lies on another grid than the others, or none can be used.
    """

    def __init__(
        self,
        items: Sequence[TrainingItem],
        options: TrainingOptions,
        *,
        held: int,
        draws_per_volume: float,
        note: Note,
        ahead: int = 0,
    ) -> None:
        everything = held >= len(items)
        super().__init__(
            len(items) if everything else held, float("inf") if everything else draws_per_volume, ahead
        )
        self._items, self._options, self._note = list(items), options, note
        self._sides = recipe_of(options.method).needs_lungs
        self._pass = functools.lru_cache(4)(self._shuffled)

    @property
    def period(self) -> int:
        """The number of scans."""
        return len(self._items)

    def volume_at(self, view: str, position: int) -> int:
        """Return the scan at a position of a view's shuffled passes."""
        turn, place = divmod(position, len(self._items))
        return self._pass(view, max(turn - 1, 0))[place]

    def _shuffled(self, view: str, order: int) -> list[int]:
        rng = np.random.default_rng(seed_for(self._options.seed, view, "order", str(order)))
        return rng.permutation(len(self._items)).tolist()  # type: ignore[no-any-return]

    def load(self, volume: int) -> CutScan | None:
        """Load a scan and cut it; None, after a note, when it cannot be used."""
        item = self._items[volume]
        scan = loaded_or_noted(item, self._note)
        if scan is None:
            return None
        reason = lacking(item, self._options.target, scan)
        if reason is not None:
            self._note(f"{item.name}: left out of training, {reason}")
            return None
        if self.grid_size and scan.grid.size != self.grid_size:
            raise DataError(
                "the scans to train on lie on different grids",
                where=item.name,
                got=scan.grid.size,
                expected=self.grid_size,
            )
        try:
            cut = cut_scan(scan, self._options.target, self._options.input_window, sides=self._sides)
        except DataError as error:
            self._note(f"{item.name}: left out of training, {error.what}")
            return None
        self.grid_size = scan.grid.size
        return cut


class ProgressionPool(Pool):
    """Volumes that a sampler makes meanwhile, none twice.

    Raises
    ------
    UsageError
        The sampler's margin is narrower than `MARGIN_MM`.
    """

    def __init__(
        self,
        sampler: ProgressionSampler,
        options: TrainingOptions,
        *,
        held: int,
        draws_per_volume: float,
        note: Note,
        ahead: int = 0,
    ) -> None:
        if sampler.margin_mm < MARGIN_MM:
            raise UsageError(
                "the sampler's margin is too narrow to train on",
                got=f"{sampler.margin_mm:g} mm",
                expected=f"margin_mm={MARGIN_MM:g} or more",
            )
        super().__init__(held, draws_per_volume, ahead)
        self._sampler, self._options, self._note = sampler, options, note
        self._sides = recipe_of(options.method).needs_lungs
        self._entries = {entry.name: entry for entry in sampler.entries}
        self._broken: set[str] = set()
        self._making = threading.Lock()

    @property
    def period(self) -> int:
        """Volumes after which every source has come up."""
        return len(self._entries) * self._sampler.in_a_row

    def volume_at(self, view: str, position: int) -> int:
        """Return the number of the sampler's draw: the position."""
        return position

    def load(self, volume: int) -> CutScan | None:
        """Make a volume and cut it; None, after a note, when its source cannot be used."""
        draw = self._sampler.draw(volume)
        name = f"{draw.patient}/{draw.scan}"
        if name in self._broken:
            return None
        try:
            head = self._sampler.cohort.head(self._entries[name])
            # The sampler keeps its sources in a dictionary of its own, for one thread.
            with self._making:
                crop = self._sampler.make(draw)
        except LungcastError as error:
            self._broken.add(name)
            self._note(f"{name}: left out of progressions on the fly, it cannot be read ({error.what})")
            return None
        if not crop.lungs.any():
            self._broken.add(name)
            self._note(f"{name}: left out of progressions on the fly, it has no lungs")
            return None
        self.grid_size = int(head["grid"])
        return cut_crop(crop, window_of(head), self._options.input_window, sides=self._sides)
