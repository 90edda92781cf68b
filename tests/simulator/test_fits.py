"""Stored fits, joint fits and populations: files, and what they refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simulator.cohort_fit import fit_cohort
from simulator.dynamics import fit_space
from simulator.dynamics.fit import fit_pair
from simulator.dynamics.parameters import PARAMETER_NAMES
from simulator.dynamics.population import Population
from simulator.figure_style import save_figure
from simulator.fit_figure import fit_figure, place_in_range
from simulator.fits import CohortFits
from simulator.population_file import load_population, population_of, save_population
from simulator.simulation import simulate_scan
from standard_space.errors import DataError, ReadError, UsageError
from tests.figures import cut_texts
from tests.simulator.scans import cohort_of, small_scan


@pytest.fixture(scope="module")
def fits(tmp_path_factory: pytest.TempPathFactory) -> CohortFits:
    scans = [
        small_scan(patient, scan, day, 0.01 * day)
        for patient in ("p", "q", "r")
        for scan, day in (("a", 0.0), ("b", 2.0), ("c", 4.0))
        if patient == "p" or scan == "a"
    ]
    cohort = cohort_of(tmp_path_factory.mktemp("fits") / "cohort", *scans)
    return fit_cohort(cohort, loss="poisson", joint=True)


def test_patients_with_two_observed_pairs_get_one_w_too(fits: CohortFits, tmp_path: Path) -> None:
    assert [series.patient for series in fits.joint] == ["p"]
    assert fits.joint[0].scans == ["a", "b", "c"]
    assert fits.joint[0].fit.transitions == [200, 200]
    assert [stored.from_scan for stored in fits.fits] == ["t0", "a", "b", "t0", "t0"]
    assert {stored.fit.interval_method for stored in fits.fits} == {"wald"}
    fits.save(tmp_path / "fits.json")
    again = CohortFits.load(tmp_path / "fits.json")
    again.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "fits.json").read_bytes()
    assert (again.intervals, again.loss) == ("wald", "poisson")


def test_older_files_are_refused(fits: CohortFits, tmp_path: Path) -> None:
    fits.save(tmp_path / "fits.json")
    content = json.loads((tmp_path / "fits.json").read_text())
    (tmp_path / "old.json").write_text(json.dumps(content | {"schema": 1}))
    with pytest.raises(ReadError, match="another schema"):
        CohortFits.load(tmp_path / "old.json")
    content["joint"][0]["fit"].pop("one_w")
    (tmp_path / "cut.json").write_text(json.dumps(content))
    with pytest.raises(ReadError, match="damaged"):
        CohortFits.load(tmp_path / "cut.json")


def test_a_figure_says_bound_and_never_nan(fits: CohortFits, tmp_path: Path) -> None:
    dense = np.zeros(130)
    dense[30:60] = 200
    stuck = fit_pair(dense, dense, 300)
    assert any(np.isnan(list(stuck.standard_errors.values())))
    figure = fit_figure(replace(fits.fits[0], fit=stuck))
    assert cut_texts(figure) == []
    text = figure.axes[2].texts[0].get_text()
    assert "bound" in text
    assert "nan" not in text
    assert "95%" in text
    save_figure(figure, tmp_path / "fit.png")


@pytest.mark.parametrize("absorption", [1e-4, 0.2, 0.6])
def test_a_figure_shows_intervals_within_the_allowed_range(absorption: float) -> None:
    for bound, place in ((fit_space.LOWER, 0.0), (fit_space.UPPER, 1.0)):
        edge = bound.copy()
        edge[3] = np.log(absorption)
        values = fit_space.to_parameters(edge)
        for name, value in zip(PARAMETER_NAMES, values, strict=True):
            if name != "absorption_rate":
                assert place_in_range([value], name, absorption) == pytest.approx([place], abs=1e-9), name
    assert place_in_range([0.1], "stiffness", 0.2)[0] == pytest.approx(0.5)  # of 0.005 to 2, by the logarithm
    assert place_in_range([1e-4, 0.6], "absorption_rate", 0.2) == pytest.approx([0.0, 1.0])


def test_a_population_takes_one_estimate_per_patient(fits: CohortFits, tmp_path: Path) -> None:
    found = population_of(fits)
    assert found.patients == 3
    assert found.notes[0].startswith("2 of 3 patients have one scan only")
    save_population(found, fits, tmp_path / "population.json")
    again = load_population(tmp_path / "population.json")
    assert again.draw(1) == found.draw(1)
    text = (tmp_path / "population.json").read_text()
    assert '"p"' not in text
    fewer = CohortFits(grid=48, loss="l2", fits=fits.fits[:3])
    with pytest.raises(DataError, match="too few patients"):
        population_of(fewer)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such population file"),
        ("{", "cannot be read"),
        ("[]", "not a lungcast population"),
        ('{"lungcast": "fits"}', "not a lungcast population"),
        ('{"lungcast": "population", "schema": 7}', "another schema"),
        ('{"lungcast": "population", "schema": 1}', "damaged"),
        ('{"lungcast": "population", "schema": 1, "population": {"mean": 1}}', "damaged"),
    ],
)
def test_bad_population_files(content: str | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "population.json").write_text(content)
    with pytest.raises(ReadError, match=words):
        load_population(tmp_path / "population.json")


def test_a_healthy_scan_takes_dynamics_from_a_population(tmp_path: Path) -> None:
    scan = small_scan()
    cohort = cohort_of(tmp_path / "cohort", scan)
    entry = cohort.entries[0]
    mean = np.array([-5.5, 0.0, 0.0, -2.2, 0.5, 0.0, 0.0, -2.7])
    population = Population(mean, 0.01 * np.eye(8), 0.1 * np.ones(8), 0.1 * np.ones(8), 12)
    path = tmp_path / "population.json"
    save_population(population, CohortFits(grid=48, loss="l2"), path)
    settings = {"days": 0.2, "every": 0.2, "seeds": 2, "where": "anywhere"}
    used = {}
    for name, seed in (("first", 5), ("again", 5), ("other", 6)):
        _, notes = simulate_scan(cohort, entry, tmp_path / name, seed=seed, population_path=path, **settings)  # type: ignore[arg-type]
        assert any(f"population of 12 patients by seed {seed}" in line for line in notes)
        mark = json.loads((tmp_path / name / "lungcast.json").read_text())
        text = json.dumps(mark)
        assert "population_sha256" in text
        used[name] = text
        assert f'"birth_rate": {population.draw(seed).birth_rate}' in text
    assert used["first"] == used["again"] != used["other"]
    with pytest.raises(UsageError, match="needs seeds"):
        simulate_scan(cohort, entry, tmp_path / "no", days=1, every=1, seed=0, population_path=path)


def test_two_scans_of_one_moment_spoil_one_patient(tmp_path: Path) -> None:
    scans = [small_scan("p", "a", 1.0), small_scan("p", "b", 1.0), small_scan("q", "a", 0.0)]
    found = fit_cohort(cohort_of(tmp_path / "cohort", *scans))
    assert "does not run forward" in found.failures["p"]
    assert [stored.patient for stored in found.fits] == ["q"]


def test_scans_are_paired_in_the_order_of_their_days(tmp_path: Path) -> None:
    found = fit_cohort(cohort_of(tmp_path / "cohort", small_scan("p", "a", 0.0), small_scan("p", "b", -2.0)))
    assert [(stored.from_scan, stored.to_scan) for stored in found.fits] == [("t0", "b"), ("b", "a")]
