"""A rival on a scan: it sees what it saw in training, and what it says reaches as far as the way back looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("monai")

from segmentation.aggregation import Aggregation
from segmentation.baselines.predict import BaselinePredictor
from segmentation.baselines.unet2d import UNet2D
from segmentation.methods import predictor_for
from segmentation.results.native import to_native
from segmentation.scan_predictor import ScanPredictor
from segmentation.training.cut import cut_scan
from segmentation.training.recipe import Crop, Forward
from standard_space.errors import DataError, UsageError
from standard_space.geometry import Geometry, Placement
from standard_space.scan import Scan
from tests.segmentation.baselines.test_model import small_model
from tests.segmentation.toys import toy_scan


def ready(method: str = "unet2d", batch: int | None = None, **given: Any) -> ScanPredictor:
    return predictor_for(small_model(method, **given), device="cpu", batch=batch)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Crop]:
    """What a rival was shown, that finds infection everywhere."""
    crops: list[Crop] = []

    def everything(self: UNet2D, networks: Mapping[str, Forward], crop: Crop, *_: Any) -> Tensor:
        crops.append(crop)
        return torch.ones((1, *crop.signal.shape))

    monkeypatch.setattr(UNet2D, "probabilities", everything)
    return crops


@pytest.mark.parametrize(("method", "patch"), [("unet2d", None), ("unet3d", 32), ("mueller", 16)])
def test_nothing_is_said_outside_lungs_and_box(method: str, patch: int | None) -> None:
    scan = toy_scan()
    predictor = ready(method, patch=patch)
    found = predictor.predict(scan, threshold=0.0)
    views, box = predictor.views(scan)
    assert views.shape == (1, *(side.stop - side.start for side in box))
    assert (views.dtype, float(views.min()) >= 0.0, float(views.max()) <= 1.0) == (torch.float32, True, True)
    outside = np.ones(scan.grid.shape, np.bool_)
    outside[box] = False
    assert not scan.lungs[outside].any()
    assert not found.unmasked[outside].any()
    assert not found.probability[~scan.lungs].any()
    assert not found.mask[~scan.lungs].any()
    assert found.probability[scan.lungs].min() > 0.0
    assert np.array_equal(found.mask, scan.lungs)
    assert not predictor.predict(scan, threshold=1.0).mask.any()


def test_without_lungs_nothing_is_found() -> None:
    scan = toy_scan()
    empty = replace(scan, lungs=np.zeros_like(scan.lungs))
    models = [
        small_model(),
        small_model("mpunet"),
        small_model("mpunet", Aggregation("weighted", 0.3, (0.1, 0.2, 0.3, 0.2, 0.1, 0.1))),
        small_model("mpunet", Aggregation("logistic", 0.3, (1.0,) * 6, -2.0)),
    ]
    for model in models:
        predictor = predictor_for(model, device="cpu")
        views, box = predictor.views(empty)
        assert views.numel() == 0
        assert all(side.stop == side.start for side in box)
        found = predictor.predict(empty)
        assert not found.probability.any()
        assert not found.mask.any()
        assert not to_native(found, empty).mask.any()


@pytest.mark.parametrize(("method", "patch"), [("unet2d", None), ("unet3d", 16), ("mpunet", None)])
def test_how_a_batch_is_split_does_not_matter(method: str, patch: int | None) -> None:
    scan = toy_scan()
    whole = ready(method, patch=patch)
    expected = whole.predict(scan).probability
    split = ready(method, 3, patch=patch)
    found = split.predict(scan).probability
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert split.largest_batch <= 3 <= whole.largest_batch
    assert np.array_equal(split.predict(scan).probability, found)


def test_it_sees_in_a_scan_what_it_saw_in_training(seen: list[Crop]) -> None:
    scan = toy_scan()
    ready().predict(scan)
    cut = cut_scan(scan)
    assert len(seen) == 1
    assert seen[0].signal.shape == cut.signal.shape
    np.testing.assert_allclose(seen[0].signal.numpy(), cut.signal.float().numpy(), atol=1e-3)
    assert (seen[0].air, seen[0].spacing_mm) == (cut.air, scan.grid.spacing_mm)
    assert seen[0].signal.is_contiguous()


def thick(scan: Scan, slices: int) -> Scan:
    """The same lungs, in an image of few thick slices; its native lungs are where any of a slice's are."""
    size = scan.grid.size
    z, y, x = scan.grid.spacing_mm
    factor = size // slices
    native = Geometry((size, size, slices), (x, y, factor * z), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    lungs = scan.lungs.reshape(slices, factor, size, size).any(axis=1)
    return replace(
        scan,
        placement=Placement(native, native, (-(factor - 1) / 2 * z, 0.0, 0.0)),
        native_lungs=lungs,
        native_infection=None,
    )


@pytest.mark.parametrize("slices", [32, 16, 4])
def test_the_way_back_finds_an_answer_everywhere_in_the_native_lungs(seen: list[Crop], slices: int) -> None:
    scan = thick(toy_scan(), slices)
    predictor = ready()
    found = to_native(predictor.predict(scan), scan)
    assert scan.native_lungs is not None
    assert np.array_equal(found.mask, scan.native_lungs)
    assert (found.probability[scan.native_lungs] == 1.0).all()


def test_a_scan_of_another_grid_is_refused() -> None:
    with pytest.raises(DataError, match=r"scan grid 16.*model grid 32"):
        ready().predict(toy_scan(size=16))
    with pytest.raises(UsageError, match="out of range"):
        ready().predict(toy_scan(), threshold=2.0)
    with pytest.raises(UsageError, match="precision"):
        BaselinePredictor(small_model(), device="cpu", precision="half")


def test_progress_is_told_to_the_end() -> None:
    said: list[tuple[int, int]] = []
    ready("unet3d", patch=16).predict(toy_scan(), progress=lambda _, done, total: said.append((done, total)))
    assert said
    assert [done for done, _ in said] == sorted(done for done, _ in said)
    assert said[-1][0] == said[-1][1]
