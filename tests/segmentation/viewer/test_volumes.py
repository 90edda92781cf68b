from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segmentation.viewer.volumes import View, nifti_layers, reduced
from standard_space.geometry import Geometry
from standard_space.image import read_labels
from standard_space.image_file import read_geometry

OBLIQUE = (0.0, 1.0, 0.0, 0.8, 0.0, 0.6, 0.6, 0.0, -0.8)
"""Axes of the file exchanged and tilted."""


def a_view(shape: tuple[int, int, int] = (12, 10, 14), lungs: bool = True) -> View:
    z, y, x = shape
    rng = np.random.default_rng(3)
    where = Geometry((x, y, z), (4.0, 5.0, 8.0), (-30.0, 12.0, 200.0), OBLIQUE)
    inside = np.zeros(shape, np.uint8)
    inside[4:9, 4:8, 5:11] = 3
    hu = rng.integers(-900, 100, shape).astype(np.int16)
    infection = np.zeros(shape, np.bool_)
    infection[5:7, 5, 6] = True
    probability = rng.random(shape).astype(np.float32)
    return View(where, hu, -200.0, inside if lungs else None, infection, probability)


def slow_reduced(volume: np.ndarray, start: list[int], step: list[int], size: list[int]) -> np.ndarray:
    """Means of blocks, one after the other."""
    found = np.zeros(size)
    for k, j, i in np.ndindex(*size):
        corner = [s + n * t for s, n, t in zip(start, (k, j, i), step, strict=True)]
        found[k, j, i] = volume[tuple(slice(c, c + t) for c, t in zip(corner, step, strict=True))].mean()
    return found


def test_small_views_are_only_cut_to_the_lungs_with_a_margin() -> None:
    view = a_view()
    cut = reduced(view, 256)
    z, y, x = np.nonzero(view.lungs)
    # 15 mm are 2, 3 and 4 voxels along z, y and x.
    assert cut.hu.shape == (9, 9, 13)
    assert np.array_equal(cut.hu, view.hu[2:11, 1:10, 1:14])
    assert np.count_nonzero(cut.lungs) == len(z) == len(y) == len(x)
    assert np.array_equal(cut.infection, view.infection[2:11, 1:10, 1:14])


def test_the_world_stays_where_it_is() -> None:
    view = a_view()
    for most in (256, 6, 4):
        cut = reduced(view, most)
        assert max(cut.hu.shape) <= most
        marked = np.argwhere(cut.infection)[:, ::-1].mean(axis=0)
        truth = np.argwhere(view.infection)[:, ::-1].mean(axis=0)
        off = np.linalg.norm(cut.geometry.to_world(marked) - view.geometry.to_world(truth))
        assert off <= np.linalg.norm(cut.geometry.spacing_mm) / 2 + 1e-6


def test_coarser_views_are_means_of_blocks() -> None:
    view = a_view(lungs=False)
    cut = reduced(view, 5)
    step = [3, 2, 3]
    size = [4, 5, 4]
    assert cut.hu.shape == tuple(size)
    assert np.array_equal(cut.hu, np.round(slow_reduced(view.hu, [0, 0, 0], step, size)))
    assert np.allclose(cut.probability, slow_reduced(view.probability, [0, 0, 0], step, size), atol=1e-6)
    assert cut.geometry.spacing_mm == pytest.approx((12.0, 10.0, 24.0))
    first = view.geometry.to_world(np.array([1.0, 0.5, 1.0]))
    assert cut.geometry.origin_mm == pytest.approx(tuple(first))


def test_no_lesion_is_lost_from_sight() -> None:
    view = a_view()
    one = np.zeros(view.hu.shape, np.bool_)
    one[6, 5, 7] = True
    single = View(view.geometry, view.hu, -200.0, view.lungs, one)
    assert np.count_nonzero(reduced(single, 3).infection) == 1


def test_volumes_are_counted_by_kind_at_full_resolution() -> None:
    view = a_view()
    view.hu[5, 5, 6], view.hu[6, 5, 6] = -201, -200
    assert view.infected_ml() == {"infected_ml": 0.32, "ggo_ml": 0.16, "consolidation_ml": 0.16}
    nothing = View(view.geometry, view.hu, -200.0)
    assert set(nothing.infected_ml().values()) == {None}


def test_layers_are_nifti_files_in_the_same_place(tmp_path: Path) -> None:
    view = reduced(a_view(), 8)
    held = dict(nifti_layers(view))
    assert list(held) == ["ct", "lungs", "infection", "probability"]
    for name, content in held.items():
        (tmp_path / f"{name}.nii.gz").write_bytes(content)
        assert read_geometry(tmp_path / f"{name}.nii.gz").same_as(view.geometry)
    kinds = read_labels(tmp_path / "infection.nii.gz", view.geometry)
    assert np.array_equal(kinds > 0, view.infection)
    assert np.array_equal(kinds == 2, view.infection & (view.hu >= -200))
    shown = read_labels(tmp_path / "probability.nii.gz", view.geometry)
    assert np.abs(shown / 255 - view.probability).max() <= 0.5 / 255 + 1e-6


def test_layers_that_are_not_there_are_left_out() -> None:
    view = a_view()
    assert list(dict(nifti_layers(View(view.geometry, view.hu, -200.0)))) == ["ct"]


def test_it_opens_where_most_infection_is() -> None:
    view = a_view()
    view.infection[:] = False
    view.infection[3, 2:5, 7:10] = True
    view.infection[8, 1, 1] = True
    assert view.place_mm() == pytest.approx(tuple(view.geometry.to_world(np.array([8.0, 3.0, 3.0]))))
    assert View(view.geometry, view.hu, -200.0).place_mm() is None
