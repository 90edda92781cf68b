"""Every exported file lies on the original in the world, whatever the acquisition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from standard_space.export.run import export_cohort
from standard_space.export.settings import ExportSettings
from standard_space.geometry import Geometry
from standard_space.grid import StandardGrid
from tests.standard_space.bodies import LESION_CENTRE_MM, body, geometry, rotation
from tests.standard_space.export.cohorts import augmented_of, cohort_of, observed, played

DIRECTIONS = {
    "axial": np.eye(3),
    "feet first": np.diag([-1.0, 1.0, -1.0]),
    "sagittal storage": np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]),
    "oblique and flipped": rotation(-8.0, 1) @ np.diag([1.0, -1.0, -1.0]),
}


def read(path: Path) -> tuple[np.ndarray, Geometry]:
    image = sitk.ReadImage(str(path))
    return sitk.GetArrayFromImage(image), Geometry.of(image)


def centre_mm(mask: np.ndarray, where: Geometry) -> np.ndarray:
    return where.to_world(np.argwhere(mask).mean(axis=0)[::-1])


@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.parametrize("kind", ["native", "standard"])
def test_files_lie_on_the_original(tmp_path: Path, name: str, kind: str) -> None:
    where = geometry(size=(50, 52, 48), spacing=(7.0, 7.1, 7.3), direction=DIRECTIONS[name])
    image, _, infection = body(where)
    scan = observed(where=where, grid=StandardGrid(64))
    synthetic = played(scan)
    cohort = cohort_of(tmp_path / "c", scan)
    folder = augmented_of(tmp_path / "aug", cohort, (synthetic, scan))
    export_cohort(folder, tmp_path / "out", ExportSettings(geometry=kind))

    files = {
        f"{part}/{case}": read(tmp_path / "out" / part / f"{case}.nii.gz")
        for part in ("images", "labels")
        for case in ("p_a", "p_a-sim1")
    }
    wanted = where if kind == "native" else scan.standard_geometry
    for _, found in files.values():
        assert found.size == wanted.size
        assert found.distance_mm(wanted) < 0.01
    labels, found = files["labels/p_a"]
    hu, _ = files["images/p_a"]
    np.testing.assert_allclose(centre_mm(labels == 1, found), LESION_CENTRE_MM, atol=1.5)
    if kind == "native":
        assert np.array_equal(labels == 1, infection)
        standard = scan.standard_geometry.to_index(
            where.to_world(np.argwhere(np.ones(where.shape, bool))[:, ::-1].astype(float))
        )
        inside = ((standard > 0) & (standard < 63)).all(axis=1).reshape(where.shape)
        difference = np.abs(hu - image.array)[inside & ~infection]
        assert np.median(difference) < 15.0
        assert (hu[((standard < -1) | (standard > 64)).any(axis=1).reshape(where.shape)] == -1000).all()
    # The synthetic block lies where it lies in the standard space.
    assert synthetic.infection is not None
    assert scan.infection is not None
    true = centre_mm(synthetic.infection & ~scan.infection, scan.standard_geometry)
    labels_after, _ = files["labels/p_a-sim1"]
    np.testing.assert_allclose(
        centre_mm((labels_after == 1) & (labels == 0), found), true, atol=0.01 if kind == "standard" else 4.0
    )
