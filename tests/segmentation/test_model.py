from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from segmentation.aggregation import Aggregation
from segmentation.model import ThreeWaySegmenter
from segmentation.segmenter import patient_sha256
from segmentation.unet import UNet
from segmentation.views import VIEWS
from standard_space.errors import DataError, UsageError

from .toys import toy_scan


def small_model() -> ThreeWaySegmenter:
    model = ThreeWaySegmenter.untrained(32, width=2, seed=5)
    model.aggregation = model.aggregation.at(1.85)
    model.training = {
        "seed": 5,
        "patients": [{"patient_sha256": patient_sha256("P1"), "image_sha256": ["abc"]}],
    }
    return model


def test_save_and_load_keep_everything(tmp_path: Path) -> None:
    model = small_model()
    model.save(tmp_path / "model")
    loaded = ThreeWaySegmenter.load(tmp_path / "model")
    assert (loaded.grid_size, loaded.target, loaded.aggregation.threshold) == (32, "infection", 1.85)
    assert loaded.offsets_mm == dict.fromkeys(VIEWS, (-5, -2, 0, 2, 5))
    assert (loaded.input_window, loaded.input_window is None) == (model.input_window, False)
    model.input_window = None
    model.save(tmp_path / "own")
    assert ThreeWaySegmenter.load(tmp_path / "own").input_window is None
    assert ThreeWaySegmenter.load(tmp_path / "own").model_id != loaded.model_id
    model.input_window = loaded.input_window
    assert (loaded.width, loaded.training, loaded.model_id) == (2, model.training, model.model_id)
    for view in VIEWS:
        for name, value in model.networks[view].state_dict().items():
            assert torch.equal(loaded.networks[view].state_dict()[name], value)
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {"xy.pt", "yz.pt", "xz.pt", "model.json", "lungcast.json"}


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        small_model().save(tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_each_view_has_random_weights_of_its_own() -> None:
    model = small_model()
    weights = [model.networks[view].head.weight for view in VIEWS]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])
    again = small_model()
    assert model.model_id == again.model_id
    assert model.model_id != ThreeWaySegmenter.untrained(32, width=2, seed=6).model_id


def test_making_a_model_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    small_model()
    assert torch.equal(torch.rand(3), expected)


def edit_json(**changes: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = json.loads((folder / "model.json").read_text())
        content.update(changes)
        (folder / "model.json").write_text(json.dumps(content))

    return damage


def remove_key(folder: Path) -> None:
    content = json.loads((folder / "model.json").read_text())
    del content["offsets_mm"]
    (folder / "model.json").write_text(json.dumps(content))


def swap_weights(folder: Path) -> None:
    (folder / "xy.pt").rename(folder / "kept.pt")
    (folder / "yz.pt").rename(folder / "xy.pt")
    (folder / "kept.pt").rename(folder / "yz.pt")


def truncate(folder: Path) -> None:
    (folder / "xz.pt").write_bytes((folder / "xz.pt").read_bytes()[:500])


def tear(folder: Path) -> None:
    (folder / "xz.pt").write_bytes(b"torn")


def spoil(folder: Path) -> None:
    weights = torch.load(folder / "xz.pt", weights_only=True)
    weights["head.bias"][0] = float("nan")
    torch.save(weights, folder / "xz.pt")


def rename_key(folder: Path) -> None:
    weights = torch.load(folder / "xz.pt", weights_only=True)
    weights["tail.bias"] = weights.pop("head.bias")
    torch.save(weights, folder / "xz.pt")


def pickle_code(folder: Path) -> None:
    torch.save(Path("x"), folder / "xz.pt")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.json").unlink(), "not a lungcast model"),
        (lambda folder: (folder / "model.json").write_text("{"), "not JSON"),
        (lambda folder: (folder / "model.json").write_text('{"a": 1}'), "not a lungcast model"),
        (edit_json(schema_version=99), "schema version"),
        (edit_json(target="heart"), "unknown target"),
        (edit_json(width=4), "another network"),
        (edit_json(width="wide"), "damaged"),
        (edit_json(aggregation={"rule": "sum>t", "threshold": 7.0}), "out of range"),
        (edit_json(aggregation={"rule": "vote", "threshold": 1.0}), "unknown aggregation rule"),
        (edit_json(aggregation=None), "damaged"),
        (edit_json(scores=None), "damaged"),
        (edit_json(offsets_mm={"xy": [0.0]}), "damaged"),
        (edit_json(offsets_mm={view: [-5.0, -2.0, float("nan"), 2.0, 5.0] for view in VIEWS}), "damaged"),
        (edit_json(width=100_000), "another network"),
        (edit_json(grid_size=3), "damaged"),
        (edit_json(training=None), "damaged"),
        (remove_key, "damaged"),
        (lambda folder: (folder / "yz.pt").unlink(), "weights are missing"),
        (truncate, "weights are damaged"),
        (tear, "weights are damaged"),
        (spoil, "NaN"),
        (rename_key, "another network"),
        (pickle_code, "weights are damaged"),
        (swap_weights, "not the ones the model was saved with"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_sentence(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = tmp_path / "model"
    small_model().save(folder)
    damage(folder)
    with pytest.raises(DataError, match=message) as caught:
        ThreeWaySegmenter.load(folder)
    assert "\n" not in str(caught.value)


def test_no_folder_and_nan_weights(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such model folder"):
        ThreeWaySegmenter.load(tmp_path / "nothing")
    model = small_model()
    with torch.no_grad():
        model.networks["yz"].head.bias[0] = float("inf")
    with pytest.raises(DataError, match="NaN or infinity"):
        model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_training_scans_are_known_by_patient_and_by_image() -> None:
    model = small_model()
    assert model.trained_on(patient_sha256("P1"), None) == "patient"
    assert model.trained_on(patient_sha256("P2"), "abc") == "image"
    assert model.trained_on(patient_sha256("P2"), "def") is None
    model.training["validation_patients"] = [
        {"patient_sha256": patient_sha256("P3"), "image_sha256": ["ghi"]},
        {"patient_sha256": patient_sha256("P1"), "image_sha256": []},
    ]
    assert model.trained_on(patient_sha256("P3"), None) == "validation patient"
    assert model.trained_on(patient_sha256("P4"), "ghi") == "validation image"
    assert model.trained_on(patient_sha256("P1"), None) == "patient"
    assert model.knows_its_patients
    assert not ThreeWaySegmenter.untrained(32, width=2).knows_its_patients


def test_grids_and_thresholds_must_fit() -> None:
    model = small_model()
    with pytest.raises(DataError, match=r"scan grid 16.*model grid 32"):
        model.check_scan_grid(toy_scan(size=16))
    with pytest.raises(UsageError, match="out of range"):
        model.aggregation.at(float("nan"))
    with pytest.raises(UsageError, match="another number of slices"):
        ThreeWaySegmenter(model.networks, 32, {**model.offsets_mm, "yz": (-1.0, 0.0, 1.0)})
    with pytest.raises(UsageError, match="differ in width"):
        ThreeWaySegmenter({**model.networks, "xy": UNet(5, 6)}, 32)
    with pytest.raises(UsageError, match="another number of views"):
        replace(model, aggregation=Aggregation("weighted", 0.5, (0.5, 0.5)))
    with pytest.raises(UsageError, match="unknown target"):
        ThreeWaySegmenter(model.networks, 32, target="heart")
    with pytest.raises(UsageError, match="one network per view"):
        ThreeWaySegmenter({"xy": model.networks["xy"]}, 32)
