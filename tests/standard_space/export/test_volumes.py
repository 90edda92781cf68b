"""Image and labels of a case, and that a file is whole or not there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from standard_space.errors import ScanFileError
from standard_space.export.settings import ExportSettings
from standard_space.export.volumes import export_arrays, read_volume
from standard_space.restore import restore_layer
from standard_space.scan import Scan
from standard_space.scanfile import write_scan
from standard_space.window import Window
from tests.standard_space.bodies import geometry
from tests.standard_space.differences import write_as_difference
from tests.standard_space.export.cohorts import observed, played

SPLIT = ExportSettings(labels="ggo-consolidation")


@pytest.fixture(scope="module")
def scan() -> Scan:
    return observed()


def test_observed_and_synthetic_images_are_restored_alike(scan: Scan, tmp_path: Path) -> None:
    digest = write_scan(tmp_path / "a.h5", scan)
    synthetic = played(scan)
    write_as_difference(tmp_path / "s.h5", synthetic, scan, digest)
    volume = read_volume(tmp_path / "a.h5", digest)
    before, labels_before, _ = export_arrays(volume, ExportSettings())
    assert before.dtype == np.int16
    assert np.array_equal(before, restore_layer(scan, "hu"))
    assert np.array_equal(labels_before, scan.native_infection)
    with volume.changed_to(tmp_path / "s.h5") as changed:
        image, labels, _ = export_arrays(changed, ExportSettings())
        assert np.array_equal(image, restore_layer(synthetic, "hu"))
        assert np.array_equal(labels, restore_layer(synthetic, "infection"))
        standard, on_grid, _ = export_arrays(changed, ExportSettings(geometry="standard"))
        assert np.array_equal(standard, np.rint(scan.window.to_hu(synthetic.signal)))
        assert np.array_equal(on_grid, synthetic.infection)
    again, labels_again, _ = export_arrays(volume, ExportSettings())
    assert np.array_equal(again, before)
    assert np.array_equal(labels_again, labels_before)


def test_without_a_native_mask_the_label_is_restored(tmp_path: Path) -> None:
    plain = observed(keep_native=False)
    volume = read_volume(tmp_path / "a.h5", write_scan(tmp_path / "a.h5", plain))
    _, labels, _ = export_arrays(volume, ExportSettings())
    assert np.array_equal(labels, restore_layer(plain, "infection"))


@pytest.mark.parametrize("kind", ["native", "standard"])
@pytest.mark.parametrize("cut", [-200.0, -700.0])
def test_consolidation_is_cut_in_the_exported_image(
    scan: Scan, tmp_path: Path, kind: str, cut: float
) -> None:
    volume = read_volume(tmp_path / "a.h5", write_scan(tmp_path / "a.h5", scan))
    settings = replace(SPLIT, geometry=kind, consolidation_hu=cut)
    image, labels, _ = export_arrays(volume, settings)
    _, infected, _ = export_arrays(volume, replace(settings, labels="infection"))
    assert labels is not None
    assert infected is not None
    assert np.array_equal(labels > 0, infected == 1)
    assert (image[labels == 2] >= cut).all()
    assert (image[labels == 1] < cut).all()
    assert (labels == 2).any()
    if cut == -200.0:
        assert (labels == 1).any()


def test_infection_beyond_the_standard_extent_is_left_out_and_told(tmp_path: Path) -> None:
    where = geometry(size=(60, 36, 34), spacing=(9.0, 9.0, 10.6))  # 540 mm wide, 334 fit
    wide = observed(where=where)
    assert wide.native_infection is not None
    native = wide.native_infection.copy()
    native[10:12, 10:12, 0:2] = True
    far = replace(wide, native_infection=native)
    volume = read_volume(tmp_path / "a.h5", write_scan(tmp_path / "a.h5", far))
    _, labels, notes = export_arrays(volume, ExportSettings())
    assert np.array_equal(labels, wide.native_infection)
    assert notes == ["8 annotated voxels lie beyond the standard extent, where the image is air: left out"]
    untold = read_volume(tmp_path / "b.h5", write_scan(tmp_path / "b.h5", wide))
    assert export_arrays(untold, ExportSettings())[2] == []


def test_a_window_that_does_not_reach_the_cut_is_told(scan: Scan, tmp_path: Path) -> None:
    narrow = replace(scan, window=Window(-700.0, 800.0, "8-bit"))
    volume = read_volume(tmp_path / "a.h5", write_scan(tmp_path / "a.h5", narrow))
    assert "does not reach the cut" in export_arrays(volume, SPLIT)[2][0]
    assert export_arrays(volume, ExportSettings())[2] == []
    assert export_arrays(volume, replace(SPLIT, consolidation_hu=-400.0))[2] == []


def test_another_source_and_damage_are_refused(scan: Scan, tmp_path: Path) -> None:
    digest = write_scan(tmp_path / "a.h5", scan)
    write_as_difference(tmp_path / "s.h5", played(scan), scan, "0" * 64)
    with pytest.raises(ScanFileError, match="no longer what the manifest says"):
        read_volume(tmp_path / "a.h5", "1" * 64)
    volume = read_volume(tmp_path / "a.h5", digest)
    with pytest.raises(ScanFileError, match="another source"), volume.changed_to(tmp_path / "s.h5"):
        pass
    (tmp_path / "s.h5").write_bytes(b"no HDF5")
    with pytest.raises(ScanFileError, match="not a readable scan file"), volume.changed_to(tmp_path / "s.h5"):
        pass
