"""The datalists, read by MONAI itself."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from standard_space.export.run import export_cohort
from standard_space.export.settings import ExportSettings
from tests.standard_space.export.cohorts import observed, small_study

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def monai() -> dict[str, Any]:
    """What is used of the real MONAI."""
    pytest.importorskip("monai", exc_type=ImportError)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MONAI and of what it imports
        from monai.data import ITKReader, load_decathlon_datalist
        from monai.transforms import LoadImage
    return {"load": load_decathlon_datalist, "LoadImage": LoadImage, "reader": ITKReader}


def test_monai_reads_the_datalist_and_its_files(tmp_path: Path, monai: dict[str, Any]) -> None:
    out = tmp_path / "out"
    settings = ExportSettings(format="monai", folds=3, labels="ggo-consolidation")
    export_cohort(small_study(tmp_path), out, settings)
    items = monai["load"](str(out / "datalist.json"), is_segmentation=True)
    assert len(items) == 9
    assert {item["kind"] for item in items} == {"observed", "synthetic"}
    assert sorted({item["fold"] for item in items}) == [0, 1, 2]
    for item in items:
        assert set(item) == {"image", "label", "fold", "patient", "scan", "kind", "day"}
        assert Path(item["image"]).is_file()
        assert Path(item["label"]).is_file()
        assert {other["fold"] for other in items if other["patient"] == item["patient"]} == {item["fold"]}
    first = items[1]
    assert (first["patient"], first["scan"], first["kind"], first["day"]) == (
        "p0",
        "a-sim1",
        "synthetic",
        0.25,
    )
    for fold in range(3):
        name = str(out / f"datalist_fold{fold}.json")
        training = monai["load"](name, data_list_key="training")
        validation = monai["load"](name, data_list_key="validation")
        assert len(training) == 6
        assert [item["kind"] for item in validation] == ["observed"]
        assert validation[0]["patient"] not in {item["patient"] for item in training}


def test_monai_sees_image_and_label_on_one_grid(tmp_path: Path, monai: dict[str, Any]) -> None:
    pytest.importorskip("nibabel")
    out = tmp_path / "out"
    export_cohort(small_study(tmp_path, patients=1, synthetic=1), out, ExportSettings(format="monai"))
    items = monai["load"](str(out / "datalist.json"))
    assert [set(item) & {"fold"} for item in items] == [set(), set()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load = monai["LoadImage"](image_only=True)
        image, label = load(items[0]["image"]), load(items[0]["label"])
    assert image.shape == label.shape == observed().placement.native.size
    np.testing.assert_allclose(image.affine, label.affine)
    assert sorted(np.unique(np.asarray(label))) == [0, 1]
