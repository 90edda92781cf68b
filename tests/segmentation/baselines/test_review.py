"""A rival made ready: it answers with numbers, leaves the model alone, and takes what memory there is."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("monai")

from segmentation import device as devices
from segmentation.aggregation import Aggregation
from segmentation.baselines.model import BaselineSegmenter, untrained_network
from segmentation.baselines.predict import BaselinePredictor
from segmentation.methods import METHODS, THREE_WAY, options_for, predictor_for, recipe_of
from segmentation.model import ThreeWaySegmenter
from segmentation.scan_predictor import ScanPredictor
from segmentation.tuning import not_tuned_on, tune
from standard_space.errors import DataError, UsageError
from standard_space.scan import Scan
from tests.segmentation.toys import toy_scan

RIVALS = tuple(method for method in METHODS if method != THREE_WAY)


def model_of(method: str, rule: Aggregation | None = None, **given: Any) -> BaselineSegmenter:
    options = options_for(method, **{"width": 16 if method == "h-denseunet" else 2, **given})
    recipe = recipe_of(method)
    networks = {part: untrained_network(recipe, part, options) for part in recipe.parts}
    return BaselineSegmenter(networks, 32, options, rule or Aggregation("mean", 0.5))


def lungless(scan: Scan) -> Scan:
    return dataclasses.replace(scan, lungs=np.zeros_like(scan.lungs))


def test_on_a_cpu_a_rival_computes_in_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cpu_has", lambda feature: True)
    model = model_of("unet2d")
    assert BaselinePredictor(model, device="cpu").dtype is torch.float32
    assert BaselinePredictor(model, device="cpu", precision="bfloat16").dtype is torch.bfloat16
    assert predictor_for(ThreeWaySegmenter.untrained(32, width=2), device="cpu").dtype is torch.bfloat16


@pytest.mark.parametrize("method", ["unet2d", "vnet3d", "mueller", "mpunet"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_answer_that_is_no_number_is_refused(method: str, precision: str) -> None:
    model = model_of(method)
    with torch.no_grad():
        for network in model.networks.values():
            for value in network.parameters():
                value.fill_(float("nan"))
    predictor = BaselinePredictor(model, device="cpu", precision=precision)
    with pytest.raises(DataError, match=rf"not finite.*{method} in {precision} on cpu"):
        predictor.predict(toy_scan())


def test_the_callers_model_is_left_as_it_is() -> None:
    model = model_of("unet3d")
    network = model.networks["network"].train()
    before = copy.deepcopy(network.state_dict())
    predictor = BaselinePredictor(model, device="cpu")
    found = predictor.predict(toy_scan()).probability
    assert network.training
    with torch.no_grad():
        for value in network.parameters():
            value.zero_()
    assert np.array_equal(predictor.predict(toy_scan()).probability, found)
    assert any(not torch.equal(before[name], value) for name, value in network.state_dict().items())


class Greedy(nn.Module):
    """A network for which a GPU has room for so many images only."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.passes: list[int] = []

    def forward(self, stack: Tensor) -> Tensor:
        self.passes.append(stack.shape[0])
        if stack.shape[0] > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return stack[:, :1]

    def __deepcopy__(self, memo: object) -> Greedy:
        return self


def test_a_full_gpu_is_given_half_as_many_until_it_fits() -> None:
    results = []
    for room in (100, 3, 1):
        model = model_of("unet2d")
        model.networks["network"] = network = Greedy(room)
        predictor = BaselinePredictor(model, device="cpu")
        results.append(predictor.predict(toy_scan()).probability)
        assert predictor.largest_batch <= room
        if room < 100:
            assert predictor.batch is not None
            assert predictor.batch <= room
            tries = len(network.passes)
            predictor.predict(toy_scan())
            assert max(network.passes[tries:]) <= room  # it remembers
        assert np.array_equal(results[0], results[-1])
    model.networks["network"] = Greedy(0)
    with pytest.raises(DataError, match=r"does not suffice.*--batch 1"):
        BaselinePredictor(model, device="cpu").predict(toy_scan())


@pytest.mark.parametrize("method", METHODS)
def test_without_lungs_there_are_as_many_empty_views_as_ever(method: str) -> None:
    predictor: ScanPredictor
    if method == THREE_WAY:
        predictor = predictor_for(ThreeWaySegmenter.untrained(32, width=2), device="cpu")
    else:
        predictor = predictor_for(model_of(method), device="cpu")
    views, _ = predictor.views(lungless(toy_scan()))
    assert tuple(views.shape) == (recipe_of(method).view_count, 0, 0, 0)
    if method in ("unet2d", "mpunet", THREE_WAY):
        assert predictor.views(toy_scan())[0].shape[0] == recipe_of(method).view_count


def test_a_rule_for_another_number_of_views_is_refused() -> None:
    with pytest.raises(UsageError, match=r"does not fit the method mpunet.*3 views.*6 views"):
        model_of("mpunet", Aggregation("weighted", 0.5, (0.3, 0.3, 0.4)))
    assert model_of("mpunet", Aggregation("weighted", 0.5, (0.1,) * 6)).aggregation.view_count == 6


def scans(*given: Scan) -> Iterable[Scan]:
    return list(given)


@pytest.mark.parametrize("rule", ["mean", "weighted", "logistic"])
def test_a_scan_without_lungs_is_not_tuned_on(rule: str) -> None:
    reason = "it has no lungs"
    empty = lungless(toy_scan("P2"))
    assert not_tuned_on(empty, "infection") == reason
    for model in (model_of("mpunet"), ThreeWaySegmenter.untrained(32, width=2)):
        alone = tune(model, scans(toy_scan()), rule=rule, device="cpu")
        both = tune(model, scans(toy_scan(), empty), rule=rule, device="cpu")
        assert (both.scans, both.median_dice) == (1, alone.median_dice)
        with pytest.raises(DataError, match="no validation scan holds anything"):
            tune(model, scans(empty), rule=rule, device="cpu")
