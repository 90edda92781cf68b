"""The three-way method by its recipe: the same weights as ever, and slices at other distances."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from cli.main import main
from segmentation.methods import THREE_WAY, load_segmenter, options_for, predictor_for, recipe_of
from segmentation.model import ThreeWaySegmenter, new_network
from segmentation.segmenter import seeded_torch
from segmentation.training import TrainingOptions, train
from segmentation.training.cut import cut_scan
from segmentation.training.recipe import Turn
from segmentation.training.three_way import ThreeWay, offsets_of
from segmentation.views import OFFSETS_MM, VIEWS
from tests.segmentation.cohorts import toy_cohort
from tests.segmentation.toys import toy_items, toy_scan

QUICK = {"steps": 2, "width": 2, "batch_size": 2, "patch": 16}
NARROW = (-2.0, -1.0, 0.0, 1.0, 2.0)


def weights_of(network: torch.nn.Module) -> bytes:
    return b"".join(
        name.encode() + value.contiguous().numpy().tobytes() for name, value in network.state_dict().items()
    )


@pytest.mark.parametrize("view", VIEWS)
def test_the_recipe_makes_the_very_networks_of_the_method(view: str) -> None:
    options = options_for(THREE_WAY, width=4, seed=5)
    with seeded_torch(options.seed, view, "weights"):
        made = recipe_of(THREE_WAY).network(view, options)
    assert weights_of(made) == weights_of(new_network(view, 4, 5))
    assert weights_of(made) == weights_of(ThreeWaySegmenter.untrained(32, width=4, seed=5).networks[view])
    single = options_for(THREE_WAY, width=4, seed=5, slice_offsets_mm=(0.0,))
    with seeded_torch(single.seed, view, "weights"):
        made = recipe_of(THREE_WAY).network(view, single)
    assert weights_of(made) == weights_of(new_network(view, 4, 5, in_channels=1))


def test_the_papers_offsets_are_the_usual_ones() -> None:
    assert offsets_of(TrainingOptions()) == OFFSETS_MM
    given = train(
        toy_items(2), options=options_for(THREE_WAY, **QUICK, slice_offsets_mm=OFFSETS_MM), device="cpu"
    )
    usual = train(toy_items(2), options=options_for(THREE_WAY, **QUICK), device="cpu")
    assert given.model_id == usual.model_id


def test_an_example_shows_the_slices_that_were_asked_for() -> None:
    cut = cut_scan(toy_scan())
    stacks = {}
    for name, offsets in (("paper", None), ("narrow", NARROW), ("single", (0.0,))):
        options = options_for(THREE_WAY, **QUICK, slice_offsets_mm=offsets)
        turn = Turn(options, 32, 0, 2, vary=False)
        stacks[name] = ThreeWay().example(cut, "xz", np.random.default_rng(3), turn).stack
    assert {name: stack.shape[0] for name, stack in stacks.items()} == {"paper": 5, "narrow": 5, "single": 1}
    # The central slice does not depend on its neighbours' distances.
    assert torch.equal(stacks["paper"][2], stacks["single"][0])
    assert torch.equal(stacks["narrow"][2], stacks["single"][0])
    assert not torch.equal(stacks["paper"][0], stacks["narrow"][0])


@pytest.mark.parametrize("offsets", [(0.0,), NARROW])
def test_other_offsets_reach_the_model_and_its_prediction(tmp_path: Path, offsets: tuple[float, ...]) -> None:
    items = toy_items(3)
    options = options_for(THREE_WAY, **QUICK, slice_offsets_mm=offsets, validation_slices=4)
    model = train(items[:2], validation=items[2:], options=options, device="cpu", folder=tmp_path / "m")
    assert isinstance(model, ThreeWaySegmenter)
    assert model.offsets_mm == dict.fromkeys(VIEWS, offsets)
    assert {network.in_channels for network in model.networks.values()} == {len(offsets)}
    stored = load_segmenter(tmp_path / "m")
    assert isinstance(stored, ThreeWaySegmenter)
    assert (stored.offsets_mm, stored.model_id) == (model.offsets_mm, model.model_id)
    scan = toy_scan("P9", seed=9)
    found = predictor_for(stored, device="cpu").predict(scan).probability
    assert found[scan.lungs].min() > 0.0
    assert not found[~scan.lungs].any()


def test_a_prediction_looks_where_the_models_offsets_are() -> None:
    scan = toy_scan()
    near, far = (ThreeWaySegmenter.untrained(32, width=2, seed=1) for _ in range(2))
    near.offsets_mm = dict.fromkeys(VIEWS, NARROW)
    assert near.model_id != far.model_id
    found = [predictor_for(model, device="cpu").predict(scan).probability for model in (near, far)]
    assert not np.array_equal(*found)
    # All slices the central one: as if the volume were the same everywhere along the normal.
    near.offsets_mm = far.offsets_mm = dict.fromkeys(VIEWS, (0.0,) * 5)
    found = [predictor_for(model, device="cpu").predict(scan).probability for model in (near, far)]
    assert np.array_equal(*found)


def lungcast(*words: object) -> Result:
    torch.set_num_threads(1)
    return CliRunner().invoke(main, [str(word) for word in words])


def test_the_command_takes_offsets_and_keeps_them(tmp_path: Path) -> None:
    cohort = toy_cohort(tmp_path / "c", *(toy_scan(f"P{k}", seed=k) for k in range(2))).folder
    quick = ["--width", 2, "--batch", 2, "--patch", 16, "--device", "cpu", "--steps", 1]
    model = tmp_path / "m"
    for wrong, said in (("near,far", "numbers between commas"), ("", "numbers"), ("nan", "must be numbers")):
        refused = lungcast("train", cohort, model, "--slice-offsets-mm", wrong, *quick)
        assert (refused.exit_code, said in refused.output) == (2, True), refused.output
    assert not model.exists()
    begun = lungcast("train", cohort, model, "--slice-offsets-mm", "-1,0,1", *quick)
    assert begun.exit_code == 0, begun.output
    stored = load_segmenter(model)
    assert isinstance(stored, ThreeWaySegmenter)
    assert stored.offsets_mm == dict.fromkeys(VIEWS, (-1.0, 0.0, 1.0))
    longer = lungcast("train", cohort, model, "--resume", "--steps", 2, "--device", "cpu")
    assert longer.exit_code == 0, longer.output
    assert load_segmenter(model).training["options"]["slice_offsets_mm"] == [-1.0, 0.0, 1.0]
    same = lungcast("train", cohort, model, "--resume", "--slice-offsets-mm", "-1,0,1", "--device", "cpu")
    assert same.exit_code == 0, same.output
    other = lungcast("train", cohort, model, "--resume", "--slice-offsets-mm", "-2,0,2", "--device", "cpu")
    assert (other.exit_code, "begun with another slice offsets" in other.output) == (2, True), other.output
