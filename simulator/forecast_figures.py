"""The figure of one forecast: where it came true, how the volume went, and how the signals are distributed."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from simulator.dynamics.bins import bin_centres
from simulator.figure_style import (
    BEFORE_COLOUR,
    FITTED_COLOUR,
    LUNG_COLOUR,
    OBSERVED_COLOUR,
    TRUTH_COLOUR,
    WINDOW_SIGNAL,
    new_figure,
)
from simulator.forecast_record import ForecastPicture

HIT_COLOUR, MISS_COLOUR, FALSE_ALARM_COLOUR = TRUTH_COLOUR, "#F0E442", FITTED_COLOUR
SMOOTHED_BINS = 3
PLACED = {
    "standard": "placed by the standard space",
    "world": "placed by the world",
    "registered": "lungs registered",
}
HIGHEST_SHOWN = 3.0
"""Volumes above this many times the largest point are cut off; the title gives the interval."""


def forecast_figure(picture: ForecastPicture) -> Figure:
    """Four panels: hits, misses and false alarms of the median run in the slice that changed most; the share of
    runs in which each voxel changed; volumes with their interval; signal distributions."""
    forecast = picture.forecast
    figure, axes = new_figure(17.5, 4.6, 1, 4, width_ratios=[1.25, 1.35, 1, 1.1])
    change, chance, volumes, signals = axes[0]
    _change_panel(change, picture)
    _chance_panel(chance, picture)
    _volume_panel(volumes, picture)
    _signal_panel(signals, picture)
    fitted_from = "Y$_{t0}$" if forecast.earlier == "t0" else forecast.earlier
    figure.suptitle(
        f"{forecast.patient}: fitted on {fitted_from} and {forecast.source}, forecast {forecast.days:g} days to "
        f"{forecast.target} ({len(forecast.runs)} runs, {PLACED[forecast.alignment['kind']]}, "
        f"the lungs' Dice {forecast.alignment['lungs_dice']:.2f})"
    )
    return figure


def _background(axes: Axes, picture: ForecastPicture) -> None:
    low, high = WINDOW_SIGNAL
    axes.imshow(picture.background, cmap="gray", vmin=low, vmax=high, aspect=picture.aspect)
    if picture.lungs.any():
        axes.contour(picture.lungs, levels=[0.5], colors=[LUNG_COLOUR], linewidths=0.7)
    axes.set_xticks([])
    axes.set_yticks([])


def _tint(axes: Axes, mask: NDArray[np.bool_], colour: str, picture: ForecastPicture) -> None:
    layer = np.zeros((*mask.shape, 4))
    layer[mask] = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)] + [0.75]
    axes.imshow(layer, aspect=picture.aspect, interpolation="nearest")


def _change_panel(axes: Axes, picture: ForecastPicture) -> None:
    _background(axes, picture)
    observed, predicted = picture.observed ^ picture.start, picture.median_run ^ picture.start
    kinds = {
        "hit": (observed & predicted, HIT_COLOUR),
        "miss": (observed & ~predicted, MISS_COLOUR),
        "false alarm": (predicted & ~observed, FALSE_ALARM_COLOUR),
    }
    for mask, colour in kinds.values():
        _tint(axes, mask, colour, picture)
    handles = [Patch(color=colour, label=label) for label, (_, colour) in kinds.items()]
    axes.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3, fontsize=8, frameon=False
    )
    median, merit = picture.forecast.median, picture.forecast.median["figure_of_merit"]
    axes.set_title(
        f"change, a median run: Dice {median['dice']:.2f}, "
        f"Figure of Merit {'-' if merit is None else format(merit, '.2f')}",
        fontsize=9,
    )


def _chance_panel(axes: Axes, picture: ForecastPicture) -> None:
    _background(axes, picture)
    shown = np.ma.masked_equal(picture.chance, 0.0)
    layer = axes.imshow(shown, cmap="cividis", vmin=0, vmax=1, aspect=picture.aspect, interpolation="nearest")
    changed = picture.observed ^ picture.start
    if changed.any():
        axes.contour(changed, levels=[0.5], colors=[FALSE_ALARM_COLOUR], linewidths=0.8)
    axes.figure.colorbar(layer, ax=axes, fraction=0.05, pad=0.02, label="share of runs in which it changed")
    axes.set_title("forecast change; outlined: observed change", fontsize=9)


def _volume_panel(axes: Axes, picture: ForecastPicture) -> None:
    forecast = picture.forecast
    lows, highs = zip(*picture.interval_ml, strict=True)
    axes.fill_between(picture.days, lows, highs, color=FITTED_COLOUR, alpha=0.2, label="95 % interval")
    axes.plot(picture.days, picture.mean_ml, color=FITTED_COLOUR, label="chain's mean")
    low_high = np.percentile(picture.run_counts.sum(1) * picture.voxel_volume_ml, (5, 95))
    axes.plot([forecast.days] * 2, low_high, color="black", linewidth=3, label="runs, 5 to 95 %")
    seen = [(0.0, float(picture.start_counts.sum()) * picture.voxel_volume_ml)]
    if picture.earlier_point is not None:
        seen.insert(0, picture.earlier_point)
    axes.plot(*zip(*seen, strict=True), "s", color=BEFORE_COLOUR, label="fitted on")
    came_ml = float(picture.observed_counts.sum()) * picture.voxel_volume_ml
    axes.plot(forecast.days, came_ml, "s", color=OBSERVED_COLOUR, label="observed")
    axes.set_xlabel(f"days since {forecast.source}")
    axes.set_ylabel("infected volume, ml")
    points = [came_ml, *picture.mean_ml, *(ml for _, ml in seen), *low_high]
    axes.set_ylim(0, min(1.05 * max(*highs, *points), HIGHEST_SHOWN * max(points)))
    total = forecast.volume_forecast["total"]
    where = "inside" if total["inside"] else "OUTSIDE"
    axes.set_title(
        f"observed {came_ml:.4g} ml, {where} {total['low_ml']:.3g} to {total['high_ml']:.4g} ml", fontsize=9
    )
    axes.legend(frameon=False, fontsize=7)


def _signal_panel(axes: Axes, picture: ForecastPicture) -> None:
    forecast, centres = picture.forecast, bin_centres()
    runs = np.array([_smooth(counts) for counts in picture.run_counts])
    low, high = np.percentile(runs, (5, 95), axis=0)
    axes.fill_between(centres, low, high, color=FITTED_COLOUR, alpha=0.3, linewidth=0)
    axes.plot(centres, np.median(runs, axis=0), color=FITTED_COLOUR, label="forecast")
    axes.step(centres, _smooth(picture.observed_counts), where="mid", color=OBSERVED_COLOUR, label="observed")
    axes.plot(centres, _smooth(picture.start_counts), color="#777777", linestyle="--", label="persistence")
    axes.axvline(0.0, color="black", linestyle=":", linewidth=1)
    axes.set_xlabel("signal, (HU - WL) / WW")
    axes.set_ylabel(f"voxels per bin, mean of {SMOOTHED_BINS} bins")
    axes.set_ylim(bottom=0)
    ours, theirs = forecast.median["signal_distance"], forecast.persistence["signal_distance"]
    if ours is not None and theirs is not None:
        axes.set_title(f"distance {ours:.3f}, persistence {theirs:.3f}", fontsize=9)
    axes.legend(frameon=False, fontsize=7)


def _smooth(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    window = np.ones(SMOOTHED_BINS)
    return np.convolve(counts, window, mode="same") / np.convolve(np.ones_like(counts), window, mode="same")
