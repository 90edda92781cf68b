"""The picture of a fit: what was observed, what the model makes of it, and how well each value is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from simulator.dynamics import fit_space
from simulator.dynamics.bins import bin_centres
from simulator.dynamics.pair_fit import PairFit
from simulator.dynamics.parameters import PARAMETER_NAMES
from simulator.figure_style import BEFORE_COLOUR, FITTED_COLOUR, OBSERVED_COLOUR, new_figure
from simulator.fits import StoredFit

_LOGARITHMIC = ("birth_rate", "absorption_rate", "stiffness")
_SHARES = ("ggo_growth_rate", "conversion_probability", "consolidation_growth_rate")


def fit_figure(stored: StoredFit) -> Figure:
    """Draw a fit: signal distributions and their residual; intervals of the eight values; both as numbers.

    Parameters
    ----------
    stored : StoredFit

    Returns
    -------
    Figure
        Three panels. Intervals are shown within the range that a fit allows, on a logarithmic scale where the fit
        is made on one; an arrow marks an end that the data do not close.
    """
    figure, axes = new_figure(13.5, 4.6, 1, 3, width_ratios=[1.35, 0.5, 1])
    curve, intervals, table = axes[0]
    _distributions(curve, stored)
    _intervals(intervals, stored.fit)
    _numbers(table, stored.fit)
    return figure


def place_in_range(values: Sequence[float], name: str, absorption_rate: float) -> NDArray[np.float64]:
    """Where values of a parameter lie in the range that a fit allows: 0 is its lower bound, 1 its upper one.

    Parameters
    ----------
    values : sequence of float
    name : str
        Of `PARAMETER_NAMES`.
    absorption_rate : float
        The fit's: growth and conversion are bounded by what absorption leaves.

    Returns
    -------
    float64 array, shape of `values`, 0..1
    """
    i = PARAMETER_NAMES.index(name)
    given = np.asarray(values, np.float64)
    if name in _SHARES:
        given = given / (1.0 - absorption_rate)
    if name in _LOGARITHMIC:
        given = np.log(np.maximum(given, 1e-300))
    low, high = fit_space.LOWER[i], fit_space.UPPER[i]
    return np.clip((given - low) / (high - low), 0.0, 1.0)


def _distributions(curve: Axes, stored: StoredFit) -> None:
    centres = bin_centres()
    fit = stored.fit
    before_label = "before (Y$_{t0}$)" if stored.from_scan == "t0" else f"before ({stored.from_scan})"
    shown = [fit.observed, fit.fitted]
    if stored.from_scan != "t0":
        shown.append(fit.before)
        curve.fill_between(
            centres, fit.before, color=BEFORE_COLOUR, alpha=0.4, step="mid", label=before_label
        )
    else:
        curve.axvline(centres[0], color=BEFORE_COLOUR, linewidth=4, alpha=0.6, label=before_label)
    curve.step(
        centres, fit.observed, where="mid", color=OBSERVED_COLOUR, label=f"observed ({stored.to_scan})"
    )
    curve.plot(centres, fit.fitted, color=FITTED_COLOUR, linewidth=2, label="fitted")
    curve.plot(centres, fit.observed - fit.fitted, color="#444444", linewidth=0.6, label="residual")
    curve.axvline(0.0, color="black", linestyle=":", linewidth=1)
    curve.set_ylim(top=1.08 * max(float(np.max(values)) for values in shown))
    curve.set_xlabel("signal, (HU - WL) / WW")
    curve.set_ylabel(f"voxels per bin of {centres[1] - centres[0]:.3f}")
    curve.set_title(f"{stored.name}, {stored.transitions / 100:g} days")
    curve.legend(frameon=False)


def _intervals(axes: Axes, fit: PairFit) -> None:
    fall = fit.parameters.absorption_rate
    for row, name in enumerate(PARAMETER_NAMES):
        value = place_in_range([getattr(fit.parameters, name)], name, fall)[0]
        low, high = place_in_range(fit.intervals[name], name, fall)
        axes.hlines(row, low, high, color=FITTED_COLOUR, linewidth=2)
        ends = fit.open_ends.get(name, [])
        for end, place, marker in (("low", low, "<"), ("high", high, ">")):
            axes.plot(place, row, marker if end in ends else "|", color=FITTED_COLOUR, markersize=7)
        doubtful = name in fit.undetermined or name in fit.at_bound
        axes.plot(
            value, row, "o", color=FITTED_COLOUR, markerfacecolor="white" if doubtful else FITTED_COLOUR
        )
    axes.set_yticks(range(len(PARAMETER_NAMES)), [name.replace("_", " ") for name in PARAMETER_NAMES])
    axes.set_ylim(len(PARAMETER_NAMES) - 0.5, -0.5)
    axes.set_xticks([0, 1], ["lowest", "highest"])
    axes.set_xlim(-0.06, 1.06)
    axes.set_xlabel("within the range allowed")
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.set_title(f"{fit.level:.0%} intervals ({fit.interval_method})")


def _numbers(table: Axes, fit: PairFit) -> None:
    lines = [f"{'parameter':<26}{'value':>9}{'s.e.':>9}  {fit.level:.0%} ({fit.interval_method})"]
    for name, value, error, interval in fit.table():
        flag = " *" if name in fit.undetermined or name in fit.at_bound else ""
        lines.append(f"{name:<26}{value if value > 1e-9 else 0.0:>9.4g}{error:>9}  {interval}{flag}")
    for name, label in (
        ("births_per_day", "births, voxels per day"),
        ("ggo_equilibrium", "equilibrium below 0"),
        ("consolidation_equilibrium", "equilibrium above 0"),
    ):
        value, spread, low, high = (fit.derived[f"{name}{end}"] for end in ("", "_se", "_low", "_high"))
        lines.append(f"{label:<26}{value:>9.4g}{spread:>9.2g}  {low:.3g} .. {high:.3g}")
    lines.append(f"{'G_ref, voxels below 0':<26}{fit.parameters.reference_ggo_voxels:>9.0f}")
    lines.append(f"{'reduced chi-square':<26}{fit.goodness['reduced_chi_square']:>9.3g}")
    lines.append(f"{'overlap':<26}{fit.goodness['overlap']:>9.3g}")
    if fit.undetermined or fit.at_bound:
        lines.append("* at a bound or not determined by the data")
    if fit.open_ends:
        lines.append("< > runs to the limit of the model: not closed by the data")
    table.axis("off")
    table.text(0, 0.95, "\n".join(lines), family="monospace", fontsize=8, va="top", transform=table.transAxes)
