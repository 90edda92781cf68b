"""What `lungcast fit` prints: values of every pair with their intervals, and the population."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulator.dynamics.pair_fit import PairFit
    from simulator.dynamics.population import Population
    from simulator.fits import CohortFits

_SHOWN = (
    ("absorption_rate", "absorption"),
    ("ggo_growth_rate", "GGO growth"),
    ("conversion_probability", "conversion"),
    ("consolidation_growth_rate", "consol. growth"),
    ("stiffness", "stiffness"),
)


def _range(low: float, high: float, ends: Sequence[str] = ()) -> str:
    return f"{'<' if 'low' in ends else ''}{low:.3g}..{high:.3g}{'>' if 'high' in ends else ''}"


def _interval(fit: PairFit, name: str) -> str:
    low, high = fit.intervals[name]
    return _range(low, high, fit.open_ends.get(name, ()))


def fit_rows(fits: CohortFits) -> list[list[str]]:
    """Two rows per pair: values, and intervals below them."""
    rows = [["pair", "days", "births/day ml", *(heading for _, heading in _SHOWN), "chi2"]]
    for stored in fits.fits:
        fit = stored.fit
        born, born_low, born_high = (
            fit.derived[f"births_per_day{end}"] * stored.voxel_volume_ml for end in ("", "_low", "_high")
        )
        rows.append(
            [
                stored.name,
                f"{stored.transitions / 100:g}",
                f"{born:.2f}",
                *(f"{getattr(fit.parameters, name):.3f}" for name, _ in _SHOWN),
                f"{fit.goodness['reduced_chi_square']:.1f}",
            ]
        )
        ranges = [_interval(fit, name) for name, _ in _SHOWN]
        rows.append([f"  {fit.level:.0%}", "", _range(born_low, born_high), *ranges, ""])
    return rows


def population_rows(population: Population) -> list[list[str]]:
    """One row per parameter: its mean over patients, and the range of 95 % of them."""
    rows = [["over patients", "mean", "95 % of patients"]]
    for name, (low, middle, high) in population.quantiles().items():
        rows.append([name, f"{middle:.3g}", _range(low, high)])
    return rows
