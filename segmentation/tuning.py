"""The rule that makes one mask of three views, tuned on validation scans, standard grid (DESIGN 5)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from segmentation.aggregation import DEFAULT_THRESHOLD, LEARNED_RULES, RULES, Aggregation
from segmentation.learned_rules import fit_rule
from segmentation.model import ThreeWaySegmenter, seed_for
from segmentation.predict import Predictor, region_of
from standard_space.errors import DataError, UsageError
from standard_space.scan import Scan

SAMPLED_VOXELS = 20_000
"""Infected, and as many healthy ones, that a rule is learned from, per scan."""

SEED = 0

STEPS = {"sum>t": 0.005}
OTHER_STEP = 0.001
"""Between the thresholds that are tried."""


@dataclass(frozen=True)
class Tuned:
    """The tuned rule and what was tried.

    Attributes
    ----------
    aggregation : Aggregation
        With learned numbers, where the rule has any, and the best threshold.
    median_dice : float
        Over the validation scans at that threshold, standard grid.
    thresholds, scores : list of float
        Every threshold tried, on the rule's scale, and its median Dice.
    """

    aggregation: Aggregation
    median_dice: float
    thresholds: list[float]
    scores: list[float]


@dataclass(frozen=True)
class _Region:
    """The voxels of a scan where the target can be: probabilities (3, voxels), truth, and true voxels anywhere."""

    views: torch.Tensor
    truth: NDArray[np.bool_]
    true: int


def tune(
    model: ThreeWaySegmenter,
    validation: Iterable[Scan],
    *,
    rule: str = "sum>t",
    device: str | torch.device = "auto",
) -> Tuned:
    """Find the numbers of a rule and the threshold with the best median Dice on validation scans.

    The model is not changed; set ``model.aggregation`` to keep the result. Scans without annotation, or without a
    single voxel of the target, are skipped. Every threshold's Dice is exact; among equals the one nearest to the
    rule's usual one wins. Scans are read once, one at a time; for a learned rule their probabilities wait in a
    temporary file.

    Parameters
    ----------
    model : ThreeWaySegmenter
    validation : iterable of Scan
        Of patients that the model was not trained on.
    rule : str
        One of `RULES`; learned ones are fitted first, see `fit_rule`, on voxels drawn by a fixed seed, each scan
        counting the same.
    device : str or torch.device

    Raises
    ------
    DataError
        No validation scan has anything to find, a scan lies on another grid, or a rule could not be learned.
    UsageError
        Unknown rule or device.
    """
    if rule not in RULES:
        raise UsageError("unknown aggregation rule", got=rule, expected=", ".join(RULES))
    predictor = Predictor(model, device=device)
    found = (_read(predictor, scan) for scan in validation)
    regions = (region for region in found if region is not None)
    if rule not in LEARNED_RULES:
        return _best(Aggregation(rule, usual_threshold(rule)), regions)
    with tempfile.TemporaryDirectory(prefix="lungcast-tune-") as folder:
        kept = _Spool(Path(folder))
        samples = [kept.add(region, number) for number, region in enumerate(regions)]
        if not samples:
            raise _nothing_to_find()
        weights, bias = fit_rule(
            rule,
            np.concatenate([sample[0] for sample in samples]),
            np.concatenate([sample[1] for sample in samples]),
            np.concatenate([sample[2] for sample in samples]),
        )
        return _best(Aggregation(rule, usual_threshold(rule), weights, bias), kept)


def usual_threshold(rule: str) -> float:
    """Return a rule's threshold before tuning: the paper's, a third of it for means, even odds when learned."""
    if rule in LEARNED_RULES:
        return 0.5
    return DEFAULT_THRESHOLD if rule == "sum>t" else DEFAULT_THRESHOLD / 3.0


def thresholds_of(rule: str) -> NDArray[np.float64]:
    """Return the thresholds that are tried for a rule, on its scale."""
    step, end = STEPS.get(rule, OTHER_STEP), 3.0 if rule == "sum>t" else 1.0
    return np.round(np.arange(round(end / step) + 1) * step, 3)


def _best(aggregation: Aggregation, regions: Iterable[_Region]) -> Tuned:
    thresholds = thresholds_of(aggregation.rule)
    cuts = np.array([aggregation.at(threshold).cut for threshold in thresholds], np.float32)
    per_scan = [_dice_at(cuts, aggregation, region) for region in regions]
    if not per_scan:
        raise _nothing_to_find()
    median = np.median(per_scan, axis=0)
    best = np.flatnonzero(median == median.max())
    chosen = int(best[np.argmin(np.abs(thresholds[best] - usual_threshold(aggregation.rule)))])
    return Tuned(
        replace(aggregation, threshold=float(thresholds[chosen])),
        float(median[chosen]),
        thresholds.tolist(),
        median.tolist(),
    )


def _dice_at(cuts: NDArray[np.float32], aggregation: Aggregation, region: _Region) -> NDArray[np.float64]:
    """Return the Dice of a scan at every cut, exactly: what exceeds a cut is counted, nothing is binned."""
    combined = aggregation.combine(region.views).numpy()
    exceeded = np.searchsorted(cuts, combined, side="left")  # how many of the cuts a voxel exceeds
    predicted, hits = (
        np.bincount(places, minlength=cuts.size + 1)[::-1].cumsum()[::-1][1:]
        for places in (exceeded, exceeded[region.truth])
    )
    return 2.0 * hits / (predicted + region.true)


def _read(predictor: Predictor, scan: Scan) -> _Region | None:
    target = predictor.model.target
    truth = scan.infection if target == "infection" else scan.lungs
    if truth is None or not truth.any():
        return None
    views, box = predictor.views(scan)
    inside = region_of(scan, target)[box]
    return _Region(
        views.cpu()[:, torch.from_numpy(np.ascontiguousarray(inside))],
        truth[box][inside],
        int(np.count_nonzero(truth)),
    )


class _Spool:
    """Regions of scans in a folder, read back one at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rest: list[tuple[Path, NDArray[np.uint8], int]] = []

    def add(
        self, region: _Region, number: int
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
        """Keep a region; return its sample: probabilities (voxels, 3), truth and importance (sum 1)."""
        path = self._folder / f"{number}.npy"
        np.save(path, region.views.numpy())
        self._rest.append((path, np.packbits(region.truth), region.true))
        rng = np.random.default_rng(seed_for(SEED, "tune", str(number)))
        drawn, importance = [], []
        for kind in (region.truth, ~region.truth):
            places = np.flatnonzero(kind)
            taken = rng.choice(places, min(SAMPLED_VOXELS, places.size), replace=False)
            drawn.append(taken)
            # Each kind counts as often as it is in the scan, however many of it were drawn.
            share = places.size / region.truth.size
            importance.append(np.full(taken.size, share / max(taken.size, 1)))
        voxels = np.concatenate(drawn)
        views = region.views.numpy()[:, voxels].T.astype(np.float64)
        return views, region.truth[voxels], np.concatenate(importance)

    def __iter__(self) -> Iterator[_Region]:
        for path, packed, true in self._rest:
            views = np.load(path)
            yield _Region(
                torch.from_numpy(views), np.unpackbits(packed, count=views.shape[1]).astype(np.bool_), true
            )


def _nothing_to_find() -> DataError:
    return DataError(
        "no validation scan holds anything of what the model finds",
        remedy="validate on annotated scans with infected voxels",
    )
