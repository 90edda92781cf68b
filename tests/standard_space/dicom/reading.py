"""What the DICOM tests share: reading twice, by headers and in full, and refusals."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, settings
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.pixels import compress
from pydicom.tag import Tag
from pydicom.uid import (
    RLELossless,
)

from standard_space.dicom import inspect_dicom_folder, read_dicom_folder
from standard_space.errors import LungcastError
from standard_space.geometry import Geometry

SHARED = Path(__file__).parents[4] / "shared" / "data" / "dicom_lung_pet_ct_dx_a0002"
SECRETS = ("JANE", "SECRET", "4711", "1.2.9", "20200131", "DOE")
LUNG = {"WindowCenter": "-600", "WindowWidth": "1500"}


def noise(shape: tuple[int, int, int] = (8, 24, 20), seed: int = 0) -> np.ndarray:
    """Signed stored values, HU when the intercept is 0."""
    return np.random.default_rng(seed).integers(-1000, 1000, shape).astype(np.int16)


def read(folder: Path) -> tuple[np.ndarray, Geometry, list[str]]:
    """Voxels, geometry and notes; the check by headers alone must say the same, and nothing may be told."""
    image, window, notes = read_dicom_folder(folder)
    summary = inspect_dicom_folder(folder)
    assert summary.geometry == Geometry.of(image)
    assert (summary.window, summary.notes) == (window, notes)
    assert summary.size_bytes == sum(path.stat().st_size for path in summary.files)
    assert image.GetPixelID() == sitk.sitkFloat32
    assert not any(secret in " ".join(notes) for secret in SECRETS)
    return sitk.GetArrayFromImage(image), Geometry.of(image), notes


def refusal(folder: Path, *, headers_tell: bool = True) -> LungcastError:
    """The one sentence a folder is refused with."""
    with pytest.raises(LungcastError) as caught:
        read_dicom_folder(folder)
    if headers_tell:
        with pytest.raises(type(caught.value)) as checked:
            inspect_dicom_folder(folder)
        assert str(checked.value) == str(caught.value)
    text = str(caught.value).replace(str(folder), "")
    assert "\n" not in text
    assert not any(secret in text for secret in SECRETS)
    return caught.value


def raw_value(dataset: Dataset, name: str, value: bytes) -> None:
    """Put bytes where a value belongs, past pydicom's checks."""
    tag = Tag(name)
    dataset.pop(tag, None)
    dataset[tag] = RawDataElement(tag, dictionary_VR(tag)[:2], len(value), value, 0, False, True)


def compressed(source: Path, target: Path, syntax: str) -> None:
    """The file compressed by pydicom (RLE) or by SimpleITK's GDCM."""
    if syntax == "RLE":
        dataset = dcmread(source)
        compress(dataset, RLELossless)
        dataset.save_as(target)
        return
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.KeepOriginalImageUIDOn()
    writer.UseCompressionOn()
    writer.SetCompressor(syntax)
    writer.SetFileName(str(target))
    writer.Execute(sitk.ReadImage(str(source), imageIO="GDCMImageIO"))


def survives(folder: Path) -> None:
    """Read and check: both answer, or both refuse in one sentence (pixels aside)."""
    with contextlib.suppress(LungcastError):
        image, _, _ = read_dicom_folder(folder)
        assert np.isfinite(sitk.GetArrayViewFromImage(image)).all()
    with contextlib.suppress(LungcastError):
        inspect_dicom_folder(folder)


FUZZ = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
