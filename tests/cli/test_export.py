"""`lungcast export` as a user runs it."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from cli.main import main
from standard_space.cohort import Cohort
from tests.standard_space.export.cohorts import small_study


def lungcast(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_an_augmented_cohort_becomes_a_raw_dataset(tmp_path: Path) -> None:
    folder = small_study(tmp_path, patients=2, synthetic=1)
    out = tmp_path / "Dataset101_Lungs"
    asked = ("export", folder, out, "--format", "nnunet", "--labels", "ggo-consolidation")
    result = lungcast(*asked)
    assert result.exit_code == 0, result.output
    assert "4 cases (2 observed, 2 synthetic) of 2 patients; native geometry; 2 folds" in result.output
    assert "labels: 0 background, 1 GGO, 2 consolidation; cut at -200 HU" in result.output
    assert "nnUNet_preprocessed/Dataset101_Lungs/" in result.output
    assert (out / "splits_final.json").is_file()
    again = lungcast(*asked)
    assert "4 of them by an earlier run" in again.output
    quiet = lungcast(*asked, "--quiet")
    assert (quiet.exit_code, quiet.output) == (0, "")
    other = lungcast(*asked, "--consolidation-hu", "-300")
    assert other.exit_code == 2
    assert "another export" in other.output
    forced = lungcast(*asked, "--consolidation-hu", "-300", "--force", "--no-originals")
    assert forced.exit_code == 0, forced.output
    assert "2 cases (0 observed, 2 synthetic) of 2 patients; native geometry; no folds" in forced.output


def test_a_bad_scan_gives_exit_code_1_and_its_name(tmp_path: Path) -> None:
    folder = small_study(tmp_path, patients=2, synthetic=1)
    cohort = Cohort.open(folder)
    cohort.path(cohort.find("p1", "a-sim1")).write_bytes(b"torn")
    result = lungcast("export", folder, tmp_path / "out", "--format", "monai", "--geometry", "standard")
    assert result.exit_code == 1
    assert "p1/a-sim1" in result.output
    assert "1 failed; the rest was completed" in result.output
    assert "3 cases (2 observed, 1 synthetic)" in result.output


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    folder = small_study(tmp_path, patients=1, synthetic=1)
    for wrong in (
        ("export", tmp_path / "nowhere", tmp_path / "out", "--format", "nifti"),
        ("export", folder, tmp_path / "out"),
        ("export", folder, tmp_path / "out", "--format", "nifti", "--folds", "1"),
        ("export", folder, tmp_path / "out", "--format", "nifti", "--consolidation-hu", "nan"),
        ("export", folder, folder, "--format", "nifti"),
        ("export", tmp_path / "c", tmp_path / "out", "--format", "nifti", "--no-originals"),
        ("export", folder, tmp_path / "out", "--format", "nifti", "--sources", tmp_path / "nowhere"),
    ):
        result = lungcast(*wrong)
        assert result.exit_code == 2, result.output
        assert "Traceback" not in result.output
        assert not (tmp_path / "out").exists()
