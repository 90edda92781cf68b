"""The TorchIO transform with TorchIO's own subjects, history and composition."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from simulator.play import TextureRange
from standard_space.errors import DataError, UsageError
from tests.simulator.adapters.subjects import LIVELY, SPACING_MM, subject_arrays, without

pytestmark = pytest.mark.interop
tio = pytest.importorskip("torchio")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from simulator.adapters.torchio_progression import Progression, RandomProgression


def subject() -> Any:
    """CT in HU, LPS, with label maps."""
    affine = np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0])
    ct, infection, lungs = (torch.from_numpy(array)[None] for array in subject_arrays())
    return tio.Subject(
        ct=tio.ScalarImage(tensor=ct, affine=affine),
        infection=tio.LabelMap(tensor=infection, affine=affine),
        lungs=tio.LabelMap(tensor=lungs, affine=affine),
        age=51,
    )


def progress(**options: Any) -> RandomProgression:
    return RandomProgression(LIVELY, **options)


def test_ct_and_infection_progress_and_keep_their_form() -> None:
    torch.manual_seed(3)
    before = subject()
    after = progress(days=(1.0, 2.0))(before)
    for name in ("ct", "infection"):
        assert (after[name].shape, after[name].data.dtype) == (before[name].shape, before[name].data.dtype)
        np.testing.assert_array_equal(after[name].affine, before[name].affine)
        assert not torch.equal(after[name].data, before[name].data)
    assert torch.equal(after["lungs"].data, before["lungs"].data)
    assert torch.equal(before["ct"].data[0], torch.from_numpy(subject_arrays()[0]))
    assert after["age"] == 51
    assert isinstance(after["infection"], tio.LabelMap)


def test_the_history_replays_the_draw() -> None:
    torch.manual_seed(3)
    after = progress(controls=TextureRange(gamma=(1.0, 3.0)))(subject())
    (applied,) = after.get_applied_transforms()
    assert isinstance(applied, Progression)
    for again in (applied(subject()), after.get_composed_history()(subject())):
        assert torch.equal(again["ct"].data, after["ct"].data)
        assert torch.equal(again["infection"].data, after["infection"].data)
    name, arguments = after.applied_transforms[0]
    assert name == "Progression"
    assert 1 <= arguments["draw"]["play"]["transitions"] <= 200


def test_torch_s_seed_decides() -> None:
    def first(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return progress()(subject())["ct"].data

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


def test_any_orientation() -> None:
    torch.manual_seed(3)
    turned = tio.ToOrientation("SPL")(subject())
    assert turned["ct"].spacing == (6.0, 5.0, 5.0)
    after = progress(days=(1.0, 2.0))(turned)
    assert after["ct"].shape == (1, 60, 64, 72)
    grown = (after["infection"].data != 0) & (turned["infection"].data == 0)
    assert grown.sum() > 20
    assert not (grown & (turned["lungs"].data == 0)).any()
    again = after.get_composed_history()(subject())
    assert torch.equal(again["ct"].data, after["ct"].data)


def test_in_a_composition_with_a_probability() -> None:
    pipeline = tio.Compose(
        [tio.ToCanonical(), progress(p=0.5), tio.RandomFlip(axes=(0,)), tio.RescaleIntensity((0, 1))]
    )
    torch.manual_seed(0)
    played = 0
    for _ in range(12):
        after = pipeline(subject())
        names = [name for name, _ in after.applied_transforms]
        played += "Progression" in names
        again = after.get_composed_history()(subject())
        assert torch.equal(again["ct"].data, after["ct"].data)
    assert 2 < played < 10


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_in_a_subjects_loader() -> None:
    dataset = tio.SubjectsDataset([subject() for _ in range(4)], transform=progress())
    torch.manual_seed(1)
    seen = []
    for batch in tio.SubjectsLoader(dataset, batch_size=2, num_workers=2):
        assert batch["ct"]["data"].shape == (2, 1, 72, 64, 60)
        seen += [batch["infection"]["data"][k].sum().item() for k in range(2)]
    assert len(set(seen)) > 1


def test_closed_tissue_and_labels() -> None:
    torch.manual_seed(3)
    inputs = subject()
    closed = torch.zeros_like(inputs["lungs"].data)
    closed[..., ::2] = 1
    inputs.add_image(tio.LabelMap(tensor=closed, affine=inputs["ct"].affine), "vessels")
    inputs["infection"].set_data(inputs["infection"].data * 3)
    after = progress(closed="vessels", labels=(3,), days=(1.5, 2.0))(inputs)
    grown = (after["infection"].data == 3) & (inputs["infection"].data == 0)
    assert grown.sum() > 20
    assert not (grown & (closed != 0)).any()
    assert torch.equal(after.get_composed_history()(inputs)["infection"].data, after["infection"].data)


def test_errors_are_clear() -> None:
    healthy = subject()
    healthy["infection"].set_data(healthy["infection"].data * 0)
    with pytest.raises(DataError, match="no infection to play on"):
        progress()(healthy)
    passed = progress(allow_healthy=True)(healthy)
    assert torch.equal(passed["ct"].data, healthy["ct"].data)
    assert passed.applied_transforms == []
    missing = subject()
    missing.remove_image("lungs")
    with pytest.raises(UsageError, match="lacks an image"):
        progress()(missing)
    with pytest.raises(UsageError, match="days"):
        progress(days=(2.0, 1.0))
    with pytest.raises(UsageError, match="no such units"):
        progress(units="mm")
    with pytest.raises(UsageError, match="not the record"):
        Progression({})


def test_masks_elsewhere_than_the_image_are_refused() -> None:
    moved = subject()
    affine = moved["lungs"].affine.copy()
    affine[2, 3] += 4.0
    moved["lungs"].affine = affine
    with pytest.raises(DataError, match=r"lungs.*another grid.*4 mm apart"):
        progress(days=(0.5, 1.0))(moved)


def test_without_torchio(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "torchio", "simulator.adapters.torchio_progression")
    with pytest.raises(UsageError, match=r"pip install 'lungcast\[torchio\]'"):
        importlib.import_module("simulator.adapters.torchio_progression")
