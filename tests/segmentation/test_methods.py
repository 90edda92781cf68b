"""Every method by name: what its recipe promises, its options, and what is said where it cannot be had."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import nn

pytest.importorskip("monai")

from cli.main import main
from segmentation import methods
from segmentation.aggregation import LEARNED_RULES, RULES, Aggregation
from segmentation.baselines.model import BaselineSegmenter, untrained_network
from segmentation.baselines.predict import BaselinePredictor
from segmentation.methods import (
    METHODS,
    THREE_WAY,
    check_method,
    check_rule,
    load_segmenter,
    options_for,
    predictor_for,
    recipe_of,
)
from segmentation.model import ThreeWaySegmenter
from segmentation.predict import Predictor
from segmentation.segmenter import TARGETS, Segmenter
from segmentation.study.records import METHODS as SHOWN_METHODS
from segmentation.training import TrainingOptions
from segmentation.training.recipe import Rival
from segmentation.views import VIEWS
from standard_space.errors import UsageError

RIVALS = tuple(method for method in METHODS if method != THREE_WAY)
FIELDS = {field.name for field in dataclasses.fields(TrainingOptions)}


@pytest.mark.parametrize("method", METHODS)
def test_a_recipe_is_what_its_name_says(method: str) -> None:
    recipe = recipe_of(method)
    assert recipe.name == method
    assert isinstance(recipe, Rival) == (method != THREE_WAY)
    assert recipe.parts
    assert len(set(recipe.parts)) == len(recipe.parts)
    assert all(part.isidentifier() for part in recipe.parts)  # they name files
    assert set(recipe.rules) <= set(RULES)
    assert recipe.rules[0] not in LEARNED_RULES
    assert set(recipe.targets) <= set(TARGETS)
    assert recipe.targets[0] == "infection"
    assert 0.0 < recipe.pixel_cut < 1.0
    assert recipe.dimensions in ("2D", "2.5D", "3D")
    assert set(recipe.defaults) <= FIELDS - {"method", "seed", "target"}
    assert recipe.title
    assert "10." in recipe.source


def test_names_and_titles_are_told_apart_and_tables_know_them_all() -> None:
    assert len({recipe_of(method).title for method in METHODS}) == len(METHODS)
    assert METHODS[0] == THREE_WAY
    assert set(SHOWN_METHODS) == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_options_are_the_methods_own_and_the_users_win(method: str) -> None:
    recipe = recipe_of(method)
    options = options_for(method)
    assert options.method == method
    assert options.rule == recipe.rules[0]
    for name, value in recipe.defaults.items():
        assert getattr(options, name) == value
    for field in dataclasses.fields(TrainingOptions):
        if field.name not in (*recipe.defaults, "method", "rule"):
            assert getattr(options, field.name) == field.default
    given = {"width": 4, "batch_size": 3, "optimiser": "sgd", "seed": 7, "weight_decay": 0.5}
    chosen = options_for(method, **given)
    assert {name: getattr(chosen, name) for name in given} == given
    assert TrainingOptions.from_json(chosen.to_json()) == chosen


@pytest.mark.parametrize("method", RIVALS)
def test_a_method_has_its_own_options_only(method: str) -> None:
    for given in ({"own_window": True}, {"compiled": True}, {"slice_offsets_mm": (0.0,)}):
        with pytest.raises(UsageError, match="neither a scan's own window, nor slice offsets"):
            options_for(method, **given)
    with pytest.raises(UsageError, match="cannot be trained for this target"):
        options_for(method, target="lungs")
    for rule in set(RULES) - set(recipe_of(method).rules):
        with pytest.raises(UsageError, match="has no such rule"):
            options_for(method, rule=rule)
        with pytest.raises(UsageError, match=f"the method {method} has no such rule"):
            check_rule(method, rule)
    if method != "mueller":
        with pytest.raises(UsageError, match="only the method mueller"):
            options_for(method, preprocess=False)
    if method != "transfer":
        with pytest.raises(UsageError, match="only the method transfer"):
            options_for(method, encoder_weights="weights.pt")


def test_the_three_way_method_refuses_what_is_of_others() -> None:
    with pytest.raises(UsageError, match="only the method mueller"):
        options_for(THREE_WAY, preprocess=False)
    with pytest.raises(UsageError, match="only the method transfer"):
        options_for(THREE_WAY, encoder_weights="weights.pt")
    assert options_for(THREE_WAY, slice_offsets_mm=(-1.0, 0.0, 1.0)).slice_offsets_mm == (-1.0, 0.0, 1.0)
    assert options_for(THREE_WAY, own_window=True, target="lungs").input_window is None
    for method in ("mueller", "transfer"):
        assert options_for(method).preprocess
    assert not options_for("mueller", preprocess=False).preprocess
    assert options_for("transfer", encoder_weights="w.pt").encoder_weights == "w.pt"
    assert check_rule("mpunet", "weighted") == "weighted"


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    for refused in (check_method, recipe_of, options_for):
        with pytest.raises(UsageError, match=r"no such method.*heart.*three-way, unet2d"):
            refused("heart")
    with pytest.raises(UsageError, match="no such method"):
        TrainingOptions(method="heart")


@pytest.fixture
def without_monai(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where MONAI is not installed."""
    for name in list(sys.modules):
        if name.partition(".")[0] == "monai" or name.startswith("segmentation.baselines."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "monai", None)


def test_without_monai_the_remedy_is_named(without_monai: None) -> None:
    for method in ("unet2d", "unet3d", "mpunet", "mueller"):
        with pytest.raises(UsageError, match=rf"{method} needs MONAI.*pip install 'lungcast\[baselines\]'"):
            recipe_of(method)
    assert recipe_of(THREE_WAY).parts == VIEWS


def test_without_monai_a_command_says_so(without_monai: None, tmp_path: Path) -> None:
    words = ["train", str(tmp_path / "c"), str(tmp_path / "m"), "--method", "unet2d"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2, result.output
    assert "needs MONAI" in result.output
    assert "lungcast[baselines]" in result.output
    assert not (tmp_path / "m").exists()


def test_without_monai_a_rivals_folder_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    rival("unet2d").save(tmp_path / "m")
    request.getfixturevalue("without_monai")
    with pytest.raises(UsageError, match="unet2d needs MONAI"):
        load_segmenter(tmp_path / "m")


def test_another_missing_module_is_no_missing_monai(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(methods._PLACES, "unet2d", "segmentation.baselines.nothing:UNet2D")
    with pytest.raises(ModuleNotFoundError, match="nothing"):
        recipe_of("unet2d")


def test_neither_training_nor_the_commands_import_monai() -> None:
    code = (
        "import sys, cli.main, segmentation.training, segmentation.study.run; print('monai' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"


def rival(method: str) -> BaselineSegmenter:
    options = options_for(method, width=2)
    recipe = recipe_of(method)
    networks = {part: untrained_network(recipe, part, options) for part in recipe.parts}
    return BaselineSegmenter(networks, 32, options, Aggregation("mean", 0.5))


def test_a_folder_is_read_and_made_ready_by_its_method(tmp_path: Path) -> None:
    ThreeWaySegmenter.untrained(32, width=2).save(tmp_path / "three-way")
    rival("unet2d").save(tmp_path / "unet2d")
    for method, kind, ready in (
        (THREE_WAY, ThreeWaySegmenter, Predictor),
        ("unet2d", BaselineSegmenter, BaselinePredictor),
    ):
        model = load_segmenter(tmp_path / method)
        assert isinstance(model, kind)
        assert model.method == method
        predictor = predictor_for(model, device="cpu", batch=3)
        assert isinstance(predictor, ready)
        assert (predictor.batch, predictor.model) == (3, model)


def test_what_a_predictor_cannot_do_is_refused() -> None:
    with pytest.raises(UsageError, match="unet2d is not compiled"):
        predictor_for(rival("unet2d"), device="cpu", compiled=True)
    with pytest.raises(UsageError, match="at least one slice"):
        predictor_for(rival("unet2d"), device="cpu", batch=0)

    class Foreign(Segmenter):
        method = "foreign"
        width = 1
        model_id = "0"
        parts: Mapping[str, nn.Module] = {}

        def described(self) -> dict[str, Any]:
            return {}

    with pytest.raises(UsageError, match=r"no predictor.*foreign"):
        predictor_for(Foreign(), device=torch.device("cpu"))
