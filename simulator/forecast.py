"""One forecast: fit on scans i-1 and i, play scan i on to the day of scan i+1, score it against what came.

Each run is one draw of the voxel engine. Runs are scored one by one: of each, its scores, its counts and one slice
are kept, and over all of them how often each voxel was infected.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.alignment import map_mask, share_outside
from simulator.augmentation_plan import seed_of
from simulator.dynamics.bins import N_BELOW
from simulator.dynamics.engine import LesionState, advance, start_state
from simulator.dynamics.fit import PairFit, fit_pair
from simulator.dynamics.prediction import Part, Prediction, predict
from simulator.forecast_record import FROM_PAIR, FROM_T0, Forecast, ForecastPicture, ForecastSettings, Scores
from simulator.forecast_scores import Comparison, grown_to, signal_distance, volume_error
from simulator.registration import AlignmentReport, align
from simulator.series import T0, TRANSITIONS_PER_DAY, Observation, pairs, transitions_between
from simulator.visits import Visit, at_inspiration
from standard_space.errors import DataError
from standard_space.window import Window

PARTS: tuple[Part, ...] = ("total", "below", "above")
LEVEL = 0.95
LUNG_CHANGE_TOLD = 0.05
OUTSIDE_TOLD = 0.05
UNREACHABLE_TOLD = 0.10
DOUBTFUL_FITS = ("poor fit", "the optimiser stopped")
MOMENTS = 9
"""Times at which the forecast volume is computed for the figure."""


def run_forecast(
    earlier: Observation | None,
    source: Visit,
    target: Visit,
    settings: ForecastSettings,
    tick: Callable[[], None] | None = None,
    *,
    dynamics: PairFit | None = None,
    alignment: AlignmentReport | None = None,
) -> tuple[Forecast, ForecastPicture]:
    """Forecast one scan and score it.

    Parameters
    ----------
    earlier : Observation or None
        Scan i-1; None fits from Y_t0 instead.
    source, target : Visit
        Scan i, which the forecast starts from, and scan i+1, which it is scored against.
    settings : ForecastSettings
    tick : callable, optional
        Called after every run.
    dynamics : PairFit, optional
        Used instead of a fit on the earlier scan and the source, for example one made in hindsight.
    alignment : AlignmentReport, optional
        How the target lies on the source, when that is known already (`alignment_of`).

    Raises
    ------
    DataError
        When time does not run forward, grids differ, or a lung volume is missing where it is needed.
    DynamicsError
        When the source or the earlier scan has no infection.
    """
    if source.grid != target.grid:
        raise DataError("the scans lie on different grids", where=target.name, got=target.grid.size,
                        expected=source.grid.size)  # fmt: skip
    seen = source.observation
    transitions = transitions_between(seen.day, target.observation.day)
    fit = dynamics if dynamics is not None else _fit(earlier, seen, settings)
    report = alignment if alignment is not None else alignment_of(source, target, settings.register)
    here = source.placed(source.infection)
    infected_there = target.placed(target.infection)
    observed = map_mask(infected_there, report.alignment, here)
    observed_above = map_mask(target.placed(target.above), report.alignment, here) & observed
    scale = seen.lungs_ml / target.observation.lungs_ml if settings.normalise_inspiration else 1.0
    observed_counts = target.annotated_counts * scale
    state = start_state(source.signal, source.infection, source.susceptible, source.grid.spacing_mm)
    prediction = predict(state.counts(), fit, transitions, level=LEVEL)
    comparison = Comparison(source.infection, observed, observed_above)
    runs = _Runs(source, comparison, observed_counts, _busiest_slice(source.infection ^ observed))
    seeds = [
        seed_of("forecast", settings.seed, seen.patient, seen.scan, target.observation.scan, number)
        for number in range(settings.runs)
    ]
    for seed in seeds:
        lesion = advance(
            state.copy(), fit.parameters, transitions, jump=settings.jump, seed=seed,
            controls=settings.controls,
        )  # fmt: skip
        runs.add(lesion)
        if tick is not None:
            tick()
    persistence = comparison.score_mask(source.infection, source.above).to_json()
    persistence |= _count_scores(source.annotated_counts, observed_counts, seen.voxel_volume_ml)
    dilated, crowded = grown_to(
        source.infection, source.susceptible, int(observed.sum()), source.grid.spacing_mm, seed=settings.seed
    )
    dilation = comparison.score_mask(dilated, np.zeros_like(dilated)).to_json() | {"dice_above": None}
    median, low, high = (_over_runs(runs.scores, share) for share in (50, 5, 95))
    outside = share_outside(infected_there, report.alignment, here)
    unreachable = _share(observed & ~source.susceptible, observed)
    voxel_ml, room = seen.voxel_volume_ml, int(np.count_nonzero(source.susceptible))
    ratio = target.observation.lungs_ml / seen.lungs_ml if seen.lungs_ml else None
    problems, notes = _remarks(source, target, fit, report, runs, ratio, outside, unreachable)
    notes += [crowded] if crowded else []
    forecast = Forecast(
        patient=seen.patient,
        earlier=earlier.scan if earlier else T0,
        source=seen.scan,
        target=target.observation.scan,
        kind=FROM_PAIR if earlier else FROM_T0,
        source_sha256=seen.content_sha256,
        target_sha256=target.observation.content_sha256,
        days=target.observation.day - seen.day,
        transitions=transitions,
        grid=source.grid.size,
        fit={
            "loss": fit.loss,
            "transitions": fit.n_transitions,
            "parameters": fit.parameters.to_json(),
            "reduced_chi_square": fit.goodness["reduced_chi_square"],
            "notes": fit.notes,
        },
        alignment=report.to_json(),
        lung_volume_ratio=ratio,
        lung_volume_ratio_of_fit=seen.lungs_ml / earlier.lungs_ml if earlier and earlier.lungs_ml else None,
        observed={
            "volume_ml": float(observed_counts.sum()) * voxel_ml,
            "below_ml": float(observed_counts[:N_BELOW].sum()) * voxel_ml,
            "above_ml": float(observed_counts[N_BELOW:].sum()) * voxel_ml,
            "volume_scale": scale,
            "brought_over_ml": float(observed.sum()) * voxel_ml,
            "share_outside_box": outside,
            "share_outside_susceptible": unreachable,
            "changed_voxels": comparison.changed,
        },
        volume_forecast=_volume_forecast(prediction, observed_counts, room, voxel_ml),
        seeds=seeds,
        runs=runs.scores,
        median=median,
        low=low,
        high=high,
        persistence=persistence,
        dilation=dilation,
        occurrence=comparison.score_occurrence(runs.times, settings.runs),
        problems=problems,
        notes=notes,
    )
    curve = _curve(state, fit, transitions, room, voxel_ml)
    factor = _earlier_scale(earlier, seen, settings)
    level = runs.level
    picture = ForecastPicture(
        forecast=forecast,
        background=source.signal[level],
        lungs=source.lungs[level],
        start=source.infection[level],
        observed=observed[level],
        median_run=runs.slices[_nearest_to_median(runs.scores, "dice")],
        chance=np.abs(runs.times[level] / settings.runs - source.infection[level]),
        aspect=source.grid.spacing_mm[1] / source.grid.spacing_mm[2],
        start_counts=source.annotated_counts,
        observed_counts=observed_counts,
        run_counts=np.array(runs.counts),
        voxel_volume_ml=voxel_ml,
        earlier_point=(earlier.day - seen.day, earlier.infected_ml * factor) if earlier else None,
        days=curve[0],
        mean_ml=curve[1],
        interval_ml=curve[2],
    )
    return forecast, picture


def alignment_of(source: Visit, target: Visit, register: bool) -> AlignmentReport:
    """How the target's lungs lie on the source's; see `simulator.registration.align`."""
    return align(
        source.placed(source.lungs), target.placed(target.lungs), (source.placement, target.placement),
        source.grid, register_lungs=register,
    )  # fmt: skip


class _Runs:
    """What is kept of the runs."""

    def __init__(
        self, source: Visit, comparison: Comparison, observed_counts: NDArray[np.float64], level: int
    ) -> None:
        self._comparison, self._observed_counts = comparison, observed_counts
        self._voxel_ml = source.observation.voxel_volume_ml
        self.level = level
        self.times: NDArray[np.uint16] = np.zeros(source.infection.shape, np.uint16)
        self.scores: list[Scores] = []
        self.counts: list[NDArray[np.float64]] = []
        self.slices: list[NDArray[np.bool_]] = []
        self.unplaced = 0

    def add(self, lesion: LesionState) -> None:
        """Score a run at its end."""
        index, bins, counts = lesion.index, lesion.bin, lesion.counts()
        scores = self._comparison.score(index, bins >= N_BELOW).to_json()
        self.scores.append(scores | _count_scores(counts, self._observed_counts, self._voxel_ml))
        self.counts.append(counts)
        self.times.ravel()[index] += np.uint16(1)
        rows, columns = self.times.shape[1], self.times.shape[2]
        area = rows * columns
        shown = np.zeros((rows, columns), bool)
        shown.ravel()[index[index // area == self.level] - self.level * area] = True
        self.slices.append(shown)
        self.unplaced = max(self.unplaced, lesion.report.unplaced)


def _fit(earlier: Observation | None, seen: Observation, settings: ForecastSettings) -> PairFit:
    if earlier is None:
        pair = pairs([seen])[0]
    else:
        scaled = at_inspiration(earlier, seen.lungs_ml) if settings.normalise_inspiration else earlier
        pair = pairs([scaled, seen])[1]
    return fit_pair(pair.before, pair.after, pair.transitions, loss=settings.loss)


def _earlier_scale(earlier: Observation | None, seen: Observation, settings: ForecastSettings) -> float:
    if earlier is None or not settings.normalise_inspiration:
        return 1.0
    return seen.lungs_ml / earlier.lungs_ml


def _count_scores(counts: NDArray[np.float64], observed: NDArray[np.float64], voxel_ml: float) -> Scores:
    volume, true = float(counts.sum()) * voxel_ml, float(observed.sum()) * voxel_ml
    error, percent = volume_error(volume, true)
    return {
        "volume_ml": volume,
        "volume_error_ml": error,
        "volume_error_percent": percent,
        "signal_distance": signal_distance(counts, observed),
    }


def _over_runs(scores: list[Scores], percentile: float) -> Scores:
    result: Scores = {}
    for name in scores[0]:
        values = [float(value) for row in scores if (value := row[name]) is not None]
        result[name] = float(np.percentile(values, percentile)) if values else None
    return result


def _nearest_to_median(scores: list[Scores], name: str) -> int:
    values = np.array([float(row[name] or 0.0) for row in scores])
    return int(np.argmin(np.abs(values - np.median(values))))


def _busiest_slice(changed: NDArray[np.bool_]) -> int:
    return int(np.argmax(changed.sum((1, 2))))


def _share(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> float:
    total = int(np.count_nonzero(whole))
    return int(np.count_nonzero(part)) / total if total else 0.0


def _part(counts: NDArray[np.float64], part: str) -> float:
    chosen = {"total": counts, "below": counts[:N_BELOW], "above": counts[N_BELOW:]}[part]
    return float(chosen.sum())


def _interval(prediction: Prediction, part: Part, room: int) -> tuple[float, float]:
    low, high = prediction.interval(part)
    return min(float(low), float(room)), min(float(high), float(room))


def _volume_forecast(
    prediction: Prediction, observed: NDArray[np.float64], room: int, voxel_ml: float
) -> dict[str, Any]:
    """Mean and interval of every part in ml, and whether the observed volume lies inside.

    The interval ends where susceptible tissue (`room`, voxels) does.
    """
    result: dict[str, Any] = {"level": LEVEL, "notes": list(prediction.notes)}
    for part in PARTS:
        low, high = _interval(prediction, part, room)
        result[part] = {
            "mean_ml": _part(prediction.mean, part) * voxel_ml,
            "low_ml": low * voxel_ml,
            "high_ml": high * voxel_ml,
            "inside": bool(low <= _part(observed, part) <= high),
        }
    return result


def _curve(
    state: LesionState, fit: PairFit, transitions: int, room: int, voxel_ml: float
) -> tuple[list[float], list[float], list[tuple[float, float]]]:
    counts = state.counts()
    total = float(counts.sum()) * voxel_ml
    days, mean, interval = [0.0], [total], [(total, total)]
    for moment in sorted({max(1, round(transitions * k / MOMENTS)) for k in range(1, MOMENTS + 1)}):
        ahead = predict(counts, fit, moment, level=LEVEL)
        low, high = _interval(ahead, "total", room)
        days.append(moment / TRANSITIONS_PER_DAY)
        mean.append(float(ahead.mean.sum()) * voxel_ml)
        interval.append((low * voxel_ml, high * voxel_ml))
    return days, mean, interval


def _differ(first: Window, second: Window) -> bool:
    """Whether two windows put signals on different scales; `auto` windows follow the calibration of each scan."""
    if first.source == second.source == "auto":
        return False
    return (first.level_hu, first.width_hu) != (second.level_hu, second.width_hu)


def _remarks(
    source: Visit,
    target: Visit,
    fit: PairFit,
    report: AlignmentReport,
    runs: _Runs,
    ratio: float | None,
    outside: float,
    unreachable: float,
) -> tuple[list[str], list[str]]:
    """Problems (what makes the forecast doubtful), and what is good to know."""
    problems = list(report.notes)
    problems += [f"fit: {line}" for line in fit.notes if line.startswith(DOUBTFUL_FITS)]
    if _differ(source.window, target.window):
        problems.append("the two scans have different windows, so their signals are not on one scale")
    if runs.unplaced:
        problems.append(f"up to {runs.unplaced} births of a run found no susceptible voxel")
    if outside > OUTSIDE_TOLD:
        problems.append(f"{outside:.0%} of the observed infection falls outside the volume compared")
    if unreachable > UNREACHABLE_TOLD:
        problems.append(
            f"{unreachable:.0%} of the observed infection lies where {source.observation.scan} has no "
            "susceptible tissue (breath, alignment or lung mask): no forecast can reach it"
        )
    notes = []
    if ratio is not None and abs(ratio - 1.0) > LUNG_CHANGE_TOLD:
        notes.append(f"the lungs changed to {ratio:.0%} of their volume (another breath?)")
    notes += [f"fit: {line}" for line in fit.notes if not line.startswith(DOUBTFUL_FITS)]
    return problems, notes
