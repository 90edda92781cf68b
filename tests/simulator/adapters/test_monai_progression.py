"""The MONAI transform inside MONAI's own Compose, Dataset and DataLoader."""

from __future__ import annotations

import importlib
import json
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from simulator.play import TextureRange
from standard_space.errors import DataError, UsageError
from tests.simulator.adapters.subjects import LIVELY, SPACING_MM, subject_arrays, without

pytestmark = pytest.mark.interop
pytest.importorskip("monai")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MONAI's import warns of its own parts
    from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
    from monai.transforms import Compose, Flipd, Orientationd, ScaleIntensityRanged

    from simulator.adapters.monai_progression import ProgressInfectiond, recorded_progressions, replay

KEYS = ("image", "infection", "lungs")


def data() -> dict[str, Any]:
    """Channel-first MetaTensors, LPS, with an oblique-free affine."""
    affine = np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0])
    return {
        key: MetaTensor(torch.from_numpy(array)[None], affine=torch.from_numpy(affine))
        for key, array in zip(KEYS, subject_arrays(), strict=True)
    }


def progress(**options: Any) -> ProgressInfectiond:
    return ProgressInfectiond("image", "infection", "lungs", LIVELY, **options)


def test_image_and_infection_progress_and_keep_their_form() -> None:
    before = data()
    transform = progress(days=(1.0, 2.0)).set_random_state(seed=3)
    after = transform(before)
    for key in ("image", "infection"):
        assert isinstance(after[key], MetaTensor)
        assert (after[key].shape, after[key].dtype) == (before[key].shape, before[key].dtype)
        assert torch.equal(after[key].affine, before[key].affine)
        assert not torch.equal(after[key].as_tensor(), before[key].as_tensor())
    assert after["lungs"] is before["lungs"]
    assert torch.equal(before["image"].as_tensor()[0], torch.from_numpy(subject_arrays()[0]))
    assert before["image"].applied_operations == []


def test_a_recorded_draw_is_replayed() -> None:
    transform = progress(controls=TextureRange(gamma=(1.0, 3.0))).set_random_state(seed=3)
    after = transform(data())
    for key in ("image", "infection"):
        (record,) = recorded_progressions(after[key])
        again = replay(data(), json.loads(json.dumps(record)))
        assert torch.equal(again["image"].as_tensor(), after["image"].as_tensor())
        assert torch.equal(again["infection"].as_tensor(), after["infection"].as_tensor())
    assert transform.drawn is not None
    same = transform.apply(data(), transform.drawn)
    assert torch.equal(same["image"].as_tensor(), after["image"].as_tensor())
    with pytest.raises(UsageError, match="not the record"):
        replay(data(), {"draw": {}})


def test_the_random_state_decides() -> None:
    def first(seed: int) -> torch.Tensor:
        return progress().set_random_state(seed=seed)(data())["image"].as_tensor()

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


def test_spacing_comes_from_the_affine_in_any_order_of_axes() -> None:
    turned = Orientationd(keys=KEYS, axcodes="SPL", labels=None)(data())
    transform = progress().set_random_state(seed=3)
    after = transform(turned)
    drawn = transform.drawn
    assert drawn is not None
    assert after["image"].shape == (1, 60, 64, 72)
    stored = ProgressInfectiond("image", "infection", "lungs", LIVELY, spacing_mm=(6.0, 5.0, 5.0))
    plain = {key: turned[key].as_tensor().numpy() for key in KEYS}
    same = stored.apply(plain, drawn)
    assert isinstance(same["image"], np.ndarray)
    np.testing.assert_array_equal(same["image"], after["image"].as_tensor().numpy())
    wrong = ProgressInfectiond("image", "infection", "lungs", LIVELY, spacing_mm=(1.0, 5.0, 5.0))
    assert (wrong.apply(plain, drawn)["image"] != same["image"]).any()
    with pytest.raises(UsageError, match="no affine"):
        progress()(plain)


def test_prob_leaves_subjects_alone_and_says_so() -> None:
    before = data()
    after = progress(prob=0.0)(before)
    assert torch.equal(after["image"].as_tensor(), before["image"].as_tensor())
    assert recorded_progressions(after["image"]) == []
    transform = progress(prob=0.5).set_random_state(seed=0)
    changed = 0
    for _ in range(40):
        transform.randomize()
        changed += transform.drawn is not None
    assert 10 < changed < 30


def test_in_a_pipeline_that_can_be_inverted() -> None:
    pipeline = Compose(
        [
            Orientationd(keys=KEYS, axcodes="RAS", labels=None),
            progress(days=(1.0, 2.0)),
            Flipd(keys=KEYS, spatial_axis=0),
        ]
    ).set_random_state(seed=4)
    after = pipeline(data())
    names = [operation["class"] for operation in after["infection"].applied_operations]
    assert names == ["Orientation", "ProgressInfectiond", "Flip"]
    back = pipeline.inverse(after)
    assert torch.equal(back["image"].affine, data()["image"].affine)
    assert back["image"].applied_operations == []
    lungs = data()["lungs"].as_tensor() != 0
    infected = back["infection"].as_tensor() != 0
    assert (infected != (data()["infection"].as_tensor() != 0)).any()
    assert not (infected & ~lungs & (data()["infection"].as_tensor() == 0)).any()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_in_a_data_loader(workers: int) -> None:
    torch.manual_seed(0)  # MONAI seeds the transforms anew from it
    scale = ScaleIntensityRanged("image", a_min=-1400.0, a_max=200.0, b_min=0.0, b_max=1.0)
    transform = Compose([progress(prob=0.7), scale]).set_random_state(seed=5)
    loader = DataLoader(Dataset([data() for _ in range(6)], transform), batch_size=3, num_workers=workers)
    seen = []
    for batch in loader:
        assert batch["image"].shape == (3, 1, 72, 64, 60)
        for item in decollate_batch(batch):
            records = recorded_progressions(item["image"])
            seen += records
            if records:
                again = scale(replay(data(), records[0]))
                assert torch.equal(again["image"].as_tensor(), item["image"].as_tensor())
                assert torch.equal(again["infection"].as_tensor(), item["infection"].as_tensor())
    assert 1 < len(seen) <= 6
    assert len({record["draw"]["play"]["seed"] for record in seen}) == len(seen)


def test_closed_tissue_and_labels() -> None:
    inputs = data()
    closed = torch.zeros_like(inputs["lungs"])
    closed[..., ::2] = 1
    inputs["vessels"] = closed
    inputs["infection"] *= 3
    transform = progress(closed_key="vessels", labels=(3,), days=(1.5, 2.0)).set_random_state(seed=3)
    after = transform(inputs)
    grown = (after["infection"] == 3) & (inputs["infection"] == 0)
    assert grown.sum() > 20
    assert not (grown & (closed != 0)).any()
    (record,) = recorded_progressions(after["infection"])
    assert torch.equal(replay(inputs, record)["infection"].as_tensor(), after["infection"].as_tensor())


def test_errors_are_clear_inside_a_pipeline() -> None:
    healthy = data()
    healthy["infection"] *= 0
    with pytest.raises(DataError, match="no infection to play on"):
        progress()(healthy)
    passed = progress(allow_healthy=True)(healthy)
    assert torch.equal(passed["image"].as_tensor(), healthy["image"].as_tensor())
    assert recorded_progressions(passed["image"]) == []
    missing = data()
    del missing["lungs"]
    with pytest.raises(UsageError, match="lack a key"):
        progress()(missing)
    two = data()
    two["image"] = torch.cat([two["image"], two["image"]])
    with pytest.raises(DataError, match="not one channel first"):
        progress()(two)
    with pytest.raises(RuntimeError) as told:
        Compose([progress()])(healthy)
    assert isinstance(told.value.__cause__, DataError)
    with pytest.raises(UsageError, match="one image at a time"):
        ProgressInfectiond(["image", "other"], "infection", "lungs", LIVELY)
    with pytest.raises(UsageError, match="days"):
        progress(days=(2.0, 1.0))


def test_without_monai(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "monai", "simulator.adapters.monai_progression")
    with pytest.raises(UsageError, match=r"pip install 'lungcast\[monai\]'"):
        importlib.import_module("simulator.adapters.monai_progression")


def test_masks_elsewhere_than_the_image_are_refused() -> None:
    moved = data()
    affine = moved["infection"].affine.clone()
    affine[0, 3] += 5.0
    moved["infection"] = MetaTensor(moved["infection"].as_tensor(), affine=affine)
    with pytest.raises(DataError, match=r"infection.*another grid.*5 mm apart"):
        progress()(moved)
    rounded = data()
    affine = rounded["lungs"].affine.clone()
    affine[1, 3] += 1e-4
    rounded["lungs"] = MetaTensor(rounded["lungs"].as_tensor(), affine=affine)
    progress()(rounded)


def test_no_dynamics_are_told() -> None:
    with pytest.raises(UsageError, match="dynamics"):
        ProgressInfectiond("image", "infection", "lungs", None)
