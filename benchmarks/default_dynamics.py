"""Where `simulator.progression.DEFAULT_DYNAMICS` comes from: a fit to what is published about real lesions.

    python benchmarks/default_dynamics.py

A pair of histograms seven days apart is fitted with `simulator.dynamics.fit.fit_pair` (L2, all eight
parameters): 5 ml at the recovery limit, which is what twelve seeds hold (`simulator.seeding`), and the median
real lesion, 66 ml (50 radiologist annotations of MosMedData), whose signals follow the five percentiles of one
annotated thin-slice scan. Seven days is a choice, "tens of ml in about a week": opacities appear 3.4 +- 2.2 days
before symptoms and peak about a day after onset (Sci Rep 2021, 29 patients, 121 CTs), but the 50 lesions were seen
at unknown days. All these facts are in shared/data/lesion_statistics.json of the development tree; the numbers are
repeated here.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run by its path, not as a module
    sys.path.insert(0, str(ROOT))

from simulator.dynamics.bins import N_BINS  # noqa: E402
from simulator.dynamics.fit import PairFit, fit_pair  # noqa: E402

TRANSITIONS = 700
SEEDED_ML, LESION_ML = 5.0, 66.02
PERCENT = (0, 5, 25, 50, 75, 95, 100)
SIGNAL = (-0.15, -0.077, 0.007, 0.097, 0.24, 0.387, 0.5)
"""Percentiles of lesion signals, (HU + 600) / 1500, between the model's limits."""

VOXEL_ML = (334 / 512) ** 2 / 1000


def seeded_counts() -> NDArray[np.float64]:
    """Voxels per bin of the seeds."""
    counts = np.zeros(N_BINS)
    counts[0] = SEEDED_ML / VOXEL_ML
    return counts


def lesion_counts() -> NDArray[np.float64]:
    """Voxels per bin of the median real lesion; between percentiles a monotone cubic (PCHIP) distribution."""
    share = PchipInterpolator(SIGNAL, np.array(PERCENT) / 100)(np.linspace(-0.15, 0.5, N_BINS + 1))
    return np.asarray(np.diff(share) * LESION_ML / VOXEL_ML, np.float64)


def fit_default() -> PairFit:
    """The fit."""
    return fit_pair(seeded_counts(), lesion_counts(), TRANSITIONS)


def main() -> None:
    """Print the fit."""
    fit = fit_default()
    for name, value in fit.parameters.to_json().items():
        print(f"{name:<26}{value:.6g}")
    print(f"relative L2 {fit.goodness['relative_l2']:.3f}, at a bound: {', '.join(fit.at_bound) or 'none'}")


if __name__ == "__main__":
    main()
