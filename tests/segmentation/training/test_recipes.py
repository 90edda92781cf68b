"""What every method promises a run: its own defaults, refusals before anything is written, examples to score."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner

pytest.importorskip("monai")

from cli.crossvalidate import crossvalidate
from cli.train import train as train_command
from segmentation.baselines.transfer import TransferUNet, released_at
from segmentation.baselines.transfer_network import TransferNetwork
from segmentation.methods import METHODS, THREE_WAY, options_for, recipe_of
from segmentation.training import TrainingOptions, train
from segmentation.training.checkpoint import ViewState
from segmentation.training.cut import BYTES_PER_VOXEL, cut_crop, cut_scan
from segmentation.training.loop import ViewTrainer
from segmentation.training.mixture import Mixture
from segmentation.training.options import NEWER
from segmentation.training.recipe import Turn
from segmentation.training.request import options_of, resumed
from segmentation.training.validation import FEWEST, MOST, ValidationSlices, examples_for
from simulator.lung_crop import read_lung_crop
from simulator.synthetic_crop import SyntheticCrop, surroundings_of
from standard_space.errors import DataError, UsageError
from standard_space.scan import Scan
from tests.segmentation.cohorts import toy_cohort
from tests.segmentation.toys import toy_items, toy_scan

RIVALS = tuple(method for method in METHODS if method != THREE_WAY)
FIELDS = {field.name for field in fields(TrainingOptions)}
SMALL = {"unet2d": 4, "h-denseunet": 6, "mpunet": 4, "transfer": 4, "covid-segnet": 4}


def small(method: str, **given: Any) -> TrainingOptions:
    return options_for(method, **{"width": SMALL.get(method, 2), "steps": 1, **given})


def defaults_of(command: click.Command) -> dict[str, Any]:
    given = command.make_context("c", ["a", "b"]).params
    return {name: value for name, value in given.items() if name in FIELDS - {"method"}}


@pytest.mark.parametrize("method", METHODS)
def test_a_commands_own_defaults_are_the_methods(method: str) -> None:
    trained = defaults_of(train_command)
    assert {"positive_share", "batch_size", "width", "optimiser", "weight_decay", "rule"} <= trained.keys()
    assert options_of({**trained, "method": method}) == options_for(method)
    others = {name: value for name, value in defaults_of(crossvalidate).items() if value is not None}
    assert options_for(method, **others) == options_for(method)


def test_a_run_of_before_there_were_methods_is_read() -> None:
    now = options_for(THREE_WAY, width=4).to_json()
    before = {name: value for name, value in now.items() if name not in NEWER}
    assert len(before) == len(now) - 4
    assert TrainingOptions.from_json(before) == options_for(THREE_WAY, width=4)
    for damaged in ({**before, "heart": 1}, {k: v for k, v in before.items() if k != "width"}):
        with pytest.raises(UsageError, match="not stored training options"):
            TrainingOptions.from_json(damaged)


def test_a_run_of_before_there_were_methods_is_resumed(tmp_path: Path) -> None:
    options = TrainingOptions(steps=1, width=2, batch_size=2, patch=16)
    whole = train(toy_items(2), options=options, device="cpu", folder=tmp_path / "m")
    path = tmp_path / "m" / "training" / "run.json"
    stored = json.loads(path.read_text())
    for name in NEWER:
        del stored["options"][name]
    del stored["encoder_sha256"]
    path.write_text(json.dumps(stored))
    for given in (None, options):
        again = train(toy_items(2), options=given, device="cpu", folder=tmp_path / "m", resume=True)
        assert again.model_id == whole.model_id
    known = {"arguments": {"width": 2}, "steps": 1}
    assert resumed(known, {"method": THREE_WAY}, None)["width"] == 2
    with pytest.raises(UsageError, match="another method"):
        resumed(known, {"method": "unet2d"}, None)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_smaller_than_the_processes_is_refused(method: str) -> None:
    recipe = recipe_of(method)
    recipe.check(options_for(method, batch_size=4), 128, 4)
    with pytest.raises(UsageError, match=r"every process needs an example.*batch 3, 4 processes"):
        recipe.check(options_for(method, batch_size=3), 128, 4)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_drawn_has_the_shape_that_is_said(method: str) -> None:
    recipe, options = recipe_of(method), small(method)
    cut = cut_scan(toy_scan(), sides=recipe.needs_lungs)
    turn = Turn(options, 32, 1, 1, vary=False)
    example = recipe.example(cut, recipe.parts[0], np.random.default_rng(0), turn)
    assert tuple(example.truth.shape[1:]) == recipe.example_shape(options, 32)
    assert len(recipe.stride) == len(recipe.example_shape(options, 32))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("patch", [None, 16])
def test_what_passes_the_check_can_take_a_step(method: str, patch: int | None) -> None:
    recipe = recipe_of(method)
    options = small(method, batch_size=1, patch=patch)
    trainer = ViewTrainer(ViewState(recipe.parts[0]), options, 10, torch.device("cpu"))
    mixture = Mixture(toy_items(1), (), None, options, pytest.fail, steps=10)
    try:
        recipe.check(options, 32)
    except UsageError:
        with pytest.raises((ValueError, UsageError)):
            trainer.step(mixture.batch(recipe.parts[0], 0))
        recipe.check(small(method, batch_size=2, patch=64), 32)
    else:
        loss, _ = trainer.step(mixture.batch(recipe.parts[0], 0))
        assert math.isfinite(loss)


def not_weights(folder: Path) -> str:
    path = folder / "weights.pt"
    torch.save({"a": torch.zeros(2)}, path)
    return str(path)


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        (THREE_WAY, {"batch_size": 1, "patch": 16}, "batch normalisation"),
        ("unet2d", {"batch_size": 1, "patch": 16}, "batch normalisation"),
        ("unet3d", {"batch_size": 1, "patch": 16}, "batch normalisation"),
        ("vnet3d", {"batch_size": 1, "patch": 16}, "batch normalisation"),
        ("mueller", {"batch_size": 1, "patch": 16}, "batch normalisation"),
        ("mpunet", {"batch_size": 1, "patch": 16}, "batch normalisation"),
        ("h-denseunet", {"patch": 48}, "multiple of 32"),
        ("h-denseunet", {"patch": 32}, "at least 64"),
        ("transfer", {"encoder_weights": lambda folder: str(folder / "none.pt")}, "no such file"),
        ("transfer", {"encoder_weights": not_weights}, "not those of an r3d_18"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(
    tmp_path: Path, method: str, given: dict[str, Any], message: str
) -> None:
    made = {name: value(tmp_path) if callable(value) else value for name, value in given.items()}
    with pytest.raises((UsageError, DataError), match=message):
        train(toy_items(1), options=small(method, **made), device="cpu", folder=tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_rival_says_that_it_has_no_views(tmp_path: Path) -> None:
    from segmentation.training.run import train_views

    with pytest.raises(UsageError, match=r"unknown view.*xy.*network.*leave --views out"):
        train_views(toy_items(1), views=["xy"], options=small("unet2d"), device="cpu", folder=tmp_path / "m")


@pytest.mark.parametrize("method", ["vnet3d", "mueller", "transfer", "covid-segnet"])
def test_a_weight_that_a_method_ignores_is_refused(method: str) -> None:
    with pytest.raises(UsageError, match="has no positive weight"):
        options_for(method, positive_weight=8.0)
    assert options_for(method, positive_weight=None) == options_for(method)


def test_an_unknown_option_is_refused_in_one_sentence() -> None:
    with pytest.raises(UsageError, match=r"no such training option.*heart"):
        options_for("unet2d", heart=1)


# Encoder weights: read once, known by their content.


def encoder_file(path: Path, seed: int = 0) -> str:
    torch.manual_seed(seed)
    torch.save(TransferNetwork(4).encoder.state_dict(), path)
    return str(path)


class Stop(Exception):
    pass


def test_encoder_weights_are_known_by_their_content(tmp_path: Path) -> None:
    folder, first = tmp_path / "m", encoder_file(tmp_path / "first.pt")
    options = small("transfer", steps=8, encoder_weights=first, checkpoint_minutes=0)
    whole = train(toy_items(1), options=options, device="cpu", folder=tmp_path / "whole")
    assert whole.training["options"]["encoder_weights"] is None

    def stop(item: str, done: int, total: int) -> None:
        raise Stop

    def again(given: TrainingOptions | None, **more: Any) -> Any:
        return train(toy_items(1), options=given, device="cpu", folder=folder, resume=True, **more)

    # Killed before its first checkpoint: the weights are still needed.
    with pytest.raises(Stop):
        train(
            toy_items(1),
            options=replace(options, checkpoint_minutes=5.0),
            device="cpu",
            folder=folder,
            progress=stop,
        )
    assert not (folder / "training" / "network" / "checkpoint.pt").exists()
    assert first not in (folder / "training" / "run.json").read_text()
    for other in (None, encoder_file(tmp_path / "other.pt", 1)):
        with pytest.raises(UsageError, match="begun with other encoder weights"):
            again(replace(options, encoder_weights=other))
    with pytest.raises(UsageError, match="begun with other encoder weights"):
        again(None)
    Path(first).rename(tmp_path / "moved.pt")
    moved = replace(options, encoder_weights=str(tmp_path / "moved.pt"))

    def later(item: str, done: int, total: int) -> None:
        if done == 2:
            raise Stop

    with pytest.raises(Stop):
        again(moved, progress=later)
    # Begun: nobody needs the file any more.
    (tmp_path / "moved.pt").unlink()
    assert again(moved).model_id == whole.model_id
    assert again(None).model_id == whole.model_id


def test_a_file_named_again_is_compared_by_its_content(tmp_path: Path) -> None:
    from standard_space.files import sha256_of

    first, other = encoder_file(tmp_path / "a.pt"), encoder_file(tmp_path / "b.pt", 1)
    stored = {
        "arguments": {"method": "transfer", "encoder_weights": first},
        "steps": 4,
        "encoder_sha256": sha256_of(first),
    }
    same = str(tmp_path / "c.pt")
    Path(same).write_bytes(Path(first).read_bytes())
    assert resumed(stored, {"encoder_weights": same}, None)["encoder_weights"] == same
    with pytest.raises(UsageError, match="another encoder weights"):
        resumed(stored, {"encoder_weights": other}, None)
    with pytest.raises(DataError, match="cannot be read"):
        resumed(stored, {"encoder_weights": str(tmp_path / "none.pt")}, None)


def test_an_extension_does_not_freeze_the_encoder_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen: list[bool] = []

    def note(self: TransferUNet, network: torch.nn.Module, step: int, steps: int) -> None:
        original(self, network, step, steps)
        assert isinstance(network, TransferNetwork)
        frozen.append(not next(network.encoder.parameters()).requires_grad)

    original = TransferUNet.prepare
    monkeypatch.setattr(TransferUNet, "prepare", note)
    options = small("transfer", steps=4, encoder_weights=encoder_file(tmp_path / "e.pt"), patch=16)
    train(toy_items(1), options=options, device="cpu", folder=tmp_path / "m")
    assert frozen == [step < released_at(4) for step in range(4)]
    frozen.clear()
    longer = replace(options, steps=40)
    with pytest.raises(Stop):
        train(
            toy_items(1), options=longer, device="cpu", folder=tmp_path / "m", resume=True, progress=after_2
        )
    assert released_at(40) > 6  # a run begun with so many steps would still be frozen
    assert frozen == [False, False]


def after_2(item: str, done: int, total: int) -> None:
    if done == 6:
        raise Stop


def test_no_preprocess_is_compared_on_resume(tmp_path: Path) -> None:
    cohort = toy_cohort(tmp_path / "c", *(toy_scan(f"P{k}", seed=k) for k in range(2))).folder
    words = ["train", str(cohort), str(tmp_path / "m"), "--device", "cpu"]
    quick = ["--method", "mueller", "--width", "2", "--patch", "16", "--steps", "1"]
    from cli.main import main

    torch.set_num_threads(1)
    begun = CliRunner().invoke(main, [*words, *quick])
    assert begun.exit_code == 0, begun.output
    other = CliRunner().invoke(main, [*words, "--resume", "--no-preprocess"])
    assert (other.exit_code, "begun with another preprocess" in other.output) == (2, True), other.output


# Validation examples.


def test_examples_are_as_many_as_hold_enough_voxels() -> None:
    three_way, unet3d = options_for(THREE_WAY), options_for("unet3d")
    assert examples_for(three_way, 4, (48, 48)) == 64
    assert examples_for(replace(three_way, validation_slices=5), 4, (48, 48)) == 5
    assert examples_for(unet3d, 4, (32, 32, 32)) == 32
    assert examples_for(unet3d, 4, (128, 128, 128)) == FEWEST
    assert examples_for(unet3d, 4, (16, 16, 16)) == MOST
    assert examples_for(unet3d, 100, (128, 128, 128)) == 100
    assert examples_for(replace(unet3d, validation_slices=3), 9, (128, 128, 128)) == 9
    for method in RIVALS:
        shape = recipe_of(method).example_shape(options_for(method), 128)
        if len(shape) < 3:
            continue
        assert examples_for(options_for(method), 1, shape) * math.prod(shape) >= 2**18


def test_every_validation_scan_gives_an_example() -> None:
    options = small("unet3d", patch=16, validation_slices=2)
    slices = ValidationSlices(toy_items(5), "network", options, 32, pytest.fail)
    assert len(slices._examples) == 5


def test_validation_shows_the_target_whatever_training_draws() -> None:
    tiny = toy_scan(size=64)
    assert tiny.infection is not None
    z, y, x = np.argwhere(tiny.infection)[0]
    spot = np.zeros_like(tiny.infection)
    spot[z, y, x] = True
    item = replace(toy_items(1)[0], load=lambda: replace(tiny, infection=spot))
    for method in ("unet3d", "mueller"):
        options = small(method, patch=16, positive_share=0.0, validation_slices=16)
        slices = ValidationSlices([item], "network", options, 64, pytest.fail)
        recipe = recipe_of(method)
        shown = [bool((recipe.positives(e.truth) * e.counted).any()) for e in slices._examples]
        assert 4 <= sum(shown) < 16


def test_muellers_validation_counts_the_lungs_and_their_rim_alone() -> None:
    recipe, options = recipe_of("mueller"), small("mueller", patch=32)
    cut = cut_scan(toy_scan(size=64), sides=True)
    counted = {}
    for validation in (False, True):
        turn = Turn(options, 64, 1, 1, vary=False, validation=validation)
        counted[validation] = [
            recipe.example(cut, "network", np.random.default_rng(k), turn).counted for k in range(6)
        ]
    inside = float(cut.counted.float().mean())
    assert np.mean([float(c.mean()) for c in counted[False]]) > 0.9
    assert 0.5 * inside < np.mean([float(c.mean()) for c in counted[True]]) < 0.8


# Sides and memory.


def crop_of(scan: Scan) -> SyntheticCrop:
    assert scan.infection is not None
    made = ("P1", "S1", 1.0, scan.signal, scan.infection, scan.lungs, scan.grid.spacing_mm, (0, 0, 0))
    return SyntheticCrop(*made, scan.air_signal, {}, scan.left_lung)


def test_one_lung_is_one_lung() -> None:
    scan = toy_scan()
    assert scan.infection is not None
    half = np.arange(32) < 16
    for kept, side in ((half, 1), (~half, 2)):
        one = replace(
            scan, lungs=scan.lungs & kept, infection=scan.infection & kept & scan.lungs, left_lung=None
        )
        for cut in (cut_scan(one, sides=True), cut_crop(crop_of(one), one.window, sides=True)):
            assert cut.lungs is not None
            assert set(np.unique(cut.lungs.numpy()).tolist()) == {0, side}


def test_the_sources_left_lung_travels_with_a_volume_made_on_the_fly(tmp_path: Path) -> None:
    scan = toy_scan()
    left = scan.lungs & (np.arange(32) >= 12)
    for kept, name in ((left, "told"), (None, "untold")):
        cohort = toy_cohort(tmp_path / name, replace(scan, left_lung=kept))
        entry = cohort.entries[0]
        crop = read_lung_crop(cohort, entry)
        wide = surroundings_of(cohort, entry, crop, 40.0)
        if kept is None:
            assert wide.left_lung is None
            continue
        assert wide.left_lung is not None
        assert wide.left_lung.shape == wide.signal.shape
        assert int(wide.left_lung.sum()) == int(left.sum())
    cut = cut_crop(crop_of(replace(scan, left_lung=left)), scan.window, sides=True)
    assert cut.lungs is not None
    assert int((cut.lungs == 2).sum()) == int(left.sum())


def test_sides_are_counted_where_memory_is_planned() -> None:
    cut, sided = cut_scan(toy_scan()), cut_scan(toy_scan(), sides=True)
    for one, each in ((cut, BYTES_PER_VOXEL), (sided, BYTES_PER_VOXEL + 1)):
        volumes = [one.signal, one.truth, one.counted, *([] if one.lungs is None else [one.lungs])]
        assert one.nbytes == sum(volume.nbytes for volume in volumes) == each * one.signal.numel()
    items = [replace(item, grid_size=128) for item in toy_items(12)]
    held = {}
    for method in ("unet3d", "mueller"):
        mixture = Mixture(items, (), None, options_for(method, memory_mb=50), pytest.fail)
        held[method] = mixture._pools[0].held
    assert held["unet3d"] == int(50 / (4 * 128**3 * 0.6 / 2**20))
    assert held["mueller"] == int(50 / (5 * 128**3 * 0.6 / 2**20)) < held["unet3d"]


def test_a_patch_is_kept_with_a_model_as_it_was(tmp_path: Path) -> None:
    for method, said in ((THREE_WAY, 16), ("unet3d", 32), ("h-denseunet", [4, 64, 64])):
        given = {"patch": 16} if method == THREE_WAY else {}
        model = train(toy_items(1), options=small(method, **given), device="cpu")
        assert model.training["patch"] == said
