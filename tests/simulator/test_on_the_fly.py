"""The examples of docs/on_the_fly.md run as they stand."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from simulator.cohort_fit import fit_cohort
from tests.simulator.adapters.subjects import SPACING_MM, subject_arrays
from tests.simulator.scans import cohort_of, small_scan

PAGE = Path(__file__).parents[2] / "docs" / "on_the_fly.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def write_case(folder: Path) -> None:
    """A CT in HU with its masks as NIfTI."""
    folder.mkdir()
    for name, array in zip(("ct", "infection", "lungs"), subject_arrays(), strict=True):
        image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
        image.SetSpacing(SPACING_MM)
        sitk.WriteImage(image, str(folder / f"{name}.nii.gz"))


@pytest.mark.interop
def test_the_page_s_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("monai")
    pytest.importorskip("torchio")
    cohort = cohort_of(tmp_path / "cohort", small_scan(scan="a"), small_scan(scan="b", day=3.0, shift=0.04))
    fit_cohort(cohort).save(tmp_path / "fits.json")
    write_case(tmp_path / "case")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    assert len(EXAMPLES) == 6
    with warnings.catch_warnings():
        for library in ("monai", "torchio", "torch", "nibabel", "ignite", "SimpleITK"):
            warnings.filterwarnings("ignore", module=rf"{library}(\..*)?$")
        for example in EXAMPLES:
            exec(compile(example, PAGE.name, "exec"), names)
    played = names["same"]
    infected = np.asarray(played["infection"] != 0)
    assert infected.any()
    assert played["image"].shape == (1, 72, 64, 60)
    assert (np.asarray(played["image"]) != np.asarray(names["load"](names["case"])["image"])).any()
    assert names["played"].get_applied_transforms()
