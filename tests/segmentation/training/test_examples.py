from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from segmentation.signal import REFERENCE_WINDOW, input_air, input_signal
from segmentation.training.cut import cut_crop, cut_scan
from segmentation.training.examples import Example, draw_example, vary_example
from segmentation.views import VIEWS, as_planes, stacks
from simulator.synthetic_crop import SyntheticCrop
from standard_space.window import Window
from tests.segmentation.toys import toy_scan


def test_a_cut_scan_keeps_lungs_and_infection() -> None:
    scan = toy_scan(seed=3)
    assert scan.infection is not None
    cut = cut_scan(scan)
    assert int(cut.truth.sum()) == int(scan.infection.sum())
    assert cut.signal.shape[2] < scan.grid.size or cut.signal.shape[1] < scan.grid.size
    assert int(cut.counted.sum()) == int(scan.lungs.sum())  # the rim is thinner than these voxels
    finer = toy_scan(size=96, seed=3)
    around = np.array([(z, y, x) for z in (-1, 0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1)])
    near = around[np.linalg.norm(around * finer.grid.spacing_mm, axis=1) <= 6.0]
    expected = np.zeros_like(finer.lungs)
    for step in near:
        expected |= np.roll(finer.lungs, step, axis=(0, 1, 2))
    assert expected.sum() > finer.lungs.sum()
    assert int(cut_scan(finer).counted.sum()) == int(expected.sum())
    for view in VIEWS:
        planes = as_planes(cut.truth, view)
        assert cut.positive_slices[view].tolist() == [k for k, p in enumerate(planes) if p.any()]
        assert set(cut.positive_slices[view]) < set(cut.slices[view])


def test_the_lungs_as_target_take_the_whole_scan() -> None:
    scan = toy_scan(seed=3)
    cut = cut_scan(scan, "lungs")
    assert cut.signal.shape == scan.grid.shape
    assert torch.equal(cut.truth, torch.from_numpy(scan.lungs))
    assert bool(cut.counted.all())
    assert cut.slices["yz"].tolist() == list(range(32))
    assert set(cut.positive_slices["yz"]) < set(cut.slices["yz"])


def test_a_crop_of_a_sampler_is_cut_as_its_scan_would_be() -> None:
    scan = toy_scan(seed=3)
    own = Window(-500.0, 1500.0, "dicom")
    retaken = dataclasses.replace(scan, window=own, signal=own.to_signal(scan.window.to_hu(scan.signal)))
    assert retaken.infection is not None
    crop = SyntheticCrop(
        "P1",
        "S1",
        0.0,
        retaken.signal,
        retaken.infection,
        retaken.lungs,
        retaken.grid.spacing_mm,
        (0, 0, 0),
        own.air_signal,
        {},
    )
    made, whole = cut_crop(crop, own), cut_scan(scan)
    assert made.air == whole.air == -0.25
    assert int(made.truth.sum()) == int(whole.truth.sum())
    assert int(made.counted.sum()) == int(whole.counted.sum())
    for view in VIEWS:
        assert made.positive_slices[view].size == whole.positive_slices[view].size
    inside = made.signal[torch.from_numpy(scan.infection)]
    assert float((inside - whole.signal[whole.truth]).abs().max()) < 2e-3


@pytest.mark.parametrize("view", VIEWS)
def test_an_unvaried_example_is_a_stack_of_the_scan(view: str) -> None:
    scan = toy_scan(seed=2)
    cut = cut_scan(scan)
    rng = np.random.default_rng(1)
    for _ in range(5):
        example = draw_example(cut, view, rng, patch=16, positive_share=1.0, vary=False)
        assert example.stack.shape == (5, 16, 16)
        assert bool(example.truth.any())
        candidates = stacks(
            cut.signal, view, range(_count(cut.signal, view)), cut.spacing_mm, cut.air
        ).float()
        windows = candidates.unfold(2, 16, 1).unfold(3, 16, 1)
        same = (windows == example.stack[None, :, None, None]).all(dim=(1, 4, 5))
        assert int(same.sum()) == 1
        k, i, j = torch.nonzero(same)[0].tolist()
        assert torch.equal(example.truth[0] > 0, as_planes(cut.truth, view)[k, i : i + 16, j : j + 16])
        assert torch.equal(example.counted[0] > 0, as_planes(cut.counted, view)[k, i : i + 16, j : j + 16])


def _count(volume: torch.Tensor, view: str) -> int:
    return as_planes(volume, view).shape[0]


def test_the_positive_share_is_kept() -> None:
    cut = cut_scan(toy_scan(seed=4))
    rng = np.random.default_rng(0)

    def share(positive_share: float) -> float:
        drawn = [
            draw_example(cut, "xy", rng, patch=32, positive_share=positive_share, vary=False)
            for _ in range(300)
        ]
        return float(np.mean([bool(example.truth.any()) for example in drawn]))

    by_chance = cut.positive_slices["xy"].size / cut.slices["xy"].size
    assert share(1.0) == 1.0
    assert share(0.0) == pytest.approx(by_chance, abs=0.1)


def test_a_patch_larger_than_the_scan_is_padded_with_air_that_does_not_count() -> None:
    cut = cut_scan(toy_scan(seed=4))
    rng = np.random.default_rng(0)
    example = draw_example(cut, "xy", rng, patch=48, positive_share=1.0, vary=False)
    assert example.stack.shape == (5, 48, 48)
    assert torch.equal(example.stack[:, 0], torch.full((5, 48), cut.air))
    assert not bool(example.counted[0, 0].any())


def test_variation_moves_truth_with_the_image_and_keeps_air() -> None:
    # The image is the truth itself, so after any variation one can be read off the other.
    truth = torch.zeros(1, 64, 64)
    truth[:, 20:40, 10:30] = 1.0
    air = -0.25
    example = Example(truth.expand(5, 64, 64) + air, truth, torch.ones(1, 64, 64))
    rng = np.random.default_rng(5)
    seen = set()
    for _ in range(40):
        varied = vary_example(example, rng, air, 4.0, 2.6)
        assert set(varied.truth.unique().tolist()) <= {0.0, 1.0}
        assert set(varied.counted.unique().tolist()) <= {0.0, 1.0}
        read_off = (varied.stack[2] - air) > 0.5
        agree = (read_off == (varied.truth[0] > 0)).float().mean()
        assert float(agree) > 0.98
        outside = varied.stack[2][varied.truth[0] == 0].median()
        assert float(outside) == pytest.approx(air, abs=0.06)
        seen.add((bool(varied.truth[0, 30, 15]), bool(varied.truth[0, 30, 48])))
    assert seen >= {(True, False), (False, True)}
    assert float(example.stack.max()) == 0.75


def test_rotation_is_a_rotation_in_millimetres() -> None:
    # A disc in millimetres stays one under rotation, on voxels that are not square.
    row_mm, column_mm = 4.0, 2.0
    y, x = np.meshgrid((np.arange(64) - 31.5) * row_mm, (np.arange(64) - 31.5) * column_mm, indexing="ij")
    disc = torch.from_numpy((x**2 + y**2 < 40**2).astype(np.float32))[None]
    example = Example(disc.expand(5, 64, 64), disc, torch.ones(1, 64, 64))
    rng = np.random.default_rng(0)
    for _ in range(30):
        varied = vary_example(example, rng, 0.0, row_mm, column_mm).truth[0].numpy() > 0
        spread_y, spread_x = y[varied].std(), x[varied].std()
        assert spread_y / spread_x == pytest.approx(1.0, abs=0.04)


def test_one_tissue_looks_the_same_at_every_window() -> None:
    scan = toy_scan(seed=2)
    hu = scan.window.to_hu(scan.signal)
    other = Window(-500.0, 1500.0, "dicom")
    retaken = dataclasses.replace(scan, window=other, signal=other.to_signal(hu))
    expected = (hu + 600.0) / 1600.0
    np.testing.assert_allclose(input_signal(retaken, REFERENCE_WINDOW), expected, atol=1e-5)
    assert input_signal(scan, REFERENCE_WINDOW) is scan.signal
    assert input_air(retaken, REFERENCE_WINDOW) == -0.25
    assert input_signal(retaken, None) is retaken.signal
    assert input_air(retaken, None) == pytest.approx(-1 / 3)
    at_reference, at_own = cut_scan(retaken), cut_scan(retaken, "infection", None)
    assert (at_reference.air, at_own.air) == (-0.25, pytest.approx(-1 / 3))
    assert float((at_reference.signal - at_own.signal).abs().max()) > 0.03
