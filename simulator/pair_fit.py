"""The dynamics between two scans of a patient [paper III-C]."""

from __future__ import annotations

from simulator.dynamics.fit import fit_pair as fit_histograms
from simulator.fits import StoredFit
from simulator.series import Observation, Pair, observe, pairs
from standard_space.errors import UsageError
from standard_space.scan import Scan


def fit_pair(before: Scan, after: Scan, *, loss: str = "l2", intervals: str = "wald") -> StoredFit:
    """Fit the eight transition parameters that lead from one scan of a patient to a later one.

    Parameters
    ----------
    before, after : Scan
        Annotated, of one patient and on the same grid; `after` is the later one.
    loss : {"l2", "poisson"}
        L2 in absolute counts [paper], or the Poisson likelihood.
    intervals : {"wald", "profile"}
        95 %, from standard errors or from the profile of the loss.

    Returns
    -------
    StoredFit
        ``fit.parameters`` are the dynamics W with their intervals in ``fit``; ``notes()`` says what a reader
        should know, problems first.

    Raises
    ------
    UsageError
        Scans of different patients or on different grids.
    DataError
        A scan without infection, or days that do not run forward.
    ValueError
        A histogram that the dynamics refuse (`simulator.dynamics.errors`).
    """
    if before.patient != after.patient:
        raise UsageError("the scans are of different patients", got=f"{before.patient} and {after.patient}")
    if before.grid != after.grid:
        raise UsageError("the scans lie on different grids", got=f"{before.grid.size} and {after.grid.size}")
    observed = [observe(before), observe(after)]
    return stored_fit(pairs(observed)[1], observed[1], None, loss=loss, intervals=intervals)


def stored_fit(
    pair: Pair, after: Observation, from_sha256: str | None, *, loss: str, intervals: str
) -> StoredFit:
    """Fit a pair, and keep with the fit what it was made of; `from_sha256` is of the earlier scan's contents."""
    return StoredFit(
        patient=pair.patient,
        from_scan=pair.from_scan,
        to_scan=pair.to_scan,
        from_sha256=from_sha256,
        to_sha256=after.content_sha256,
        transitions=pair.transitions,
        lung_volume_ratio=pair.lung_volume_ratio,
        clamped_low=after.clamped_low,
        clamped_high=after.clamped_high,
        voxel_volume_ml=after.voxel_volume_ml,
        fit=fit_histograms(pair.before, pair.after, pair.transitions, loss=loss, intervals=intervals),
    )
