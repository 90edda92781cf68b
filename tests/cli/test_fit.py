"""`lungcast fit`: intervals, figures, populations, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.main import main
from tests.simulator.scans import cohort_of, small_scan


def lungcast(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("fit")
    days = {"p": (0.0, 2.0, 3.5), "q": (0.0,), "r": (1.0,)}
    scans = [
        small_scan(patient, f"s{number}", day, 0.01 * day)
        for patient, all_days in days.items()
        for number, day in enumerate(all_days)
    ]
    cohort_of(where / "cohort", *scans)
    return where


def test_profile_intervals_reach_table_file_and_figures(folder: Path, tmp_path: Path) -> None:
    words = ("fit", folder / "cohort", "--json", tmp_path / "f.json", "--figures", tmp_path / "figures")
    result = lungcast(*words, "--intervals", "profile")
    assert result.exit_code == 0, result.output
    assert "95%" in result.output
    assert "one W for 3 scans" in result.output
    content = json.loads((tmp_path / "f.json").read_text())
    assert content["intervals"] == "profile"
    assert len(content["fits"]) == 5
    assert len(content["joint"]) == 1
    for stored in content["fits"]:
        fit = stored["fit"]
        assert fit["interval_method"] == "profile"
        assert fit["level"] == 0.95
        assert len(fit["intervals"]) == 8
    assert len(list((tmp_path / "figures").glob("*.png"))) == 5


def test_wald_intervals_are_the_default(folder: Path, tmp_path: Path) -> None:
    result = lungcast("fit", folder / "cohort", "--json", tmp_path / "f.json", "--quiet")
    assert result.exit_code == 0
    content = json.loads((tmp_path / "f.json").read_text())
    assert content["intervals"] == "wald"
    assert {stored["fit"]["interval_method"] for stored in content["fits"]} == {"wald"}


def test_a_population_is_stored_and_drawn_from(folder: Path, tmp_path: Path) -> None:
    population = tmp_path / "population.json"
    result = lungcast("fit", folder / "cohort", "--json", tmp_path / "f.json", "--population", population)
    assert result.exit_code == 0, result.output
    assert "over patients" in result.output
    assert "only 3 patients" in result.output
    words = (
        "simulate",
        folder / "cohort",
        tmp_path / "out",
        "--patient",
        "q",
        "--scan",
        "s0",
        "--days",
        "0.1",
    )
    drawn = lungcast(*words, "--seeds", "2", "--population", population, "--where", "anywhere")
    assert drawn.exit_code == 0, drawn.output
    assert "drawn from a population of 3 patients" in drawn.output
    refused = lungcast(*words, "--population", population, "--force")
    assert refused.exit_code == 2
    assert "needs seeds" in refused.output


def test_an_unseen_onset_is_played_from_y_t0(folder: Path, tmp_path: Path) -> None:
    words = ("simulate", folder / "cohort", tmp_path / "out", "--patient", "p", "--every", "1.5", "--from-t0")
    result = lungcast(*words, "--scan", "s0")
    assert result.exit_code == 0, result.output
    assert "nothing there was observed" in result.output
    rows = (tmp_path / "out/volumes.csv").read_text().splitlines()
    days = [float(row.split(",")[0]) for row in rows[1:]]
    volumes_ml = [float(row.split(",")[2]) for row in rows[1:]]
    assert days == [-3.0, -1.5, 0.0]
    observed_ml = small_scan("p", "s0").infection.sum() * small_scan().grid.voxel_volume_ml
    assert volumes_ml[0] == pytest.approx(0.1 * observed_ml, rel=0.03)
    assert volumes_ml[-1] == pytest.approx(observed_ml, rel=0.15)
    later = lungcast(*words, "--scan", "s1", "--force")
    assert later.exit_code == 1
    assert "before a patient's first annotated scan" in later.output
    both = lungcast(*words, "--scan", "s0", "--seeds", "3", "--force")
    assert both.exit_code == 2
    assert "not both" in both.output


def test_what_cannot_be_is_refused(folder: Path, tmp_path: Path) -> None:
    one = cohort_of(tmp_path / "one", small_scan())
    words = ("--json", tmp_path / "f.json", "--population", tmp_path / "population.json")
    result = lungcast("fit", one.folder, *words)
    assert result.exit_code == 1
    assert "too few patients" in result.output
    assert "Traceback" not in result.output
    assert (tmp_path / "f.json").exists()
    assert not (tmp_path / "population.json").exists()
    assert lungcast("fit", one.folder, "--json", tmp_path / "f.json", "--intervals", "guess").exit_code == 2
    simulate = ("simulate", one.folder, tmp_path / "out", "--patient", "p", "--scan", "a", "--seeds", "2")
    missing = lungcast(*simulate, "--population", tmp_path / "none.json")
    assert missing.exit_code == 1
    assert "no such population file" in missing.output


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (("--days", "-1"), "too small"),
        (("--days", "1e12"), "too long"),
        (("--every", "1e-9"), "too small"),
        (("--days", "3000", "--every", "0.02"), "too long"),
        (("--seeds", "0"), "number of seeds"),
        (("--consolidation-hu", "nan"), "no HU of tissue"),
        (("--fits", "none.json"), "no such fits file"),
        (("--seeds", "2", "--population", "none.json"), "no such population"),
    ],
)
def test_a_typo_does_not_touch_the_output_folder(
    wrong: tuple[str, ...], words: str, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = lungcast("simulate", folder / "cohort", out, "--patient", "p", "--scan", "s0", *wrong)
    assert result.exit_code in (1, 2)
    assert words in result.output
    assert "Traceback" not in result.output
    assert not out.exists()


def test_outputs_that_cannot_be_are_found_before_the_work(folder: Path, tmp_path: Path) -> None:
    for command in ("fit", "forecast"):
        result = lungcast(command, folder / "cohort", "--json", tmp_path)
        assert result.exit_code == 2
        assert "is a folder" in result.output
