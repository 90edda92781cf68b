"""Lesion progression: series, augmentation, phantom cohort and forecast."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator.cohort_fit import fit_cohort
    from simulator.fits import CohortFits
    from simulator.pair_fit import fit_pair
    from simulator.phantom.cohort import make_cohort
    from simulator.progression import progress
    from simulator.sampler import ProgressionSampler

__all__ = ["CohortFits", "ProgressionSampler", "fit_cohort", "fit_pair", "make_cohort", "progress"]

_MODULES = {
    "CohortFits": "simulator.fits",
    "ProgressionSampler": "simulator.sampler",
    "fit_cohort": "simulator.cohort_fit",
    "fit_pair": "simulator.pair_fit",
    "make_cohort": "simulator.phantom.cohort",
    "progress": "simulator.progression",
}


def __getattr__(name: str) -> Any:
    # Imported when first used: `lungcast --help` must not wait for PyTorch and Numba.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
