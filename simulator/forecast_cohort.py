"""Forecasts of a cohort: every patient's series in turn, a summary, and the file they are stored in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from simulator.dynamics.errors import DynamicsError
from simulator.forecast import PARTS, run_forecast
from simulator.forecast_record import FROM_PAIR, FROM_T0, Forecast, ForecastPicture, ForecastSettings, Scores
from simulator.series import T0, Observation
from simulator.visits import Visit, visit_of
from standard_space.cohort import Cohort, Entry
from standard_space.errors import DataError, LungcastError
from standard_space.files import write_json
from standard_space.progress import Progress, silent
from standard_space.version import lungcast_version

SCHEMA = 1

OnForecast = Callable[[ForecastPicture], None]


@dataclass
class CohortForecasts:
    """All forecasts of a cohort; what failed (by scan or forecast), and what was left out."""

    settings: ForecastSettings
    forecasts: list[Forecast] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values, the summary included."""
        return {
            "lungcast": "forecast",
            "schema": SCHEMA,
            "lungcast_version": lungcast_version(),
            "settings": self.settings.to_json(),
            "summary": {
                kind: summary(of_kind)
                for kind in (FROM_PAIR, FROM_T0)
                if (of_kind := [item for item in self.forecasts if item.kind == kind])
            },
            "forecasts": [item.to_json() for item in self.forecasts],
            "failures": self.failures,
            "skipped": self.skipped,
        }

    def save(self, path: str | Path) -> None:
        """Write the forecasts as JSON, atomically."""
        write_json(path, self.to_json())


def forecast_cohort(
    cohort: Cohort,
    settings: ForecastSettings,
    *,
    on_forecast: OnForecast | None = None,
    progress: Progress = silent,
) -> CohortForecasts:
    """Forecast every scan that has two annotated scans of its patient before it, or one where there are only two.

    A scan that cannot be used leaves its patient's series and is named in `failures`, as is a forecast that fails;
    the rest goes on.

    Parameters
    ----------
    cohort : Cohort
        Embedded scans; synthetic ones are left out.
    settings : ForecastSettings
    on_forecast : callable, optional
        Given what each forecast's figure shows, as soon as it is made.
    progress : Progress
        Told of every run.

    Raises
    ------
    DataError
        When no patient has two annotated scans.
    """
    result = CohortForecasts(settings)
    series: dict[str, list[Entry]] = {}
    for patient, entries in cohort.by_patient().items():
        observed = [entry for entry in entries if not entry.synthetic]
        for entry in observed:
            if entry.infected_ml is None:
                result.skipped[entry.name] = "it has no infection mask"
        annotated = [entry for entry in observed if entry.infected_ml is not None]
        if len(annotated) >= 2:
            series[patient] = annotated
        elif observed:
            result.skipped[patient] = "a forecast needs at least two annotated scans of the patient"
    if not series:
        raise DataError(
            "no patient can be forecast: none has two annotated scans",
            where=cohort.folder,
            remedy="embed follow-up scans with infection masks (three or more of a patient for a full forecast)",
        )
    total = settings.runs * sum(max(1, len(entries) - 2) for entries in series.values())
    done = 0
    for entries in series.values():
        planned = settings.runs * max(1, len(entries) - 2)
        _forecast_patient(cohort, entries, result, on_forecast, _within(progress, done, total))
        done += planned
    progress("done", total, total)
    return result


def _within(progress: Progress, offset: int, total: int) -> Callable[[str, int], None]:
    return lambda item, done: progress(item, min(offset + done, total), total)


def _forecast_patient(
    cohort: Cohort,
    entries: list[Entry],
    result: CohortForecasts,
    on_forecast: OnForecast | None,
    tell: Callable[[str, int], None],
) -> None:
    """Read a patient's scans one after another and forecast each from those before it; two are in memory."""
    kept: list[Visit] = []
    number = done = 0
    for entry in entries:
        tell(f"{entry.name}: reading", done)
        try:
            target = visit_of(cohort.read(entry), entry.content_sha256)
        except (LungcastError, DynamicsError, OSError) as error:
            result.failures[entry.name] = str(error)
            continue
        number += 1
        if number >= 3:
            earlier = kept[0].observation
            kept = kept[1:]
            _forecast(earlier, kept[0], target, result, on_forecast, _ticker(tell, target.name, done))
            done += result.settings.runs
        kept.append(target)
    if number == 2:
        _forecast(None, kept[0], kept[1], result, on_forecast, _ticker(tell, kept[1].name, done))
    if number < 2:
        patient = entries[0].patient
        result.skipped[patient] = "fewer than two of its scans can be used, so there is nothing to forecast"


def _ticker(tell: Callable[[str, int], None], name: str, done: int) -> Callable[[], None]:
    count = done

    def tick() -> None:
        nonlocal count
        count += 1
        tell(name, count)

    return tick


def _forecast(
    earlier: Observation | None,
    source: Visit,
    target: Visit,
    result: CohortForecasts,
    on_forecast: OnForecast | None,
    tick: Callable[[], None],
) -> None:
    """Make one forecast, or note why there is none."""
    fitted_from = T0 if earlier is None else earlier.scan
    name = f"{source.observation.patient} {fitted_from},{source.observation.scan}>{target.observation.scan}"
    for before in (earlier, source.observation):
        if before is not None and before.infected_ml == 0:
            result.skipped[name] = f"{before.scan} is free of infection, so nothing can be fitted"
            return
    try:
        forecast, picture = run_forecast(earlier, source, target, result.settings, tick)
    except (LungcastError, DynamicsError) as error:
        result.failures[name] = str(error)
        return
    result.forecasts.append(forecast)
    if on_forecast is not None:
        on_forecast(picture)


def summary(forecasts: Sequence[Forecast]) -> dict[str, Any]:
    """Medians over forecasts (of each forecast's median run), and how often the simulation beats its rivals.

    "Beats" is strict; each comparison counts the forecasts in which both scores are defined, `of`. Volume errors
    compare by size. Persistence forecasts no change, so its Figure of Merit is 0 by definition; the dilation
    is told the true volume and has no signals, so volume and signal distance are not compared with it.
    `coverage` counts how often the observed volume lay inside the interval, whose `median_width` is given as a
    multiple of the forecast volume: a wide one covers anything.
    """
    compared = {
        "dice": ("persistence", "dilation"),
        "dice_above": ("persistence",),
        "figure_of_merit": ("dilation",),
        "volume_error_percent": ("persistence",),
        "signal_distance": ("persistence",),
    }
    scores: dict[str, Any] = {}
    for name, rivals in compared.items():
        size = name == "volume_error_percent"
        rows = [value for item in forecasts if (value := _value(item.median, name, size)) is not None]
        entry: dict[str, Any] = {"simulation": _median(rows), "of": len(rows)}
        for rival in rivals:
            both = [
                (ours, theirs)
                for item in forecasts
                if (ours := _value(item.median, name, size)) is not None
                and (theirs := _value(getattr(item, rival), name, size)) is not None
            ]
            higher_is_better = name in ("dice", "dice_above", "figure_of_merit")
            wins = sum(ours > theirs if higher_is_better else ours < theirs for ours, theirs in both)
            entry[rival] = _median([theirs for _, theirs in both])
            entry[f"beats_{rival}"] = {"times": wins, "of": len(both)}
        scores[name] = entry
    return {
        "forecasts": len(forecasts),
        "patients": len({item.patient for item in forecasts}),
        "scores": scores,
        "occurrence": {
            name: _median([v for item in forecasts if (v := item.occurrence[name]) is not None])
            for name in ("dice_at_half", "brier_skill", "agreement")
        },
        "coverage": {
            part: {
                "inside": sum(bool(item.volume_forecast[part]["inside"]) for item in forecasts),
                "of": len(forecasts),
                "median_width": _median(
                    [
                        (found["high_ml"] - found["low_ml"]) / found["mean_ml"]
                        for item in forecasts
                        if (found := item.volume_forecast[part])["mean_ml"] > 0
                    ]
                ),
            }
            for part in PARTS
        },
        "lungs_dice": _median([float(item.alignment["lungs_dice"]) for item in forecasts]),
        "share_outside_susceptible": _median(
            [float(item.observed["share_outside_susceptible"] or 0.0) for item in forecasts]
        ),
    }


def _value(scores: Scores, name: str, size: bool) -> float | None:
    value = scores.get(name)
    if value is None:
        return None
    return abs(float(value)) if size else float(value)


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None
