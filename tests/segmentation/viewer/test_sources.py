from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segmentation.results.segment_image import segment_image
from segmentation.viewer import sources
from segmentation.viewer.cases import Case, Frame, Point, thinned
from segmentation.viewer.sources import Shown, cases_of
from segmentation.viewer.volumes import View
from standard_space.errors import DataError, LungcastError, ReadError, UsageError
from standard_space.files import write_mark, write_text
from standard_space.image import write_volume
from tests.segmentation.cohorts import toy_cohort
from tests.segmentation.images import lively_model, write_chest, write_chest_series
from tests.segmentation.toys import toy_scan


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "cohort"
    scans = [
        replace(toy_scan("P1", "b", seed=1), day=3.5),
        replace(toy_scan("P1", "a", seed=2), day=0.0),
        toy_scan("P2", "a", seed=3, annotated=False),
    ]
    toy_cohort(folder, *scans)
    return folder


def test_a_cohort_is_a_case_per_patient_with_its_scans_by_day(cohort: Path) -> None:
    first, second = cases_of(cohort)
    assert (first.title, second.title) == ("P1", "P2")
    assert [(frame.label, frame.day, frame.kind) for frame in first.frames] == [
        ("a", 0.0, "observed"),
        ("b", 3.5, "observed"),
    ]
    view = first.frames[1].read()
    scan = toy_scan("P1", "b", seed=1)
    assert np.array_equal(view.infection, scan.infection)
    assert view.geometry.same_as(scan.standard_geometry)
    assert first.frames[1].infected_ml["infected_ml"] == pytest.approx(
        view.infected_ml()["infected_ml"], abs=1e-3
    )
    assert second.frames[0].read().infection is None


def test_hu_are_those_of_the_window(cohort: Path) -> None:
    view = cases_of(cohort)[0].frames[1].read()
    scan = toy_scan("P1", "b", seed=1)
    # Signals are stored as 16-bit floats.
    assert np.abs(view.hu - np.clip(scan.window.to_hu(scan.signal), -1024, 3071)).max() <= 2


def test_only_the_patients_asked_for(cohort: Path) -> None:
    (only,) = cases_of(cohort, Shown(patients=("P2",)))
    assert only.title == "P2"
    with pytest.raises(UsageError, match=r"no such patient.*P9"):
        cases_of(cohort, Shown(patients=("P1", "P9")))


def test_a_scan_file_is_shown_with_the_patient_s_other_scans(cohort: Path) -> None:
    (case,) = cases_of(cohort / "P1_b.h5")
    assert case.title == "P1/b"
    assert len(case.frames) == 2


def test_a_scan_file_alone_says_what_it_is(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = tmp_path / "alone.h5"
    alone.write_bytes((cohort / "P1_b.h5").read_bytes())
    (case,) = cases_of(alone)
    assert (case.title, case.frames[0].kind, case.frames[0].day) == ("P1/b", "observed", 3.5)
    head = {"kind": "synthetic scan", "patient": "P1", "scan": "b-sim1", "day": 4.2}
    monkeypatch.setattr(sources, "read_meta", lambda path: head)
    (case,) = cases_of(alone)
    assert (case.title, case.frames[0].kind, case.frames[0].day) == ("P1/b-sim1", "simulated", 4.2)


def test_a_result_needs_the_image_it_was_made_from(tmp_path: Path) -> None:
    write_chest(tmp_path / "chest.nii.gz")
    out = tmp_path / "out"
    report = segment_image(lively_model(), tmp_path / "chest.nii.gz", out, device="cpu", threshold=1.5)
    write_mark(out, "segmentation", {"operation": "segment", "complete": True})
    with pytest.raises(UsageError, match="give --image"):
        cases_of(out)
    ((frame,),) = (case.frames for case in cases_of(out, Shown(image=tmp_path / "chest.nii.gz")))
    assert frame.kind == "predicted"
    view = frame.read()
    assert view.infected_ml()["infected_ml"] == pytest.approx(report["infection_ml"], rel=1e-3)
    assert view.probability is not None
    assert view.infection is not None
    write_chest(tmp_path / "other.nii.gz", noise_hu=9.0)
    (other,) = cases_of(out, Shown(image=tmp_path / "other.nii.gz"))
    with pytest.raises(DataError, match="not the image"):
        other.frames[0].read()


def test_an_image_and_a_dicom_folder_on_their_own_grids(tmp_path: Path) -> None:
    where, lungs, infection = write_chest(tmp_path / "chest.nii.gz")
    write_volume(tmp_path / "mask.nii.gz", infection, where)
    write_volume(tmp_path / "lungs.nii.gz", lungs, where)
    shown = Shown(infection=tmp_path / "mask.nii.gz", lungs=tmp_path / "lungs.nii.gz")
    (case,) = cases_of(tmp_path / "chest.nii.gz", shown)
    assert case.title == "chest"
    view = case.frames[0].read()
    assert view.geometry.same_as(where)
    assert np.array_equal(view.infection, infection)
    write_chest_series(tmp_path / "series")
    (series,) = cases_of(tmp_path / "series")
    assert series.frames[0].read().hu.min() >= -1024


def test_what_cannot_be_shown_is_said_before_a_page_is_made(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReadError, match="empty"):
        cases_of(tmp_path / "empty")
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ReadError):
        cases_of(tmp_path / "notes.txt")
    where, _, _ = write_chest(tmp_path / "chest.nii.gz")
    elsewhere = replace(where, origin_mm=(0.0, 0.0, 55.0))
    write_volume(tmp_path / "mask.nii.gz", np.zeros(where.shape, np.bool_), elsewhere)
    with pytest.raises(LungcastError, match=r"mask\.nii\.gz"):
        cases_of(tmp_path / "chest.nii.gz", Shown(infection=tmp_path / "mask.nii.gz"))


def a_simulation(folder: Path, days: int = 3) -> Path:
    """What `lungcast simulate` leaves, made by hand."""
    folder.mkdir()
    where, _, infection = write_chest(folder / "day000.00_image.nii.gz")
    rows = ["day,infected_ml,ggo_ml,consolidation_ml"]
    for day in range(days):
        write_chest(folder / f"day{day:06.2f}_image.nii.gz")
        write_volume(folder / f"day{day:06.2f}_infection.nii.gz", infection, where)
        rows.append(f"{day},{10 + day},{8 + day},2")
    write_text(folder / "volumes.csv", "\n".join(rows) + "\n")
    write_mark(folder, "simulation", {"consolidation_hu": -300.0, "seeds": None, "from_t0": False})
    return folder


def test_a_simulation_has_a_frame_a_day_with_its_own_cut(tmp_path: Path) -> None:
    (case,) = cases_of(a_simulation(tmp_path / "simulation"))
    assert [(frame.day, frame.kind) for frame in case.frames] == [
        (0.0, "observed"),
        (1.0, "simulated"),
        (2.0, "simulated"),
    ]
    assert case.frames[2].infected_ml == {"infected_ml": 12.0, "ggo_ml": 10.0, "consolidation_ml": 2.0}
    assert case.frames[0].read().consolidation_hu == -300.0
    assert case.text.startswith("simulated by the patient's fitted dynamics, 2 days")


def test_a_simulation_shows_its_lungs_and_what_was_observed_beside_it(tmp_path: Path) -> None:
    folder = a_simulation(tmp_path / "simulation")
    (case,) = cases_of(folder)
    assert case.observed == []
    assert case.frames[1].read().lungs is None
    where, lungs, _ = write_chest(folder / "day000.00_image.nii.gz")
    write_volume(folder / "lungs.nii.gz", lungs, where)
    write_text(folder / "observed.csv", "scan,day,infected_ml\ns1,0,10\ns0,-3.5,4.25\n")
    (case,) = cases_of(folder)
    assert case.observed == [Point("s0", -3.5, 4.25)]  # the other one is the first frame
    assert case.to_json()["observed"] == [{"label": "s0", "day": -3.5, "infected_ml": 4.25}]
    assert np.array_equal(case.frames[1].read().lungs != 0, lungs)
    write_text(folder / "observed.csv", "scan,when,infected_ml\ns0,1,4.25\n")
    with pytest.raises(DataError, match=r"observed\.csv.*day"):
        cases_of(folder)
    write_text(folder / "observed.csv", "scan,day,infected_ml\ns0,soon,4.25\n")
    with pytest.raises(DataError, match=r"observed\.csv: the simulation's volumes cannot be read"):
        cases_of(folder)


def test_a_simulation_from_seeds_begins_simulated(tmp_path: Path) -> None:
    folder = a_simulation(tmp_path / "simulation")
    write_mark(folder, "simulation", {"seeds": 4})
    (case,) = cases_of(folder)
    assert case.frames[0].kind == "simulated"
    assert case.text.startswith("a made-up infection from 4 seeds, default dynamics")


def test_a_simulation_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    folder = a_simulation(tmp_path / "simulation")
    (folder / "day001.00_image.nii.gz").unlink()
    with pytest.raises(DataError, match=r"2 images and 3 rows.*--force"):
        cases_of(folder)
    (folder / "volumes.csv").unlink()
    with pytest.raises(DataError, match="volumes cannot be read"):
        cases_of(folder)


def test_a_demo_is_what_lies_in_it(cohort: Path, tmp_path: Path) -> None:
    demo = tmp_path / "demo"
    demo.mkdir()
    write_mark(demo, "demo", {})
    with pytest.raises(UsageError, match="not whole"):
        cases_of(demo)
    (demo / "cohort").symlink_to(cohort)
    assert [case.title for case in cases_of(demo)] == ["cohort: P1", "cohort: P2"]


def test_what_cannot_be_shown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        cases_of(tmp_path / "nothing")
    write_mark(tmp_path, "model", {})
    with pytest.raises(UsageError, match="a model folder"):
        cases_of(tmp_path)


def test_many_times_are_thinned_evenly_and_observed_ones_stay() -> None:
    def no_view() -> View:
        raise AssertionError

    frames = [
        Frame(f"{day}", "observed" if day == 7 else "simulated", float(day), no_view) for day in range(61)
    ]
    few = thinned(Case("p", "A text.", frames), 5)
    assert [frame.day for frame in few.frames] == [0.0, 7.0, 21.0, 40.0, 60.0]
    assert few.text == "A text. 5 of 61 times are shown."
    assert thinned(few, 5) is few
