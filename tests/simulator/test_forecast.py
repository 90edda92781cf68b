"""Forecasts of small cohorts: what is fitted on what, repeatability, isolation of failures, breathing."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simulator.dynamics.controls import Controls
from simulator.dynamics.fit import fit_pair
from simulator.forecast import FROM_PAIR, FROM_T0, run_forecast
from simulator.forecast_cohort import forecast_cohort, summary
from simulator.forecast_figures import forecast_figure
from simulator.forecast_record import ForecastPicture, ForecastSettings
from simulator.visits import at_inspiration, visit_of
from standard_space.errors import DataError, UsageError
from standard_space.scan import Scan
from tests.figures import cut_texts
from tests.simulator.scans import cohort_of, small_scan

QUICK = ForecastSettings(runs=3, jump=25)


def series(number: int, patient: str = "p") -> list[Scan]:
    return [small_scan(patient, f"s{k}", float(2 * k), 0.02 * k) for k in range(number)]


def test_three_scans_are_forecast_from_a_pair_and_two_from_t0(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path / "c", *series(4, "long"), *series(2, "short"), *series(1, "lone"))
    pictures: list[ForecastPicture] = []
    told: list[tuple[int, int]] = []
    result = forecast_cohort(
        cohort, QUICK, on_forecast=pictures.append, progress=lambda _, done, total: told.append((done, total))
    )
    assert [(item.name, item.kind) for item in result.forecasts] == [
        ("long s0,s1>s2", FROM_PAIR),
        ("long s1,s2>s3", FROM_PAIR),
        ("short t0,s0>s1", FROM_T0),
    ]
    assert result.failures == {}
    assert list(result.skipped) == ["lone"]
    assert [picture.forecast.name for picture in pictures] == [item.name for item in result.forecasts]
    assert told[-1] == (9, 9)
    assert all(before <= after for (before, _), (after, _) in itertools.pairwise(told))
    first = result.forecasts[0]
    assert (first.transitions, first.days, len(first.runs)) == (200, 2.0, 3)
    # The body stands still, so scan i and i+1 hold the same voxels: nothing changes but the signal.
    assert first.persistence["dice"] == first.dilation["dice"] == 1.0
    assert first.alignment["lungs_dice"] == 1.0
    assert first.lung_volume_ratio == pytest.approx(1.0)
    assert 0.0 < float(first.median["dice"] or 0.0) < 1.0
    for name, value in first.median.items():
        if value is not None:
            assert float(first.low[name] or 0) <= float(value) <= float(first.high[name] or 0)
    result.save(tmp_path / "f.json")
    content = json.loads((tmp_path / "f.json").read_text())
    assert content["lungcast"] == "forecast"
    assert set(content["summary"]) == {FROM_PAIR, FROM_T0}
    assert content["summary"][FROM_PAIR]["forecasts"] == 2
    assert content["settings"]["controls"] == Controls().to_json()
    figure = forecast_figure(pictures[0])
    assert len(figure.axes) >= 4
    assert cut_texts(figure) == []


def test_the_same_seed_gives_the_same_scores_and_another_others(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path / "c", *series(3))
    first, again = (forecast_cohort(cohort, QUICK).to_json() for _ in range(2))
    assert first == again
    other = forecast_cohort(cohort, replace(QUICK, seed=1)).forecasts[0]
    assert other.seeds != first["forecasts"][0]["seeds"]
    assert other.runs != first["forecasts"][0]["runs"]
    more = forecast_cohort(cohort, replace(QUICK, runs=4)).forecasts[0]
    assert more.runs[:3] == first["forecasts"][0]["runs"]
    assert len(set(more.seeds)) == 4


def test_runs_agree_with_the_engine_and_with_the_chain(tmp_path: Path) -> None:
    first, source, target = (visit_of(scan, "") for scan in series(3))
    forecast, picture = run_forecast(first.observation, source, target, replace(QUICK, runs=12))
    fit = fit_pair(first.observation.counts, source.observation.counts, 200)
    assert forecast.fit["parameters"] == fit.parameters.to_json()
    volumes = np.array([float(run["volume_ml"] or 0) for run in forecast.runs])
    np.testing.assert_allclose(volumes, picture.run_counts.sum(1) * source.observation.voxel_volume_ml)
    mean = forecast.volume_forecast["total"]["mean_ml"]
    assert mean == pytest.approx(volumes.mean(), abs=4 * volumes.std(ddof=1) / np.sqrt(12) + 1e-9)
    assert forecast.observed["volume_ml"] == pytest.approx(target.observation.infected_ml)
    total = forecast.volume_forecast["total"]
    assert total["inside"] == (total["low_ml"] <= target.observation.infected_ml <= total["high_ml"])
    perfect, _ = run_forecast(
        first.observation, source, target, QUICK,
        dynamics=fit_pair(source.observation.counts, target.observation.counts, 200),
    )  # fmt: skip
    assert perfect.fit["parameters"] != forecast.fit["parameters"]


def test_a_bad_scan_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    broken, unmarked = series(3, "broken"), series(3, "bare")
    unmarked[2].infection = unmarked[2].native_infection = None
    cohort = cohort_of(tmp_path / "c", *broken, *unmarked, *series(3, "good"))
    path = cohort.path(cohort.find("broken", "s1"))
    path.write_bytes(path.read_bytes()[:2000])
    result = forecast_cohort(cohort, QUICK)
    names = {item.name: item.kind for item in result.forecasts}
    # The series without the broken scan has two left, so it is forecast from Y_t0.
    assert names == {"bare t0,s0>s1": FROM_T0, "broken t0,s0>s2": FROM_T0, "good s0,s1>s2": FROM_PAIR}
    assert list(result.failures) == ["broken/s1"]
    assert "bare/s2" in result.skipped


def test_an_infection_that_is_gone_is_a_forecast_not_an_error(tmp_path: Path) -> None:
    scans = series(4)
    for number in (2, 3):
        scans[number].infection = np.zeros_like(scans[number].lungs)
    result = forecast_cohort(cohort_of(tmp_path / "c", *scans), QUICK)
    assert result.failures == {}
    assert [item.name for item in result.forecasts] == ["p s0,s1>s2"]
    assert "s2 is free of infection" in result.skipped["p s1,s2>s3"]
    gone = result.forecasts[0]
    assert gone.observed["volume_ml"] == 0.0
    assert gone.persistence["dice"] == 0.0
    assert gone.dilation["dice"] == 1.0  # it is told that nothing is left
    assert gone.median["signal_distance"] is None
    assert gone.median["volume_error_percent"] is None
    assert summary(result.forecasts)["scores"]["signal_distance"]["simulation"] is None


def test_time_that_stands_still_is_named(tmp_path: Path) -> None:
    scans = series(3)
    cohort = cohort_of(tmp_path / "c", *scans[:2], replace(scans[2], day=scans[1].day))
    result = forecast_cohort(cohort, QUICK)
    assert result.forecasts == []
    assert "time does not run forward" in result.failures["p s0,s1>s2"]


def test_no_patient_to_forecast_is_one_sentence(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path / "c", *series(1, "a"), *series(1, "b"))
    with pytest.raises(DataError, match=r"none has two annotated scans.*embed follow-up scans"):
        forecast_cohort(cohort, QUICK)
    for wrong in ({"runs": 0}, {"jump": 0}, {"loss": "l1"}):
        with pytest.raises(UsageError):
            ForecastSettings(**wrong)  # type: ignore[arg-type]


def test_normalising_brings_every_scan_to_the_breath_of_the_source() -> None:
    first, source, target = (visit_of(scan, "") for scan in series(3))
    half = replace(first.observation, lungs_ml=0.5 * source.observation.lungs_ml)
    deep = replace(
        target, observation=replace(target.observation, lungs_ml=1.25 * source.observation.lungs_ml)
    )
    plain, _ = run_forecast(half, source, deep, QUICK)
    scaled, picture = run_forecast(half, source, deep, replace(QUICK, normalise_inspiration=True))
    assert plain.lung_volume_ratio == scaled.lung_volume_ratio == pytest.approx(1.25)
    assert plain.lung_volume_ratio_of_fit == pytest.approx(2.0)
    assert plain.observed["volume_ml"] == pytest.approx(target.observation.infected_ml)
    assert scaled.observed["volume_ml"] == pytest.approx(target.observation.infected_ml / 1.25)
    expected = fit_pair(2.0 * half.counts, source.observation.counts, 200)
    assert scaled.fit["parameters"] == expected.parameters.to_json()
    assert picture.earlier_point is not None
    assert picture.earlier_point[1] == pytest.approx(2.0 * half.infected_ml)
    assert scaled.persistence["dice"] == plain.persistence["dice"]  # voxels are not scaled
    with pytest.raises(DataError, match="no lungs to normalise"):
        at_inspiration(replace(half, lungs_ml=0.0), 1000.0)


def test_windows_that_differ_are_a_problem() -> None:
    first, source, target = (visit_of(scan, "") for scan in series(3))
    other = replace(target, window=replace(target.window, width_hu=1200.0))
    forecast, _ = run_forecast(first.observation, source, other, QUICK)
    assert any("different windows" in line for line in forecast.problems)
    bare = small_scan()
    bare.infection = None
    with pytest.raises(DataError, match="no infection mask"):
        visit_of(bare, "")


@pytest.mark.parametrize("kind", ["translated", "registered"])
def test_a_patient_who_moved_is_laid_back(tmp_path: Path, kind: str) -> None:
    """The target's body is shifted within its frame; alignment, not dynamics, is what differs."""
    first, source, target = (visit_of(scan, "") for scan in series(3))
    z, y, x = target.first_voxel
    moved = replace(target, first_voxel=(z + 1, y, x - 2))
    settings = replace(QUICK, register=kind == "registered")
    forecast, _ = run_forecast(first.observation, source, moved, settings)
    if kind == "translated":
        assert float(forecast.persistence["dice"] or 0) < 0.75
        assert forecast.alignment["kind"] in ("standard", "world")
    else:
        assert forecast.alignment["kind"] == "registered"
        assert float(forecast.persistence["dice"] or 0) > 0.9
        assert forecast.alignment["lungs_dice"] > 0.97


def test_a_visit_keeps_everything_that_matters() -> None:
    scan = small_scan()
    visit = visit_of(scan, "hash")
    back = {}
    for name in ("signal", "infection", "lungs", "susceptible"):
        cut = getattr(visit, name)
        assert cut.size < scan.signal.size / 2
        whole = np.zeros(scan.signal.shape, cut.dtype)
        box = tuple(slice(a, a + n) for a, n in zip(visit.first_voxel, cut.shape, strict=True))
        whole[box] = cut
        back[name] = whole
    for name in ("infection", "lungs", "susceptible"):
        np.testing.assert_array_equal(back[name], getattr(scan, name))
    np.testing.assert_array_equal(back["signal"][scan.lungs], scan.signal[scan.lungs])
    assert visit.annotated_counts.sum() == scan.infection.sum()
    assert visit.observation.content_sha256 == "hash"
    np.testing.assert_allclose(
        visit.placed(visit.lungs).origin_mm, np.array(visit.first_voxel) * scan.grid.spacing_mm
    )
    same, _ = run_forecast(None, visit, replace(visit, observation=replace(
        visit.observation, scan="later", day=1.0)), ForecastSettings(runs=1, jump=50))  # fmt: skip
    assert same.persistence["dice"] == 1.0
    assert same.persistence["figure_of_merit"] is None
    assert same.observed["changed_voxels"] == 0
