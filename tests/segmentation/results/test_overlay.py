from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from segmentation.results.native import NativePrediction
from segmentation.results.overlay import overlay_figure
from simulator.figure_style import save_figure
from standard_space.geometry import orient_array
from standard_space.image import CTImage
from tests.figures import cut_texts
from tests.segmentation.images import TURNED
from tests.standard_space.bodies import body, geometry


def predicted(mask: np.ndarray, lungs: np.ndarray) -> NativePrediction:
    return NativePrediction(mask.astype(np.float32), mask, lungs, lungs.astype(np.uint8))


def pixels(path: Path, image: CTImage, found: NativePrediction, target: str = "infection") -> np.ndarray:
    figure = overlay_figure(image, found, target=target, title="chest", consolidation_hu=-600.0)
    assert cut_texts(figure) == []
    save_figure(figure, path)
    return matplotlib.image.imread(path)[..., :3]


def coloured(picture: np.ndarray) -> np.ndarray:
    """How many pixels of the lower row are no grey, left to right in thirds."""
    lower = picture[picture.shape[0] // 2 :]
    return np.array([(np.ptp(part, axis=-1) > 0.15).sum() for part in np.array_split(lower, 3, axis=1)])


def test_what_was_found_shows_in_all_three_planes(tmp_path: Path) -> None:
    image, lungs, infection = body(geometry())
    picture = pixels(tmp_path / "a.png", image, predicted(infection, lungs))
    nothing = pixels(tmp_path / "b.png", image, predicted(np.zeros_like(lungs), lungs))
    assert (coloured(picture) > coloured(nothing) + 500).all()
    assert (coloured(nothing) > 100).all()  # the lungs' outline
    assert (np.ptp(picture[100 : picture.shape[0] // 2], axis=-1) < 0.02).all()
    assert (coloured(pixels(tmp_path / "c.png", image, predicted(lungs, lungs), "lungs")) > 100).all()


def test_the_picture_does_not_depend_on_how_the_file_stores_its_axes(tmp_path: Path) -> None:
    image, lungs, infection = body(geometry(direction=TURNED))
    hu, where = orient_array(image.array, image.geometry)
    turned = predicted(*(orient_array(mask, image.geometry)[0] for mask in (infection, lungs)))
    upright = replace(image, array=hu, geometry=where)
    a = pixels(tmp_path / "a.png", image, predicted(infection, lungs))
    assert np.array_equal(a, pixels(tmp_path / "b.png", upright, turned))


@pytest.mark.parametrize("shape", [(4, 5, 6), (1, 40, 1)])
def test_nothing_to_show_is_no_failure(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    where = geometry(size=shape[::-1])
    image = CTImage(np.full(shape, -850.0, np.float32), where)
    none, full = np.zeros(shape, bool), np.ones(shape, bool)
    for name, found in (("none", predicted(none, none)), ("full", predicted(full, full))):
        assert pixels(tmp_path / f"{name}.png", image, found).size


def test_a_name_is_not_taken_for_mathematics(tmp_path: Path) -> None:
    image, lungs, infection = body(geometry())
    figure = overlay_figure(
        image, predicted(infection, lungs), target="infection", title=r"x$\q$y", consolidation_hu=-600.0
    )
    save_figure(figure, tmp_path / "a.png")
