"""`lungcast forecast` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from cli.main import main
from tests.simulator.scans import cohort_of, small_scan


def lungcast(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_cohort_is_forecast_with_scores_table_and_figures(tmp_path: Path) -> None:
    scans = [small_scan("p", f"s{k}", 2.0 * k, 0.02 * k) for k in range(3)]
    cohort_of(tmp_path / "c", *scans)
    result = lungcast(
        "forecast", tmp_path / "c", "--json", tmp_path / "f.json", "--figures", tmp_path / "figs", "--runs", "2",
        "--jump", "50", "--spread", "3",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "p s0,s1>s2" in result.output
    assert "The dilation is told the true volume" in result.output
    content = json.loads((tmp_path / "f.json").read_text())
    assert content["settings"]["controls"]["gamma"] == 3.0
    assert len(content["forecasts"][0]["runs"]) == 2
    assert (tmp_path / "figs/p_s0_s1_s2.png").stat().st_size > 10_000
    quiet = lungcast(
        "forecast", tmp_path / "c", "--json", tmp_path / "q.json", "--runs", "2", "--jump", "50", "--spread", "3",
        "--quiet",
    )  # fmt: skip
    assert quiet.stdout == ""
    assert (tmp_path / "q.json").read_bytes() == (tmp_path / "f.json").read_bytes()


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    lone = cohort_of(tmp_path / "lone", small_scan())
    result = lungcast("forecast", lone.folder, "--json", tmp_path / "f.json")
    assert result.exit_code == 1
    assert "none has two annotated scans" in result.output
    assert not (tmp_path / "f.json").exists()
    assert lungcast("forecast", tmp_path / "nowhere", "--json", tmp_path / "f.json").exit_code == 2
    assert lungcast("forecast", lone.folder, "--json", tmp_path / "f.json", "--runs", "0").exit_code == 2
    bad = lungcast("forecast", lone.folder, "--json", tmp_path / "f.json", "--clustering", "3")
    assert bad.exit_code == 2
    assert "Traceback" not in bad.output


def test_a_bad_scan_gives_exit_code_1_and_its_name(tmp_path: Path) -> None:
    scans = [small_scan("p", f"s{k}", 2.0 * k, 0.02 * k) for k in range(3)]
    cohort = cohort_of(tmp_path / "c", *scans, small_scan("q", "a", 0.0), small_scan("q", "b", 1.0))
    path = cohort.path(cohort.find("q", "a"))
    path.write_bytes(path.read_bytes()[:2000])
    result = lungcast(
        "forecast", tmp_path / "c", "--json", tmp_path / "f.json", "--runs", "2", "--jump", "50"
    )
    assert result.exit_code == 1
    assert "q_a.h5" in result.output or "q/a" in result.output
    assert "1 failed; the rest was completed" in result.output
    assert len(json.loads((tmp_path / "f.json").read_text())["forecasts"]) == 1
