"""Images are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from standard_space.errors import OutOfSpaceError
from standard_space.image import write_volume
from tests.standard_space.bodies import geometry

WHERE = geometry(size=(12, 11, 10))
ARRAY = np.random.default_rng(0).integers(-1000, 1000, WHERE.shape).astype(np.int16)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_the_same_array_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    for name in "ab":
        write_volume(tmp_path / f"{name}{suffix}", ARRAY, WHERE)
    back = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"a{suffix}")))
    np.testing.assert_array_equal(back, ARRAY)
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_file_that_itk_silently_left_torn_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    write = sitk.WriteImage

    def write_a_part(image: sitk.Image, name: str, **options: object) -> None:
        write(image, name, **options)
        os.truncate(name, os.path.getsize(name) // 2)

    monkeypatch.setattr(sitk, "WriteImage", write_a_part)
    with pytest.raises(OutOfSpaceError, match="could not be written whole"):
        write_volume(tmp_path / f"a{suffix}", ARRAY, WHERE)
    assert not list(tmp_path.iterdir())


def test_an_error_of_itk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("File too large")

    monkeypatch.setattr(sitk, "WriteImage", fail)
    with pytest.raises(OutOfSpaceError, match="could not be written whole"):
        write_volume(tmp_path / "a.nrrd", ARRAY, WHERE)
