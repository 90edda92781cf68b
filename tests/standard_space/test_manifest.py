"""The manifest: what is accepted, and one clear sentence for what is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from standard_space.cohort import Cohort
from standard_space.errors import ManifestError
from standard_space.grid import StandardGrid
from standard_space.image import write_volume
from standard_space.ingest import EmbedSettings, embed_cohort
from standard_space.manifest import read_manifest
from standard_space.scanfile import read_scan
from tests.standard_space.bodies import body, geometry


def manifest(folder: Path, text: str) -> Path:
    for name in ("a.nii.gz", "b.nii.gz", "m.nii.gz"):
        (folder / name).touch()
    path = folder / "manifest.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_days_and_optional_columns(tmp_path: Path) -> None:
    header = "patient,scan,day,image,infection,window_level,window_width,stage"
    text = f"{header}\np,1,0,a.nii.gz,m.nii.gz,-500,1500,early\n"
    (row,) = read_manifest(manifest(tmp_path, text))
    assert row.image == tmp_path / "a.nii.gz"
    assert row.infection == tmp_path / "m.nii.gz"
    assert row.window is not None
    assert (row.window.level_hu, row.window.width_hu, row.window.source) == (-500, 1500, "manifest")
    assert (row.stage, row.lungs, row.scanner) == ("early", None, None)


def test_the_scanner_is_free_text_and_may_be_blank(tmp_path: Path) -> None:
    text = "patient,scan,day,image,scanner\np,1,0,a.nii.gz, Aurora 16 \np,2,1,b.nii.gz,\n"
    first, second = read_manifest(manifest(tmp_path, text))
    assert (first.scanner, second.scanner) == ("Aurora 16", None)


def test_a_scan_file_tells_its_scanner_and_follows_a_corrected_one(tmp_path: Path) -> None:
    where = geometry()
    write_volume(tmp_path / "ct.nii.gz", np.round(body(where)[0].array).astype(np.int16), where)

    def told(scanner: str) -> tuple[list[str], str | None]:
        lines = ["patient,scan,day,image,scanner", f"p,1,0,ct.nii.gz,{scanner}", "p,2,1,ct.nii.gz,B"]
        (tmp_path / "manifest.csv").write_text("\n".join(lines))
        outcome = embed_cohort(tmp_path / "manifest.csv", tmp_path / "c", EmbedSettings(StandardGrid(32)))
        cohort = Cohort.open(tmp_path / "c")
        return outcome.resumed, cohort.read(cohort.entries[0]).provenance.get("scanner")

    assert told("A") == ([], "A")
    assert told("C") == (["p/2"], "C")
    assert told("") == (["p/2"], None)
    assert "scanner" not in read_scan(tmp_path / "c" / "p_1.h5").provenance


def test_dates_become_days(tmp_path: Path) -> None:
    dated = ["p,1,2020-02-27,a.nii.gz", "p,2,2020-03-01T12:00,b.nii.gz", "q,1,2021-01-01,a.nii.gz"]
    text = "\n".join(["patient,scan,date,image", *dated])
    rows = read_manifest(manifest(tmp_path, text))
    assert [row.day for row in rows] == [0.0, 3.5, 0.0]


def test_a_byte_order_mark_is_no_unknown_column(tmp_path: Path) -> None:
    assert len(read_manifest(manifest(tmp_path, "\ufeffpatient,scan,day,image\np,1,0,a.nii.gz\n"))) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("patient,scan,day,image,colour\np,1,0,a.nii.gz,red\n", "unknown column 'colour'"),
        ("patient,scan,day,image,lung\np,1,0,a.nii.gz,l.nii.gz\n", "did you mean 'lungs'"),
        ("patient;scan;day;image\np;1;0;a.nii.gz\n", "separated by semicolons"),
        ("patient\tscan\tday\timage\np\t1\t0\ta.nii.gz\n", "separated by tabs"),
        ('"patient";"scan";"day";"image"\n"p";"1";"0";"a.nii.gz"\n', "separated by semicolons"),
        ("patient,scan,day,image,\np,1,0,a.nii.gz,\n", "a column has no name"),
        ("\npatient,scan,day,image\n", "the first line is empty"),
        ("", "the first line is empty"),
        ("patient,scan,day\np,1,0\n", "column image is missing"),
        ("patient,scan,image\np,1,a.nii.gz\n", "exactly one of the columns day and date"),
        ("patient,scan,day,image\n", "lists no scan"),
        ("patient,scan,day,image\np,1,zero,a.nii.gz\n", "day is not a number"),
        ("patient,scan,day,image\np,1,nan,a.nii.gz\n", "day is not finite"),
        ("patient,scan,day,image\np,1,0,a.nii.gz\np,1,2,b.nii.gz\n", "scan occurs twice"),
        ("patient,scan,day,image\np,1,3,a.nii.gz\np,2,1,b.nii.gz\n", "days go backwards"),
        ("patient,scan,day,image\np,1,3,a.nii.gz\np,2,3,b.nii.gz\n", "share a day"),
        ("patient,scan,date,image\np,1,yesterday,a.nii.gz\n", "not an ISO 8601 date"),
        ("patient,scan,day,image\n,1,0,a.nii.gz\n", "patient is blank"),
        ("patient,scan,day,image\n../x,1,0,a.nii.gz\n", "file name"),
        ("patient,scan,day,image\np,1,0,a.nii.gz,extra\n", "more fields"),
        ("patient,scan,day,image,window_level\np,1,0,a.nii.gz,-600\n", "go together"),
        (
            "patient,scan,day,image,window_level,window_width\np,1,0,a.nii.gz,-600,0\n",
            "window cannot be used",
        ),
    ],
)
def test_bad_manifests(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message) as caught:
        read_manifest(manifest(tmp_path, text))
    assert "manifest.csv" in str(caught.value)
    assert caught.value.exit_code == 2


def test_missing_or_foreign_manifest(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such manifest"):
        read_manifest(tmp_path / "absent.csv")
    with pytest.raises(ManifestError, match="is a folder"):
        read_manifest(tmp_path)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ManifestError, match="UTF-16"):
        read_manifest(tmp_path / "binary.csv")


def test_one_bad_scan_does_not_sink_the_cohort(tmp_path: Path) -> None:
    where = geometry()
    image, _, infection = body(where)
    write_volume(tmp_path / "ct.nii.gz", np.round(image.array).astype(np.int16), where)
    write_volume(tmp_path / "m.nii.gz", infection, where)
    write_volume(tmp_path / "none.nii.gz", np.zeros_like(infection), where)
    (tmp_path / "broken.nii.gz").write_bytes(b"junk")
    (tmp_path / "manifest.csv").write_text(
        "patient,scan,day,image,infection\n"
        "p,1,0,ct.nii.gz,m.nii.gz\np,2,2,broken.nii.gz,\nq,1,0,ct.nii.gz,none.nii.gz\n"
        "q,2,1,absent.nii.gz,\nq,3,2,ct.nii.gz,absent.nii.gz\n"
    )
    calls: list[tuple[str, int, int]] = []
    outcome = embed_cohort(
        tmp_path / "manifest.csv",
        tmp_path / "c",
        EmbedSettings(StandardGrid(32)),
        progress=lambda *call: calls.append(call),
    )
    assert list(outcome.failures) == ["p/2", "q/2", "q/3"]
    assert "no such image file" in outcome.failures["q/2"]
    assert "no such infection file" in outcome.failures["q/3"]
    assert "broken.nii.gz" in outcome.failures["p/2"]
    assert calls[0] == ("p/1", 0, 5)
    assert calls[-1] == ("q/3", 5, 5)
    cohort = Cohort.open(tmp_path / "c")
    assert [entry.name for entry in cohort.entries] == ["p/1", "q/1"]
    assert any("empty" in note for note in outcome.notes["q/1"])
    first = cohort.read(cohort.entries[0])
    np.testing.assert_array_equal(first.native_infection, infection)
    everything = b"".join(path.read_bytes() for path in (tmp_path / "c").iterdir())
    assert str(tmp_path).encode() not in everything
