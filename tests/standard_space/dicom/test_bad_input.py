"""Damaged and absurd DICOM: one clear sentence, no crash, no runaway memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from standard_space.dicom import read_dicom_folder
from standard_space.errors import ReadError
from tests.standard_space.dicom.dicom_files import base, place, series
from tests.standard_space.dicom.reading import (
    FUZZ,
    noise,
    raw_value,
    read,
    refusal,
    survives,
)


def change(folder: Path, numbers: list[int], **tags: object) -> None:
    """Set header values of some slices of a series; None removes."""
    paths = sorted(folder.iterdir())
    for number in numbers:
        dataset = dcmread(paths[number])
        for name, value in tags.items():
            if value is None:
                delattr(dataset, name)
            elif isinstance(value, bytes):
                raw_value(dataset, name, value)
            else:
                setattr(dataset, name, value)
        dataset.save_as(paths[number])


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"ImagePositionPatient": None}, "no ImagePositionPatient"),
        ({"ImageOrientationPatient": None}, "ImageOrientationPatient"),
        ({"ImagePositionPatient": b"1\\2\\NaN "}, "ImagePositionPatient is not"),
        ({"ImagePositionPatient": b"1\\2 "}, "ImagePositionPatient is not"),
        ({"ImageOrientationPatient": b"NaN\\0\\0\\0\\1\\0 "}, "perpendicular"),
        ({"ImageOrientationPatient": b"0\\0\\0\\0\\0\\0"}, "perpendicular"),
        ({"ImageOrientationPatient": b"1\\0\\0\\1\\0\\0"}, "perpendicular"),
        ({"PixelSpacing": None}, "PixelSpacing"),
        ({"PixelSpacing": [0, 0]}, "PixelSpacing"),
        ({"PixelSpacing": b"2\\x "}, "PixelSpacing"),
        ({"Rows": 0}, "0 rows"),
        ({"Rows": None}, "no rows"),
        ({"Rows": 65535, "Columns": 65535}, "65535 rows"),
        ({"Rows": 4000, "Columns": 4000}, "fewer pixels"),
        ({"BitsAllocated": 12}, "12 bits"),
        ({"BitsStored": 17}, "bits stored"),
        ({"RescaleSlope": "0"}, "slope"),
        ({"RescaleIntercept": b"abc "}, "intercept"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "MONOCHROME1"),
        ({"PixelData": None}, "no pixels"),
    ],
)
def test_bad_headers_get_one_sentence(tmp_path: Path, tags: dict[str, object], message: str) -> None:
    series(tmp_path, noise())
    change(tmp_path, [3, 5], **tags)
    error = refusal(tmp_path)
    assert "2 of 8 files of the series" in str(error)
    assert message in str(error)
    change(tmp_path, [0, 1, 2, 4, 6, 7], **tags)
    error = refusal(tmp_path)
    assert "8 of 8 files of the series" in str(error)
    assert message in str(error)


def test_truncated_and_foreign_files_are_counted_not_dropped(tmp_path: Path) -> None:
    series(tmp_path, noise())
    first, second = sorted(tmp_path.iterdir())[:2]
    whole = first.read_bytes()
    first.write_bytes(whole[:-100])
    assert "1 of 8 files" in str(refusal(tmp_path))
    assert "cut short" in str(refusal(tmp_path))
    first.write_bytes(whole[:300])
    assert "1 of the files beside" in str(refusal(tmp_path))
    first.unlink()
    second.with_suffix(".dcm").write_bytes(np.random.default_rng(0).bytes(5000))
    second.unlink()
    assert "1 of the files beside" in str(refusal(tmp_path))


def test_damage_elsewhere_is_a_note(tmp_path: Path) -> None:
    series(tmp_path / "a", noise())
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.dcm").write_bytes(b"junk")
    assert "1 damaged file elsewhere" in read(tmp_path)[2][0]
    with pytest.raises(ReadError, match="no DICOM series"):
        read_dicom_folder(tmp_path / "b")


def test_a_damaged_series_does_not_give_way_to_a_smaller_one(tmp_path: Path) -> None:
    series(tmp_path / "a", noise((12, 24, 20)))
    change(tmp_path / "a", list(range(12)), Rows=4000, Columns=4000)
    series(tmp_path / "b", noise((6, 24, 20)), uid="1.2.9.2")
    assert "12 of 12 files" in str(refusal(tmp_path))


def test_a_false_length_in_a_header_allocates_nothing(tmp_path: Path) -> None:
    series(tmp_path, noise())
    path = sorted(tmp_path.iterdir())[0]
    data = bytearray(path.read_bytes())
    place_of = data.index(b"\x28\x00\x30\x00DS")
    data[place_of + 4 : place_of + 12] = b"OB\0\0\xf0\xff\xff\xff"
    path.write_bytes(bytes(data))
    assert "damaged" in str(refusal(tmp_path))


def test_a_deflated_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series(tmp_path, noise(), syntax=DeflatedExplicitVRLittleEndian)
    monkeypatch.setattr("standard_space.dicom.files.MAX_INFLATED_BYTES", 500)
    assert "far too large" in str(refusal(tmp_path))


def test_files_without_a_preamble_are_read(tmp_path: Path) -> None:
    volume = noise()
    for path in series(tmp_path, volume, syntax=ImplicitVRLittleEndian):
        dataset = dcmread(path)
        dataset.file_meta, dataset.preamble = FileMetaDataset(), None
        dataset.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
        assert path.read_bytes()[128:132] != b"DICM"
    np.testing.assert_array_equal(read(tmp_path)[0], volume)


def tiny() -> Dataset:
    dataset = base(noise((1, 6, 5))[0], uid="1.2.9.1.1")
    place(dataset, (-5.0, -5.0, 10.0))
    return dataset


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five good slices of a six-slice series; the sixth, at the end, is what the fuzz damages."""
    folder = tmp_path_factory.mktemp("fuzz")
    series(folder, noise((6, 6, 5)))
    return folder


@FUZZ
@given(
    cut=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
)
def test_fuzzed_bytes_never_crash(good: Path, cut: float, flips: list[tuple[float, int]]) -> None:
    path = sorted(good.iterdir())[0]
    whole = path.read_bytes()
    data = bytearray(whole[: 132 + round(cut * (len(whole) - 132))])
    for where, value in flips:
        data[132 + int(where * (len(data) - 132)) if len(data) > 132 else 0] = value
    path.write_bytes(bytes(data))
    try:
        survives(good)
    finally:
        path.write_bytes(whole)


ABSURD = st.sampled_from(
    [
        b"",
        b"NaN ",
        b"inf ",
        b"-1e308\\1e308\\1 ",
        b"abc ",
        b"0 ",
        b"1\\2\\3 ",
        b"\xff\xff",
        b"\x00\x00",
        b"\xff" * 8,
    ]
)
NAMES = (
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "SamplesPerPixel"),
    *("WindowCenter", "WindowWidth", "NumberOfFrames", "PixelPaddingValue", "SeriesInstanceUID", "ImageType"),
    *("Modality", "SOPClassUID", "PhotometricInterpretation", "PerFrameFunctionalGroupsSequence"),
)


@FUZZ
@given(
    values=st.dictionaries(st.sampled_from(NAMES), ABSURD, min_size=1, max_size=4), everywhere=st.booleans()
)
def test_absurd_header_values_never_crash(good: Path, values: dict[str, bytes], everywhere: bool) -> None:
    paths = sorted(good.iterdir())[: None if everywhere else 1]
    whole = [path.read_bytes() for path in paths]
    try:
        for path in paths:
            dataset = dcmread(path)
            for name, value in values.items():
                raw_value(dataset, name, value)
            dataset.save_as(path)
        survives(good)
    finally:
        for path, content in zip(paths, whole, strict=True):
            path.write_bytes(content)
