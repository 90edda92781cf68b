"""What lies on disk: manifest, truth, names, bytes, refusals."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from simulator.phantom import make_cohort
from simulator.phantom.lesion_dynamics import LEAD_DAYS, TRANSITIONS_PER_DAY
from standard_space.errors import UsageError
from tests.simulator.phantom.conftest import Written

COLUMNS = [
    "patient", "scan", "day", "image", "infection", "lungs", "window_level", "window_width", "stage", "scanner"
]  # fmt: skip


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_manifest_names_every_file_relative_to_itself(cohort: Written) -> None:
    assert list(cohort.rows[0]) == COLUMNS
    assert len(cohort.rows) == cohort.summary.scans
    for row in cohort.rows:
        for column in ("image", "infection", "lungs"):
            assert not Path(row[column]).is_absolute()
            assert (cohort.summary.folder / row[column]).is_file()
        assert row["stage"] in {"early", "progressive", "peak", "recovery"}
        assert row["patient"].startswith(f"phantom{cohort.truth['seed']}-")


def test_days_start_at_zero_and_advance_irregularly(cohort: Written) -> None:
    steps = []
    for patient in cohort.truth["patients"]:
        days = [scan["day"] for scan in patient["scans"]]
        assert days[0] == 0
        steps += np.diff(days).tolist()
    assert all(2.0 - 1e-9 <= step <= 5.0 + 1e-9 for step in steps)
    assert len(set(np.round(steps, 6))) > 2


def test_images_are_int16_and_masks_uint8(fields_cohort: Written) -> None:
    row = fields_cohort.rows[0]
    for column, kind in (
        ("image", "16-bit signed"),
        ("infection", "8-bit unsigned"),
        ("lungs", "8-bit unsigned"),
    ):
        image = sitk.ReadImage(str(fields_cohort.summary.folder / row[column]))
        assert kind in image.GetPixelIDTypeAsString()


@pytest.mark.parametrize("lesions", ["fields", "dynamics"])
def test_same_arguments_same_bytes(tmp_path: Path, lesions: str) -> None:
    make_cohort(tmp_path / "a", patients=1, scans=2, grid=40, seed=5, lesions=lesions)
    make_cohort(tmp_path / "b", patients=1, scans=2, grid=40, seed=5, lesions=lesions)
    make_cohort(tmp_path / "c", patients=1, scans=2, grid=40, seed=6, lesions=lesions)
    first = digests(tmp_path / "a")
    assert first == digests(tmp_path / "b")
    other = digests(tmp_path / "c")
    assert not set(first.values()) & set(other.values())
    assert not {n for n in first if n.startswith("images")} & set(other), (
        "names of two seeds must not collide"
    )


def test_a_patient_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    make_cohort(tmp_path / "one", patients=1, scans=1, grid=40, seed=5, lesions="fields")
    make_cohort(tmp_path / "two", patients=2, scans=1, grid=40, seed=5, lesions="fields")
    one, two = digests(tmp_path / "one"), digests(tmp_path / "two")
    assert all(two[name] == one[name] for name in one if name.startswith("images"))


def test_truth_holds_what_was_hidden(cohort: Written) -> None:
    assert cohort.truth["seed"] in (21, 22)
    for patient, rows in zip(cohort.truth["patients"], _by_patient(cohort), strict=True):
        assert patient["patient"] == rows[0]["patient"]
        assert patient["anatomy"]["apex_z"] > 150
        assert patient["protocol"]["scanner"]["name"]
        for scan, row in zip(patient["scans"], rows, strict=True):
            _, geometry, lungs, infection = cohort.load(row)
            assert scan["infected_voxels"] == infection.sum()
            assert scan["infection_ml"] == pytest.approx(infection.sum() * geometry.voxel_volume_ml, rel=1e-5)
            assert scan["lung_ml"] == pytest.approx(lungs.sum() * geometry.voxel_volume_ml, rel=1e-5)
            assert float(row["window_width"]) == patient["protocol"]["scanner"]["width_hu"]
            assert row["scanner"] == patient["protocol"]["scanner"]["name"]


def _by_patient(cohort: Written) -> list[list[dict[str, str]]]:
    names = list(dict.fromkeys(row["patient"] for row in cohort.rows))
    return [[row for row in cohort.rows if row["patient"] == name] for name in names]


def test_named_scanners_are_taken_in_turn_and_change_nothing_else(tmp_path: Path) -> None:
    for name, scanners in (("drawn", None), ("named", ("eos-spectral", "aurora-16"))):
        make_cohort(
            tmp_path / name, patients=3, scans=1, grid=32, seed=5, lesions="fields", scanners=scanners
        )
    drawn, named = (json.loads((tmp_path / name / "truth.json").read_text()) for name in ("drawn", "named"))
    found = [patient["protocol"]["scanner"]["name"] for patient in named["patients"]]
    assert found == ["eos-spectral", "aurora-16", "eos-spectral"]
    for cohort in (drawn, named):
        for patient in cohort["patients"]:
            del patient["protocol"]["scanner"]
    assert drawn == named


def test_scanners_are_drawn_as_they_always_were(fields_cohort: Written) -> None:
    names = [patient["protocol"]["scanner"]["name"] for patient in fields_cohort.truth["patients"]]
    assert names == [
        "aurora-16", "boreas-64", "delta-lowdose", "delta-lowdose",
        "eos-spectral", "boreas-64", "cirrus-128", "delta-lowdose",
    ]  # fmt: skip


def test_dynamics_truth_records_w_and_histograms(dynamics_cohort: Written) -> None:
    for patient in dynamics_cohort.truth["patients"]:
        previous = None
        for number, scan in enumerate(patient["scans"]):
            lesion = scan["lesion"]
            days = LEAD_DAYS if number == 0 else scan["day"] - patient["scans"][number - 1]["day"]
            assert lesion["transitions"] == round(days * TRANSITIONS_PER_DAY)
            assert len(lesion["w"]) == 9  # the eight and G_ref
            counts = np.array(lesion["counts"])
            assert counts.shape == (130,)
            if previous is not None:
                assert np.array_equal(previous, lesion["counts_before"])
            else:
                assert np.count_nonzero(lesion["counts_before"]) == 1, "Y_t0 starts in bin 0"
            previous = counts
            ratio = scan["infection_ml"] / lesion["volume_ml_on_raster"]
            assert 0.75 < ratio < 1.2, "what the engine grew is what was scanned"


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    make_cohort(
        tmp_path,
        patients=1,
        scans=2,
        grid=32,
        seed=1,
        lesions="fields",
        progress=lambda *what: told.append(what),
    )
    assert told == [("phantom1-01 s1", 1, 2), ("phantom1-01 s2", 2, 2)]


@pytest.mark.parametrize(
    "arguments",
    [
        {"patients": 0},
        {"patients": 1.5},
        {"scans": 0},
        {"grid": 31},
        {"grid": 513},
        {"grid": True},
        {"seed": -1},
        {"lesions": "drawn"},
        {"scanners": ("aurora-16", "unheard of")},
        {"scanners": ()},
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(
    tmp_path: Path, arguments: dict[str, object]
) -> None:
    with pytest.raises(UsageError):
        make_cohort(tmp_path / "out", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
