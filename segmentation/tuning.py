"""The rule that makes one mask of a method's views, tuned on validation scans, standard grid (DESIGN 5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from segmentation.aggregation import LEARNED_RULES, RULES, Aggregation, usual_threshold
from segmentation.evaluation.scan_scores import no_truth, truth_of
from segmentation.learned_rules import fit_rule
from segmentation.methods import predictor_for
from segmentation.scan_predictor import ScanPredictor, region_of
from segmentation.segmenter import Segmenter, seed_for
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
    scans : int
        Tuned on; those that were skipped do not count.
    """

    aggregation: Aggregation
    median_dice: float
    thresholds: list[float]
    scores: list[float]
    scans: int


@dataclass(frozen=True)
class _Region:
    """The voxels of a scan where the target can be: probabilities (views, voxels), truth; true ones anywhere."""

    views: torch.Tensor
    truth: NDArray[np.bool_]
    true: int


def tune(
    model: Segmenter,
    validation: Iterable[Scan],
    *,
    rule: str = "sum>t",
    device: str | torch.device = "auto",
) -> Tuned:
    """Find the numbers of a rule and the threshold with the best median Dice on validation scans.

    The model is not changed; set ``model.aggregation`` to keep the result. Scans that `not_tuned_on` names a
    reason for are skipped. Every threshold's Dice is exact; among equals the one nearest to the rule's usual one
    wins. One scan is in memory at a time. A learned rule needs them twice: first for a sample of their voxels,
    then for their Dice.

    Parameters
    ----------
    model : Segmenter
    validation : iterable of Scan
        Of patients that the model was not trained on. For a learned rule it must give the same scans each time
        it is gone through, as a list does and a generator does not.
    rule : str
        One of `RULES`; learned ones are fitted first, see `fit_rule`, on voxels drawn by a fixed seed, each scan
        counting the same.
    device : str or torch.device

    Raises
    ------
    DataError
        No validation scan has anything to find, a scan lies on another grid, a rule could not be learned, or the
        scans were not the same the second time.
    UsageError
        Unknown rule or device, or scans that can be gone through once only.
    """
    return tune_with(predictor_for(model, device=device), validation, rule=rule)


def tune_with(predictor: ScanPredictor, validation: Iterable[Scan], *, rule: str = "sum>t") -> Tuned:
    """Do what `tune` does with a predictor that is ready."""
    if rule not in RULES:
        raise UsageError("unknown aggregation rule", got=rule, expected=", ".join(RULES))
    regions = _Regions(predictor, validation)
    if rule not in LEARNED_RULES:
        return _best(Aggregation(rule, usual_threshold(rule)), regions)
    if isinstance(validation, Iterator):
        raise UsageError("a learned rule goes through the validation scans twice", remedy="give a collection")
    samples = [_sample(region, number) for number, region in enumerate(regions)]
    if not samples:
        raise _nothing_to_find(regions.target)
    weights, bias = fit_rule(rule, *(np.concatenate(parts) for parts in zip(*samples, strict=True)))
    tuned = _best(Aggregation(rule, usual_threshold(rule), weights, bias), regions)
    if tuned.scans != len(samples):
        raise DataError(
            "the validation scans changed while the rule was learned",
            got=f"{tuned.scans} scans",
            expected=f"{len(samples)} as before",
        )
    return tuned


def not_tuned_on(scan: Scan, target: str) -> str | None:
    """Say why a scan cannot help to tune a model of a target, None when it can.

    The scan needs an annotation, which for the lungs is the user's own mask, with at least one voxel; and for the
    infection it needs lungs, outside of which nothing is found whatever the rule.
    """
    reason = no_truth(scan, target, "standard")
    if reason is None and not region_of(scan, target).any():
        return "it has no lungs"
    if reason is None and not truth_of(scan, target, "standard").mask.any():
        return "its annotation is empty"
    return reason


def thresholds_of(rule: str) -> NDArray[np.float64]:
    """Return the thresholds that are tried for a rule, on its scale."""
    step, end = STEPS.get(rule, OTHER_STEP), 3.0 if rule == "sum>t" else 1.0
    return np.round(np.arange(round(end / step) + 1) * step, 3)


def _best(aggregation: Aggregation, regions: _Regions) -> Tuned:
    thresholds = thresholds_of(aggregation.rule)
    cuts = np.array([aggregation.at(threshold).cut for threshold in thresholds], np.float32)
    per_scan = [_dice_at(cuts, aggregation, region) for region in regions]
    if not per_scan:
        raise _nothing_to_find(regions.target)
    median = np.median(per_scan, axis=0)
    best = np.flatnonzero(median == median.max())
    chosen = int(best[np.argmin(np.abs(thresholds[best] - usual_threshold(aggregation.rule)))])
    return Tuned(
        replace(aggregation, threshold=float(thresholds[chosen])),
        float(median[chosen]),
        thresholds.tolist(),
        median.tolist(),
        len(per_scan),
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


def _sample(
    region: _Region, number: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """Return voxels to learn from: probabilities (voxels, views), truth, and importance, whose sum is 1."""
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


class _Regions:
    """The regions of the scans that can be tuned on, predicted anew each time they are gone through."""

    def __init__(self, predictor: ScanPredictor, scans: Iterable[Scan]) -> None:
        self._predictor, self._scans = predictor, scans
        self.target = predictor.model.target

    def __iter__(self) -> Iterator[_Region]:
        for scan in self._scans:
            if not_tuned_on(scan, self.target) is not None:
                continue
            truth = truth_of(scan, self.target, "standard").mask
            views, box = self._predictor.views(scan)
            inside = region_of(scan, self.target)[box]
            yield _Region(
                views.cpu()[:, torch.from_numpy(np.ascontiguousarray(inside))],
                truth[box][inside],
                int(np.count_nonzero(truth)),
            )


def _nothing_to_find(target: str) -> DataError:
    what = "infected voxels" if target == "infection" else "lung masks of your own"
    return DataError(
        "no validation scan holds anything of what the model finds",
        remedy=f"validate on annotated scans with {what}",
    )
