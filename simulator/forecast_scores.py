"""Scores of a forecast against the scan that came, and the two rivals it has to beat.

Everything is counted on the voxels of the scan that the forecast starts from. A score that is not defined is None.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from simulator.dynamics.bins import bin_centres
from standard_space.errors import DataError
from standard_space.geometry import Triple

Mask = NDArray[np.bool_]
Counts = NDArray[np.float64]


@dataclass(frozen=True)
class VoxelScores:
    """How well a forecast lies on what was observed.

    Attributes
    ----------
    dice : float
        2 |F and O| / (|F| + |O|) of the infections; 1 when both are empty.
    dice_above : float or None
        The same for infected voxels with a signal of 0 or more; None when neither has any.
    figure_of_merit : float or None
        hits / (hits + misses + false alarms + wrong hits) over voxels that changed since the start (Pontius et
        al., Ann. Reg. Sci. 42 (2008), DOI 10.1007/s00168-007-0138-2). A voxel is infected or not, so a change can
        only be to the other state and wrong hits are always 0. None when nothing changed or was forecast to.
    hits, misses, false_alarms : int
        Changed and forecast to; changed but not forecast to; forecast to change but did not. Voxels.
    """

    dice: float
    dice_above: float | None
    figure_of_merit: float | None
    hits: int
    misses: int
    false_alarms: int

    def to_json(self) -> dict[str, float | int | None]:
        """Plain values."""
        return asdict(self)


class Comparison:
    """Scores many forecasts of one scan; each costs only its infected voxels.

    Parameters
    ----------
    start : bool array, shape (z, y, x)
        Infection that the forecast starts from.
    observed, observed_above : bool array, shape (z, y, x)
        Infection that was observed later, and its part with a signal of 0 or more, on the same voxels.
    """

    def __init__(self, start: Mask, observed: Mask, observed_above: Mask) -> None:
        if not start.shape == observed.shape == observed_above.shape:
            raise DataError(
                "masks of a comparison differ in shape",
                got=f"{observed.shape} and {observed_above.shape}",
                expected=start.shape,
            )
        self._start, self._observed, self._above = start.ravel(), observed.ravel(), observed_above.ravel()
        self._n_start = int(np.count_nonzero(start))
        self._n_observed = int(np.count_nonzero(observed))
        self._n_above = int(np.count_nonzero(observed_above))
        self._n_kept = int(np.count_nonzero(start & observed))

    @property
    def changed(self) -> int:
        """Voxels whose state differs between start and observation."""
        return self._n_start + self._n_observed - 2 * self._n_kept

    def score(self, index: NDArray[np.integer], above: NDArray[np.bool_]) -> VoxelScores:
        """Scores of one forecast.

        Parameters
        ----------
        index : int array, shape (n,)
            Flat C-order indices of its infected voxels, each once.
        above : bool array, shape (n,)
            Which of them have a signal of 0 or more.
        """
        number = int(index.size)
        in_start, in_observed = self._start[index], self._observed[index]
        met = int(np.count_nonzero(in_observed))
        stayed = int(np.count_nonzero(in_start))
        stayed_and_met = int(np.count_nonzero(in_start & in_observed))
        born_hits = met - stayed_and_met
        gone_hits = (self._n_start - stayed) - (self._n_kept - stayed_and_met)
        hits = born_hits + gone_hits
        predicted = number + self._n_start - 2 * stayed
        misses, false_alarms = self.changed - hits, predicted - hits
        events = hits + misses + false_alarms
        n_above = int(np.count_nonzero(above))
        met_above = int(np.count_nonzero(self._above[index[above]]))
        return VoxelScores(
            dice=2.0 * met / (number + self._n_observed) if number + self._n_observed else 1.0,
            dice_above=2.0 * met_above / (n_above + self._n_above) if n_above + self._n_above else None,
            figure_of_merit=hits / events if events else None,
            hits=hits,
            misses=misses,
            false_alarms=false_alarms,
        )

    def score_mask(self, mask: Mask, above: Mask) -> VoxelScores:
        """`score` of masks, shape (z, y, x)."""
        index = np.flatnonzero(mask)
        return self.score(index, above.ravel()[index])

    def score_occurrence(self, times: NDArray[np.unsignedinteger], runs: int) -> dict[str, float | None]:
        """Scores of how often each voxel was infected.

        Parameters
        ----------
        times : unsigned array, shape (z, y, x)
            Runs in which the voxel is infected at the end.
        runs : int
            Number of runs.

        Returns
        -------
        dict
            `dice_at_half`: Dice of the voxels infected in at least half of the runs. `brier_skill`: 1 - sum of
            squared differences between probability and observation over the same of persistence, so 0 is as
            good as persistence and 1 perfect; None when nothing changed. `agreement`: expected Dice between two of
            the runs, what a perfect model reaches against itself; None for a single run.
        """
        flat = times.ravel()
        touched = np.flatnonzero((flat > 0) | self._observed)
        share = flat[touched] / runs
        seen = self._observed[touched]
        squared = float(((share - seen) ** 2).sum())
        often = share >= 0.5
        met, number = int(np.count_nonzero(often & seen)), int(np.count_nonzero(often))
        counted = flat[touched].astype(np.float64)
        pairs_met = float((counted * (counted - 1)).sum())
        pairs_total = float(counted.sum()) * (runs - 1)
        return {
            "dice_at_half": 2.0 * met / (number + self._n_observed) if number + self._n_observed else 1.0,
            "brier_skill": 1.0 - squared / self.changed if self.changed else None,
            "agreement": pairs_met / pairs_total if pairs_total else None,
        }


def signal_distance(first: Counts, second: Counts) -> float | None:
    """Wasserstein-1 distance between two signal distributions, each as a share of its voxels, in units of signal.

    Parameters
    ----------
    first, second : float64 array, shape (130,)
        Voxels per bin; voxels count as at the centre of their bin.

    Returns
    -------
    float or None
        None when either is empty.
    """
    if not (first.sum() > 0 and second.sum() > 0):
        return None
    centres = bin_centres()
    return float(wasserstein_distance(centres, centres, first, second))


def volume_error(forecast_ml: float, observed_ml: float) -> tuple[float, float | None]:
    """Forecast minus observed volume in ml and in percent of the observed one (None when that is 0)."""
    error = forecast_ml - observed_ml
    return error, 100.0 * error / observed_ml if observed_ml > 0 else None


def grown_to(
    start: Mask, susceptible: Mask, voxels: int, spacing_mm: Triple, *, seed: int = 0
) -> tuple[Mask, str | None]:
    """Uniform dilation (or erosion) of a lesion to a given size, the baseline that is told the true volume.

    Susceptible voxels join in the order of their distance in mm to the lesion; when the lesion has to shrink, the
    voxels nearest to its surface leave first. Voxels at equal distance go in a random order.

    Parameters
    ----------
    start, susceptible : bool array, shape (z, y, x)
        The lesion, not empty, and where it may grow.
    voxels : int
        Wanted size, 0 or more.
    spacing_mm : tuple of float
        (z, y, x), mm.
    seed : int
        Of the order among equals.

    Returns
    -------
    mask : bool array, shape (z, y, x)
    note : str or None
        What a reader should know: susceptible tissue was too small.

    Raises
    ------
    DataError
        When the lesion is empty.
    """
    if not start.any():
        raise DataError("there is no lesion to dilate")
    now = int(np.count_nonzero(start))
    if voxels == now:
        return start.copy(), None
    growing = voxels > now
    surface = sitk.GetImageFromArray((start if growing else ~start).astype(np.uint8))
    surface.SetSpacing(spacing_mm[::-1])
    # Positive beyond the object; scipy's transform agrees but needs six times the memory and time.
    distance = sitk.GetArrayFromImage(
        sitk.SignedMaurerDistanceMap(
            surface, insideIsPositive=False, squaredDistance=False, useImageSpacing=True
        )
    )
    candidates = np.flatnonzero(susceptible & ~start if growing else start)
    wanted = abs(voxels - now)
    order = np.random.default_rng([seed, 0xD11A]).permutation(candidates.size)
    shuffled = candidates[order]
    chosen = shuffled[np.argsort(distance.ravel()[shuffled], kind="stable")[:wanted]]
    mask = start.copy()
    mask.ravel()[chosen] = growing
    if chosen.size < wanted:
        return (
            mask,
            f"susceptible tissue has no room for {wanted - chosen.size} voxels of the dilation baseline",
        )
    return mask, None
