"""What slices hold: rescale, bits, padding, transfer syntaxes."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    RLELossless,
)

from standard_space.dicom import codec as dicom_codec
from standard_space.dicom.files import DamagedError
from standard_space.dicom.headers import slices_of
from standard_space.dicom.pixels import Storage, frame_bytes
from tests.standard_space.dicom.dicom_files import series
from tests.standard_space.dicom.reading import (
    FUZZ,
    compressed,
    noise,
    read,
    refusal,
    survives,
)


def test_rescale_is_every_slices_own_and_exact(tmp_path: Path) -> None:
    stored = np.random.default_rng(4).integers(0, 4096, (8, 24, 20)).astype(np.uint16)
    slopes = [1.0, 0.5, 1.25, 0.703125, 2.0, 1.0, 0.1, 1.0]
    intercepts = [-1024, -1000, -1024.5, -1024, -2048, -1024, -8192, 0]
    series(
        tmp_path,
        stored,
        RescaleSlope=[str(v) for v in slopes],
        RescaleIntercept=[str(v) for v in intercepts],
        BitsStored=12,
        HighBit=11,
    )
    array, _, _ = read(tmp_path)
    exact = stored * np.array(slopes)[:, None, None] + np.array(intercepts)[:, None, None]
    np.testing.assert_array_equal(array, exact.astype(np.float32))


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
)
@pytest.mark.parametrize("kind", ["i2", "u2", "u1", "i4"])
def test_uncompressed_syntaxes(tmp_path: Path, syntax: UID, kind: str) -> None:
    volume = (noise().astype(np.int64) + (0 if kind[0] == "i" else 1000)).astype(kind)
    series(tmp_path, volume, syntax=syntax)
    np.testing.assert_array_equal(read(tmp_path)[0], volume)


def test_signed_twelve_bits_with_an_overlay_above_them(tmp_path: Path) -> None:
    volume = noise()
    dirty = ((volume & 0xFFF) | 0x5000).astype(np.uint16).view(np.int16)
    series(tmp_path, dirty, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read(tmp_path)[0], volume)


def test_padding_becomes_air(tmp_path: Path) -> None:
    volume = np.full((8, 24, 20), 30, np.int16)
    volume[:, :3] = -2000
    series(tmp_path / "a", volume, PixelPaddingValue=-2000)
    array = read(tmp_path / "a")[0]
    assert (array[:, :3] == -1000).all()
    assert (array[:, 3:] == 30).all()
    # A padding value that tissue holds as well: only what reaches the border is padding.
    volume[:, :3] = 0
    volume[:, 10, 10] = 0
    series(tmp_path / "b", volume, PixelPaddingValue=0)
    array = read(tmp_path / "b")[0]
    assert (array[:, :3] == -1000).all()
    assert (array[:, 10, 10] == 0).all()


@pytest.mark.parametrize(
    ("compressor", "uid"),
    [
        ("RLE", "1.2.840.10008.1.2.5"),
        ("JPEG", "1.2.840.10008.1.2.4.70"),
        ("JPEG2000", "1.2.840.10008.1.2.4.90"),
    ],
)
@pytest.mark.parametrize("signed", [True, False])
def test_compressed_syntaxes(tmp_path: Path, compressor: str, uid: str, signed: bool) -> None:
    stored = noise() if signed else (noise() + 1000).astype(np.uint16)
    (tmp_path / "out").mkdir()
    for path in series(tmp_path / "in", stored):
        target = tmp_path / "out" / f"{path.name}.dcm"
        compressed(path, target, compressor)
        if not signed:
            dataset = dcmread(target)
            dataset.RescaleIntercept = "-1000"
            dataset.save_as(target)
    written = dcmread(next((tmp_path / "out").iterdir()), stop_before_pixels=True)
    assert written.file_meta.TransferSyntaxUID == uid
    np.testing.assert_array_equal(read(tmp_path / "out")[0], noise())


def test_a_syntax_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    for path in series(tmp_path, noise()):
        dataset = dcmread(path)
        dataset.file_meta.TransferSyntaxUID = HTJ2KLossless
        dataset.PixelData = encapsulate([dataset.PixelData])
        dataset["PixelData"].is_undefined_length = True
        dataset["PixelData"].VR = "OB"
        dataset.save_as(path)
    assert "High-Throughput JPEG 2000" in str(refusal(tmp_path))


@pytest.mark.parametrize("compressor", ["RLE", "JPEG", "JPEG2000"])
def test_damaged_compressed_slices_are_counted(
    tmp_path: Path, compressor: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    for number, path in enumerate(series(tmp_path / "in", noise())):
        target = tmp_path / "out" / f"{path.name}.dcm"
        compressed(path, target, compressor)
        if number in (2, 5):
            dataset = dcmread(target)
            data = bytearray(dataset.PixelData)
            data[16 : 16 + 64] = b"\x7f" * 64
            dataset.PixelData = bytes(data)
            dataset.save_as(target)
    assert "2 of 8 files" in str(refusal(tmp_path / "out", headers_tell=False))
    assert capfd.readouterr() == ("", "")


def test_damaged_codestreams_never_crash(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(1)
    for compressor in ("RLE", "JPEG", "JPEG2000"):
        folder = tmp_path / compressor
        folder.mkdir()
        for path in series(tmp_path / "raw", noise((60, 12, 10))):
            compressed(path, folder / path.name, compressor)
            data = bytearray((folder / path.name).read_bytes())
            start = data.index(b"\xe0\x7f\x10\x00") + 40
            for _ in range(4):
                data[int(generator.integers(start, len(data) - 16))] = int(generator.integers(256))
            (folder / path.name).write_bytes(bytes(data))
        survives(folder)
    assert capfd.readouterr() == ("", "")


def test_a_decoder_that_dies_costs_one_slice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    paths = series(tmp_path / "in", noise())
    for path in paths:
        compressed(path, tmp_path / "out" / path.name, "RLE")
    worker = Path(dicom_codec.__file__).with_name("gdcm_worker.py").read_text()
    dying = worker.replace(
        "        try:\n", "        os.abort() if source.stem == '3' else None\n        try:\n"
    )
    (tmp_path / "worker.py").write_text(dying.replace("import sys\n", "import os\nimport sys\n"))
    monkeypatch.setattr(dicom_codec, "_WORKER", tmp_path / "worker.py")
    error = str(refusal(tmp_path / "out", headers_tell=False))
    assert "1 of 8 files" in error
    assert "RLE Lossless pixel data cannot be decoded" in error


@FUZZ
@given(
    compressor=st.sampled_from(["RLE", "JPEG", "JPEG2000"]),
    flips=st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.integers(0, 400),
)
def test_fuzzed_codestreams_are_checked_before_they_are_decoded(
    streams: dict[str, tuple[bytes, Storage]], compressor: str, flips: list[tuple[int, int]], cut: int
) -> None:
    whole, storage = streams[compressor]
    data = bytearray(whole[:cut] if cut < 200 else whole)
    for where, value in flips:
        if where < len(data):
            data[where] = value
    with contextlib.suppress(DamagedError):
        dicom_codec.check_codestream(bytes(data), storage)


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bytes, Storage]]:
    """A codestream of every kind, with what its header says."""
    folder = tmp_path_factory.mktemp("streams")
    (source,) = series(folder, noise((1, 24, 20)))
    found = {}
    for compressor in ("RLE", "JPEG", "JPEG2000"):
        compressed(source, folder / compressor, compressor)
        (one,) = slices_of(folder / compressor)
        with open(folder / compressor, "rb") as handle:
            found[compressor] = (frame_bytes(handle, one.stored, 0), one.stored)
    return found


def test_a_codestream_of_another_size_is_refused(streams: dict[str, tuple[bytes, Storage]]) -> None:
    for data, storage in streams.values():
        dicom_codec.check_codestream(data, storage)
        for other in (replace(storage, rows=storage.rows + 1), replace(storage, columns=4000)):
            if storage.syntax != RLELossless:
                with pytest.raises(DamagedError, match="another size"):
                    dicom_codec.check_codestream(data, other)
                with pytest.raises(DamagedError, match="cut short"):
                    dicom_codec.check_codestream(data[:-20], storage)
        with pytest.raises(DamagedError):
            dicom_codec.check_codestream(data[:5], storage)
    # More than 16 bits a value crash GDCM's JPEG decoder.
    data, storage = streams["JPEG"]
    assert data[2:4] == b"\xff\xc3"
    with pytest.raises(DamagedError):
        dicom_codec.check_codestream(data[:6] + b"\x7f" + data[7:], storage)
