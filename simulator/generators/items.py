"""Generated scans by ratio, made when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from simulator.augmentation_plan import plan_volumes
from simulator.generators import copy_paste, ellipsoids
from standard_space.errors import DataError, UsageError
from standard_space.scan import Scan

KINDS = (copy_paste.NAME, ellipsoids.NAME)

Reader = Callable[[], Scan]
"""Reads a scan."""


@dataclass(frozen=True)
class GeneratedScan:
    """One generated scan, not made yet; can be pickled when its readers can.

    Parameters
    ----------
    target : int
        Index of the scan it is made from.
    number : int
        From 1, among those of its target.
    maker : callable
        A pure function that makes it.
    """

    target: int
    number: int
    maker: Reader

    def make(self) -> Scan:
        """Make it: the same scan every time.

        Raises
        ------
        DataError
            When no donor's lesion lies within the target's lungs, or the target has no healthy lung.
        """
        return self.maker()


def generated(
    kind: str, targets: Sequence[Reader], donors: Sequence[Reader], ratio: float, seed: int
) -> list[GeneratedScan]:
    """Generated scans of every target, as many as the simulator would make at this ratio and seed.

    Every scan is read once to know its patient.

    Parameters
    ----------
    kind : str
        Of `KINDS`.
    targets : sequence of callable
        Read the scans to put lesions in.
    donors : sequence of callable
        Read the scans to take lesions from, for "copy-paste"; those without lesions are passed over. A target's
        donors are of other patients when there are any, and never the target itself.
    ratio : float
        Generated scans per target; 2.0 is 200 %: see `simulator.augmentation_plan.plan_volumes`.
    seed : int

    Returns
    -------
    list of GeneratedScan
        By target, then number.

    Raises
    ------
    UsageError
        When the kind is unknown, the ratio negative, or a target has no donor.
    """
    if kind not in KINDS:
        raise UsageError("unknown generator", got=repr(kind), expected=" or ".join(KINDS))
    if not 0.0 <= ratio < float("inf"):
        raise UsageError("the ratio is negative or not finite", got=ratio)
    known: dict[int, tuple[str, str, bool]] = {}

    def look(reader: Reader) -> tuple[str, str, bool]:
        if id(reader) not in known:
            scan = reader()
            sick = scan.infection is not None and bool(scan.infection.any())
            known[id(reader)] = scan.patient, scan.scan, sick
        return known[id(reader)]

    lenders = [(look(donor), donor) for donor in donors] if kind == copy_paste.NAME else []
    lenders = [(found, donor) for found, donor in lenders if found[2]]
    items = []
    for index, target in enumerate(targets):
        patient, scan, _ = look(target)
        plans = plan_volumes(patient, scan, ratio, seed)
        if kind == ellipsoids.NAME:
            makers = [partial(_draw_ellipsoids, target, plan.seed) for plan in plans]
        else:
            others = [donor for found, donor in lenders if found[0] != patient]
            others = others or [donor for found, donor in lenders if found[:2] != (patient, scan)]
            if plans and not others:
                raise UsageError("no other scan has lesions to paste", where=f"{patient}/{scan}")
            makers = [partial(_paste, target, tuple(others), plan.seed) for plan in plans]
        items += [GeneratedScan(index, plan.number, maker) for plan, maker in zip(plans, makers, strict=True)]
    return items


def _draw_ellipsoids(target: Reader, seed: int) -> Scan:
    scan = target()
    lungs_ml = float(scan.lungs.sum()) * scan.grid.voxel_volume_ml
    return ellipsoids.apply(scan, ellipsoids.draw(np.random.default_rng(seed), lungs_ml), seed)


def _paste(target: Reader, donors: tuple[Reader, ...], seed: int) -> Scan:
    """A drawn donor's lesions in the target; of donors whose lesions miss its lungs, the next in a drawn order."""
    rng = np.random.default_rng(seed)
    drawn = copy_paste.draw(rng)
    scan = target()
    for index in rng.permutation(len(donors)):
        donor = donors[int(index)]()
        if copy_paste.fits(scan, donor, drawn):
            return copy_paste.apply(scan, donor, drawn, seed)
    raise DataError("no donor's lesion lies within the lungs", where=scan.name)
