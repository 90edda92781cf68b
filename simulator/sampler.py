"""An endless stream of synthetic volumes in memory, for training on the fly (DESIGN 4, 5).

Published experience is that volumes synthesised anew for every step train better than a fixed set (DESIGN 9).
`ProgressionSampler.draw` is a pure function of (seed, number) and `make` one of the draw and its source, so any
volume of the stream can be had at any time, in any process, in any order.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulator.augmentation_plan import seed_of
from simulator.dynamics.branching import branch, occupied_bytes, prepare
from simulator.dynamics.engine import RESULTS_REVISION, Controls, LesionState
from simulator.dynamics.parameters import TransitionParameters
from simulator.fits import CohortFits
from simulator.lung_crop import read_lung_crop
from simulator.play import Play, PlayRanges, TextureRange
from simulator.synthetic_crop import Surroundings, SyntheticCrop, surroundings_of, synthesise
from standard_space.cohort import Cohort, Entry
from standard_space.errors import DataError, UsageError
from standard_space.version import lungcast_version


@dataclass(frozen=True)
class Draw:
    """Everything random about one volume of a stream.

    `number` counts from 0 in the stream; `patient` and `scan` name the source.
    """

    number: int
    patient: str
    scan: str
    play: Play

    def to_json(self) -> dict[str, Any]:
        """Plain values for a record."""
        return {
            "number": self.number, "patient": self.patient, "scan": self.scan, "play": self.play.to_json()
        }  # fmt: skip

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Draw:
        """A draw from a record, for example a crop's `provenance["draw"]`.

        Raises
        ------
        UsageError
            When the record is not one of a draw.
        """
        try:
            play = Play.from_json(content["play"])
            return cls(int(content["number"]), str(content["patient"]), str(content["scan"]), play)
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"not the record of a draw ({error!r})", got=content) from None


@dataclass(frozen=True)
class _Source:
    surroundings: Surroundings
    start: LesionState
    n_bytes: int


class ProgressionSampler:
    """Synthetic volumes without end, cropped to the lungs, from a cohort's observed scans and their fits.

    Every scan comes up equally often: once in every round, in an order drawn anew for each round.

    Parameters
    ----------
    cohort : Cohort
    fits : CohortFits
    seed : int
        Same seed, same stream.
    days : tuple of float
        Shortest and longest progression, days; whole transitions between them are equally likely.
    jump : int, optional
        Transitions drawn at once; None plays every progression in one jump. Counts do not depend on it, the
        finest texture does a little (docs/dynamics.md).
    controls : Controls or TextureRange, optional
        Morphology, fixed or drawn for every volume; defaults to `Controls()`.
    memory_gb : float
        Sources kept in memory, the least recently used go first; 512^3 takes some 0.2 GB a scan. One is
        always kept. Beyond it, scans are read again.
    in_a_row : int
        Volumes made of a scan before the next one comes up; raise it when the cohort exceeds the memory.
    margin_mm : float
        Room around the lungs' box, mm, as far as the standard extent goes.

    Attributes
    ----------
    entries : list of Entry
        The scans that volumes are made of.
    left_out : dict of str to str
        Why the others are not used, by name.
    parameters : dict of str to TransitionParameters
        What each scan is played on with, by name.

    Raises
    ------
    UsageError
        When an option is out of range.
    DataError
        When no scan can be used.
    """

    def __init__(
        self,
        cohort: Cohort,
        fits: CohortFits,
        *,
        seed: int,
        days: tuple[float, float] = (0.01, 2.0),
        jump: int | None = None,
        controls: Controls | TextureRange | None = None,
        memory_gb: float = 4.0,
        in_a_row: int = 1,
        margin_mm: float = 0.0,
    ) -> None:
        if not memory_gb >= 0:
            raise UsageError("the memory for scans is negative", got=memory_gb, expected="0 GB or more")
        if int(in_a_row) != in_a_row or in_a_row < 1:
            raise UsageError("in_a_row is a number of volumes", got=in_a_row, expected="1 or more")
        if not 0 <= margin_mm < float("inf"):
            raise UsageError("the margin is negative or not finite", got=margin_mm, expected="0 mm or more")
        self.cohort = cohort.sources or cohort
        self.seed = int(seed)
        self.ranges = PlayRanges(days, jump, Controls() if controls is None else controls)
        self.in_a_row, self.margin_mm, self.memory_gb = int(in_a_row), float(margin_mm), float(memory_gb)
        self.entries: list[Entry] = []
        self.left_out: dict[str, str] = {}
        self.parameters: dict[str, TransitionParameters] = {}
        for entry in sorted(self.cohort.entries, key=lambda e: (e.patient, e.day, e.scan)):
            if not entry.synthetic:
                self._admit(entry, fits)
        if not self.entries:
            reasons = "; ".join(f"{name}: {why}" for name, why in list(self.left_out.items())[:3])
            raise DataError(
                "no scan of the cohort can be played on", where=self.cohort.folder, got=reasons or "no scans"
            )
        self._sources: OrderedDict[str, _Source] = OrderedDict()

    def _admit(self, entry: Entry, fits: CohortFits) -> None:
        if not entry.infected_ml:
            missing = "no infection mask" if entry.infected_ml is None else "no infection"
            self.left_out[entry.name] = missing
            return
        try:
            self.parameters[entry.name] = fits.of(entry).fit.parameters
        except DataError as error:
            self.left_out[entry.name] = str(error)
            return
        self.entries.append(entry)

    def draw(self, number: int) -> Draw:
        """The draw of a number, 0 or more: a pure function of the sampler's arguments and the number."""
        if int(number) != number or number < 0:
            raise UsageError("a draw has a whole number", got=number, expected="0 or more")
        turn, place = divmod(number // self.in_a_row, len(self.entries))
        order = np.random.default_rng(seed_of("round", self.seed, turn)).permutation(len(self.entries))
        entry = self.entries[order[place]]
        rng = np.random.default_rng(seed_of("sample", self.seed, number))
        return Draw(number, entry.patient, entry.scan, self.ranges.draw(rng.random))

    def make(self, draw: Draw) -> SyntheticCrop:
        """The volume of a draw; nothing is drawn here.

        Raises
        ------
        UsageError
            When the draw names a scan that is not used.
        ScanFileError
            When the source's file is missing, damaged, or no longer what the manifest says.
        """
        name = f"{draw.patient}/{draw.scan}"
        if name not in self.parameters:
            raise UsageError(
                "the draw names a scan that is not used", got=name, expected=self.left_out.get(name)
            )
        source, parameters = self._source(name), self.parameters[name]
        play = draw.play
        state = play.advance(branch(source.start, seed=play.seed, controls=play.controls), parameters)
        provenance = {
            "lungcast_version": lungcast_version(),
            "engine": RESULTS_REVISION,
            "operation": "sample",
            "draw": draw.to_json(),
            "parameters": parameters.to_json(),
            "margin_mm": self.margin_mm,
        }
        return synthesise(source.surroundings, state, play.transitions, provenance)

    def _source(self, name: str) -> _Source:
        if name in self._sources:
            self._sources.move_to_end(name)
            return self._sources[name]
        entry = next(entry for entry in self.entries if entry.name == name)
        source = self._read(entry)
        self._sources[name] = source
        while len(self._sources) > 1 and self.held_gb > self.memory_gb:
            self._sources.popitem(last=False)
        return source

    def _read(self, entry: Entry) -> _Source:
        crop = read_lung_crop(self.cohort, entry)
        start = crop.start()
        if isinstance(self.ranges.controls, Controls):
            prepare(start, self.ranges.controls.correlation_mm)
        surroundings = surroundings_of(self.cohort, entry, crop, self.margin_mm)
        held = surroundings.signal.nbytes + surroundings.lungs.nbytes + occupied_bytes(start)
        if surroundings.left_lung is not None:
            held += surroundings.left_lung.nbytes
        if self.margin_mm > 0:
            held += crop.signal.nbytes  # the engine keeps the lungs' box for itself
        return _Source(surroundings, start, held)

    @property
    def held_gb(self) -> float:
        """Memory that sources take now, GB."""
        return sum(source.n_bytes for source in self._sources.values()) / 1e9

    def warm(self) -> int:
        """Read sources until they are all in memory or it is full; return how many are.

        Worker processes that are forked afterwards share them instead of reading each for itself.
        """
        for entry in self.entries:
            if entry.name in self._sources:
                continue
            if self._sources and self.held_gb * (1 + 1 / len(self._sources)) > self.memory_gb:
                break
            self._source(entry.name)
        return len(self._sources)

    def __iter__(self) -> Iterator[SyntheticCrop]:
        return self.sharded(0, 1)

    def sharded(self, index: int, number: int) -> Iterator[SyntheticCrop]:
        """Every `number`-th volume from `index` on, without end: the part of one of `number` workers.

        Raises
        ------
        UsageError
            When there is no such part.
        """
        if not 0 <= index < number:
            raise UsageError("no such part of the stream", got=f"{index} of {number}", expected="0 <= i < n")
        return self._stream(index, number)

    def _stream(self, first: int, step: int) -> Iterator[SyntheticCrop]:
        number = first
        while True:
            yield self.make(self.draw(number))
            number += step

    def take(self, number: int) -> list[SyntheticCrop]:
        """The first volumes of the stream."""
        return [self.make(self.draw(k)) for k in range(number)]


def remake(cohort: Cohort, provenance: dict[str, Any]) -> SyntheticCrop:
    """A sampled volume again, from its provenance and its source alone.

    Raises
    ------
    UsageError
        When the provenance is not that of a sampled volume.
    ScanFileError
        When the source is missing or was altered.
    """
    if provenance.get("operation") != "sample":
        raise UsageError(
            "not a volume of a ProgressionSampler", got=provenance.get("operation"), expected="sample"
        )
    try:
        origin, draw = provenance["source"], Draw.from_json(provenance["draw"])
        parameters, margin_mm = (
            TransitionParameters.from_json(provenance["parameters"]),
            float(provenance["margin_mm"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"not the provenance of a sampled volume ({error!r})") from None
    sources = cohort.sources or cohort
    entry = sources.source(**origin)
    crop = read_lung_crop(sources, entry)
    state = draw.play.advance(crop.start(), parameters)
    kept = {key: value for key, value in provenance.items() if key not in ("source", "report")}
    surroundings = surroundings_of(sources, entry, crop, margin_mm)
    return synthesise(surroundings, state, draw.play.transitions, kept)
