"""A rival's folder: it keeps everything, the same model is the same bytes, and a damaged one is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("monai")

from segmentation.aggregation import Aggregation
from segmentation.baselines.model import RIVALS, BaselineSegmenter, trained_segmenter, untrained_network
from segmentation.methods import THREE_WAY, load_segmenter, options_for, recipe_of
from segmentation.model import ThreeWaySegmenter
from segmentation.segmenter import patient_sha256
from standard_space.errors import DataError, UsageError

TRAINING = {"seed": 5, "patients": [{"patient_sha256": patient_sha256("P1"), "image_sha256": ["abc"]}]}


def small_model(
    method: str = "unet2d", rule: Aggregation | None = None, grid_size: int = 32, **given: Any
) -> BaselineSegmenter:
    options = options_for(method, **{"width": 2, "seed": 5, **given})
    recipe = recipe_of(method)
    networks = {part: untrained_network(recipe, part, options) for part in recipe.parts}
    chosen = rule or Aggregation("mean", 0.4)
    return trained_segmenter(networks, grid_size, options, chosen, json.loads(json.dumps(TRAINING)))


def weights_of(model: BaselineSegmenter) -> Mapping[str, torch.Tensor]:
    return {
        f"{part}.{name}": value
        for part, network in model.parts.items()
        for name, value in network.state_dict().items()
    }


def test_save_and_load_keep_everything(tmp_path: Path) -> None:
    model = small_model("mueller", patch=16, preprocess=False)
    model.scores = {"validation": {"median_dice": 0.5}}
    model.save(tmp_path / "m")
    loaded = load_segmenter(tmp_path / "m")
    assert isinstance(loaded, BaselineSegmenter)
    for name in ("method", "grid_size", "width", "target", "aggregation", "input_window", "training"):
        assert getattr(loaded, name) == getattr(model, name), name
    assert (loaded.scores, loaded.model_id, loaded.parameters) == (
        model.scores,
        model.model_id,
        model.parameters,
    )
    kept = ("method", "width", "patch", "preprocess", "target", "seed")
    assert [getattr(loaded.options, name) for name in kept] == ["mueller", 2, 16, False, "infection", 5]
    before, after = weights_of(model), weights_of(loaded)
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(network.training for network in loaded.parts.values())
    assert {path.name for path in (tmp_path / "m").iterdir()} == {
        "network.pt",
        "model.json",
        "lungcast.json",
    }


def test_a_learned_rule_of_many_views_is_kept(tmp_path: Path) -> None:
    rule = Aggregation("weighted", 0.3, (0.1, 0.2, 0.3, 0.2, 0.1, 0.1))
    small_model("mpunet", rule).save(tmp_path / "m")
    assert load_segmenter(tmp_path / "m").aggregation == rule


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        small_model().save(tmp_path / name)
    load_segmenter(tmp_path / "one").save(tmp_path / "again")
    for path in (tmp_path / "one").iterdir():
        for other in ("two", "again"):
            assert path.read_bytes() == (tmp_path / other / path.name).read_bytes(), path.name


def test_the_identity_is_of_all_that_a_prediction_depends_on() -> None:
    model = small_model()
    changed = [
        small_model(seed=6),
        small_model(width=4),
        small_model(patch=32),
        small_model(grid_size=64),
        small_model("mueller"),
        small_model("mueller", preprocess=False),
        replace(model, input_window=None),
    ]
    # The seed counts by itself: the planes of mpunet are drawn from it.
    changed.append(replace(model, options=replace(model.options, seed=9)))
    other = small_model()
    with torch.no_grad():
        next(iter(other.parts.values())).get_parameter("final_conv.bias").add_(1e-3)
    changed.append(other)
    identities = [model.model_id, *(one.model_id for one in changed)]
    assert len(set(identities)) == len(identities)
    same = replace(model, aggregation=Aggregation("mean", 0.9), training={}, scores={"a": 1})
    assert small_model().model_id == same.model_id == model.model_id
    assert replace(model, options=replace(model.options, steps=9, batch_size=3)).model_id == model.model_id


def test_making_a_network_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    small_model()
    assert torch.equal(torch.rand(3), expected)


def test_what_the_method_has_not_is_refused() -> None:
    model = small_model()
    with pytest.raises(UsageError, match="unet2d has no such networks"):
        replace(model, networks={"other": model.networks["network"]})
    with pytest.raises(UsageError, match=r"no such rule.*sum>t"):
        replace(model, aggregation=Aggregation())
    with pytest.raises(UsageError, match="no such target"):
        replace(model, options=replace(model.options, target="lungs"))
    with pytest.raises(UsageError, match="no rival"):
        replace(model, options=options_for(THREE_WAY))


def edit_json(**changes: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = json.loads((folder / "model.json").read_text())
        content.update(changes)
        (folder / "model.json").write_text(json.dumps(content))

    return damage


def edit_settings(**changes: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = json.loads((folder / "model.json").read_text())
        content["settings"].update(changes)
        (folder / "model.json").write_text(json.dumps(content))

    return damage


def remove(key: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = json.loads((folder / "model.json").read_text())
        del content[key]
        (folder / "model.json").write_text(json.dumps(content))

    return damage


def other_weights(folder: Path) -> None:
    small_model(seed=6).save(folder.parent / "other")
    (folder / "network.pt").write_bytes((folder.parent / "other" / "network.pt").read_bytes())


def spoil(folder: Path) -> None:
    weights = torch.load(folder / "network.pt", weights_only=True)
    next(iter(weights.values()))[0] = float("nan")
    torch.save(weights, folder / "network.pt")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.json").unlink(), "not a lungcast model"),
        (lambda folder: (folder / "model.json").write_text("{"), "not JSON"),
        (edit_json(schema_version=99), "schema version"),
        (edit_json(method="heart"), "damaged"),
        (edit_json(method=None), "damaged"),
        (edit_json(method="unet3d"), "another network|damaged"),
        (edit_json(method=THREE_WAY), "damaged"),
        (edit_json(settings=None), "damaged"),
        (edit_json(settings={"method": "unet2d", "heart": 1}), "damaged"),
        (edit_json(grid_size=3), "damaged"),
        (edit_json(aggregation={"rule": "sum>t", "threshold": 2.0}), "no such rule"),
        (edit_json(aggregation={"rule": "mean", "threshold": 2.0}), "out of range"),
        (edit_json(input_window={"level_hu": "low"}), "damaged"),
        (edit_json(networks={}), "damaged"),
        (edit_json(training=None), "damaged"),
        (edit_settings(width=4), "another network"),
        (edit_settings(width="wide"), "damaged"),
        (edit_settings(width=100_000), "another network"),
        (edit_settings(width=10**15), "damaged"),
        (edit_settings(width=0), "damaged"),
        (edit_settings(patch=20), "damaged"),
        (edit_settings(target="heart"), "damaged"),
        (edit_settings(method="unet3d"), "damaged"),
        (edit_settings(method="vnet3d"), "damaged"),
        (remove("settings"), "damaged"),
        (remove("aggregation"), "damaged"),
        (lambda folder: (folder / "network.pt").unlink(), "weights are missing"),
        (lambda folder: (folder / "network.pt").write_bytes(b"torn"), "weights are damaged"),
        (lambda folder: torch.save(Path("x"), folder / "network.pt"), "weights are damaged"),
        (lambda folder: torch.save({"a": torch.zeros(2)}, folder / "network.pt"), "another network"),
        (spoil, "NaN"),
        (other_weights, "not the ones the model was saved with"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_sentence(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = tmp_path / "m"
    small_model().save(folder)
    damage(folder)
    with pytest.raises(DataError, match=message) as caught:
        load_segmenter(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_of_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    small_model().save(tmp_path / "rival")
    with pytest.raises(DataError, match=r"another method.*unet2d"):
        ThreeWaySegmenter.load(tmp_path / "rival")
    ThreeWaySegmenter.untrained(32, width=2).save(tmp_path / "three")
    with pytest.raises(DataError, match="damaged"):
        BaselineSegmenter.load(tmp_path / "three")
    with pytest.raises(DataError, match="no such model folder"):
        load_segmenter(tmp_path / "none")


@pytest.mark.parametrize("method", RIVALS)
def test_every_rivals_folder_can_be_read(tmp_path: Path, method: str) -> None:
    model = small_model(method, width=16 if method == "h-denseunet" else 2)
    model.save(tmp_path / "m")
    assert load_segmenter(tmp_path / "m").model_id == model.model_id
