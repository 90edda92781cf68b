"""The raw dataset of nnU-Net v2, before nnU-Net's own check."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from standard_space.export.run import export_cohort
from standard_space.export.settings import ExportSettings
from tests.standard_space.bodies import geometry, rotation
from tests.standard_space.export.cohorts import augmented_of, cohort_of, observed, played, small_study


def verify(folder: Path) -> None:
    """`verify_dataset_integrity` of the real nnU-Net; it raises what is wrong."""
    pytest.importorskip("nnunetv2", exc_type=ImportError)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of nnU-Net and of what it imports
        from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

        verify_dataset_integrity(str(folder), num_processes=1)


@pytest.mark.interop
def test_nnunets_own_check_passes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Native grids of several shapes, one oblique; two labels."""
    plain = observed("p")
    turn = rotation(-8.0, 1) @ np.diag([1.0, -1.0, -1.0])
    oblique = observed("q", where=geometry(size=(44, 40, 30), spacing=(8.1, 8.3, 11.0), direction=turn))
    cohort = cohort_of(tmp_path / "c", plain, oblique)
    folder = augmented_of(tmp_path / "aug", cohort, (played(plain), plain), (played(oblique), oblique))
    settings = ExportSettings(format="nnunet", labels="ggo-consolidation")
    out = tmp_path / "Dataset101_Lungs"
    outcome = export_cohort(folder, out, settings)
    assert not any("DatasetNNN" in line for line in outcome.remarks)
    verify(out)
    printed = capfd.readouterr().out
    assert "verify_dataset_integrity Done" in printed
    assert "Warning" not in printed
    assert "WARNING" not in printed


@pytest.mark.interop
def test_nnunets_own_check_looks_at_the_labels(tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_cohort(small_study(tmp_path, patients=1, synthetic=1), out, ExportSettings(format="nnunet"))
    label = out / "labelsTr" / "p0_a.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(label)) * 7, str(label))
    with pytest.raises(RuntimeError, match="unexpected labels"):
        verify(out)


def test_dataset_json_and_splits(tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = export_cohort(small_study(tmp_path), out, ExportSettings(format="nnunet", folds=3))
    assert json.loads((out / "dataset.json").read_text()) == {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "infection": 1},
        "numTraining": 9,
        "file_ending": ".nii.gz",
    }
    splits = json.loads((out / "splits_final.json").read_text())
    assert len(splits) == 3
    every = {f"p{k}_a{e}" for k in range(3) for e in ("", "-sim1", "-sim2")}
    for split in splits:
        assert set(split) == {"train", "val"}
        (held,) = split["val"]
        assert held in {"p0_a", "p1_a", "p2_a"}
        assert set(split["train"]) == {name for name in every if not name.startswith(held)}
    assert {split["val"][0] for split in splits} == {"p0_a", "p1_a", "p2_a"}
    text = " ".join(outcome.remarks)
    assert "call the folder DatasetNNN_Name (it is out)" in text
    assert "nnUNet_preprocessed/DatasetNNN_Name/" in text
    assert "folds 0 to 2" in text


def test_one_patient_has_no_splits(tmp_path: Path) -> None:
    out = tmp_path / "Dataset007_One"
    outcome = export_cohort(small_study(tmp_path, patients=1), out, ExportSettings(format="nnunet"))
    assert not (out / "splits_final.json").exists()
    assert outcome.remarks[0].startswith("no folds")
    assert "fold `all`" in outcome.remarks[1]
