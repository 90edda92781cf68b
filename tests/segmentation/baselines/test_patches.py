from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("monai")

from segmentation.baselines import patches
from segmentation.baselines.patches import (
    Patch,
    Triple,
    draw_patch,
    patch_shape,
    segment_by_patches,
    vary_patch,
    working_spacing,
)
from segmentation.training.cut import CutScan
from segmentation.training.recipe import Crop
from segmentation.views import VIEWS, plane_axes
from standard_space.grid import StandardGrid
from tests.segmentation.baselines.learning import AIR, toy_cut

PUBLISHED: Triple = (128.0, 83.5, 83.5)
ODD = (23, 31, 27)
SPACING: Triple = (1.0, 0.7, 0.8)
COARSER: Triple = (2.7, 1.58, 1.58)


def cut_of(signal: Tensor, truth: Tensor, spacing_mm: Triple = SPACING) -> CutScan:
    """A cut scan in which everything counts."""
    slices = {view: np.arange(signal.shape[3 - sum(plane_axes(view))]) for view in VIEWS}
    positive = {view: np.flatnonzero(truth.numpy().any(axis=plane_axes(view))) for view in VIEWS}
    everywhere = torch.ones_like(truth)
    return CutScan(signal.half(), truth, everywhere, spacing_mm, AIR, slices, positive)


def blob(shape: tuple[int, int, int], spacing_mm: Triple, sigma_mm: float = 3.0) -> Tensor:
    """A round bump of height 1, off the middle, small at the border."""
    away = torch.zeros(shape)
    for axis, share in enumerate((0.55, 0.45, 0.5)):
        places = (torch.arange(shape[axis]) + 0.5) * spacing_mm[axis]
        form = [1, 1, 1]
        form[axis] = -1
        away = away + ((places - share * shape[axis] * spacing_mm[axis]) ** 2).view(form)
    return torch.exp(-away / (2.0 * sigma_mm**2))


def centre_mm(volume: Tensor, spacing_mm: Triple, first: tuple[int, ...] = (0, 0, 0)) -> list[float]:
    """Centre of mass from the corner of the whole volume."""
    return [
        float(
            (
                volume.sum(dim=[a for a in range(3) if a != axis]) * (torch.arange(size) + first[axis] + 0.5)
            ).sum()
            / volume.sum()
            * spacing_mm[axis]
        )
        for axis, size in enumerate(volume.shape)
    ]


@pytest.mark.parametrize(("grid", "side"), [(512, 128), (256, 64), (128, 32), (64, 16)])
def test_a_published_patch_keeps_its_millimetres_on_every_grid(grid: int, side: int) -> None:
    spacing_mm = StandardGrid(grid).spacing_mm
    assert patch_shape(PUBLISHED, spacing_mm) == (side, side, side)
    extent = np.array((side, side, side)) * spacing_mm
    np.testing.assert_allclose(extent, PUBLISHED)


def test_a_patch_is_never_less_than_one_multiple() -> None:
    assert patch_shape((10.0, 10.0, 24.0), (1.0, 10.0, 1.0)) == (16, 16, 32)
    assert patch_shape((10.0, 10.0, 10.0), (1.0, 1.0, 1.0), 32) == (32, 32, 32)


def test_no_method_works_finer_than_the_scan() -> None:
    assert working_spacing((2.7, 1.58, 1.58), StandardGrid(512).spacing_mm) == (2.7, 1.58, 1.58)
    assert working_spacing((2.7, 1.58, 1.58), StandardGrid(128).spacing_mm) == StandardGrid(128).spacing_mm
    assert working_spacing((2.7, 1.58, 1.58), (1.0, 3.0, 0.5)) == (2.7, 3.0, 1.58)


def test_a_patch_is_a_box_of_the_scan_and_holds_what_was_asked_for() -> None:
    cut = toy_cut(1)
    unlike = torch.randint(0, 2048, (32, 32, 32), generator=torch.Generator().manual_seed(0))
    cut = dataclasses.replace(cut, signal=unlike.half())
    for seed in range(20):
        patch = draw_patch(cut, np.random.default_rng(seed), (16, 16, 16), positive_share=1.0)
        assert patch.truth.any()
        places = torch.nonzero(cut.signal == patch.signal[0, 0, 0])
        boxes = [tuple(slice(int(k), int(k) + 16) for k in place) for place in places]
        box = next(b for b in boxes if torch.equal(cut.signal[b].float(), patch.signal))
        assert torch.equal(patch.truth, cut.truth[box].float())
        assert torch.equal(patch.counted, cut.counted[box].float())
        assert cut.lungs is not None
        assert patch.lungs is not None
        assert patch.lungs.dtype == torch.uint8
        assert torch.equal(patch.lungs, cut.lungs[box])


def test_without_truth_a_patch_holds_a_voxel_that_counts() -> None:
    cut = toy_cut(1)
    nothing = {view: np.array([], np.intp) for view in VIEWS}
    empty = dataclasses.replace(cut, truth=torch.zeros_like(cut.truth), positive_slices=nothing)
    for seed in range(10):
        patch = draw_patch(empty, np.random.default_rng(seed), (16, 16, 16), positive_share=1.0)
        assert patch.counted.any()
        assert not patch.truth.any()


def test_the_same_seed_draws_the_same_bytes() -> None:
    cut = toy_cut(2)

    def bytes_of(seed: int) -> bytes:
        rng = np.random.default_rng(seed)
        patch = draw_patch(cut, rng, (16, 16, 16), positive_share=0.5, spacing_mm=(9.0, 6.0, 6.0))
        patch = vary_patch(patch, rng, cut.air)
        return b"".join(volume.numpy().tobytes() for volume in (patch.signal, patch.truth, patch.counted))

    assert bytes_of(3) == bytes_of(3)
    assert len({bytes_of(seed) for seed in range(6)}) == 6


def test_beyond_the_cut_scan_is_air_that_does_not_count() -> None:
    cut = toy_cut(1, size=19)
    patch = draw_patch(cut, np.random.default_rng(0), (32, 32, 16), positive_share=1.0)
    inside = torch.zeros(32, 32, 16, dtype=torch.bool)
    inside[6:25, 6:25] = True
    assert (patch.signal[~inside] == AIR).all()
    assert not patch.truth[~inside].any()
    assert not patch.counted[~inside].any()
    assert patch.lungs is not None
    assert not patch.lungs[~inside].any()
    assert patch.counted[inside].any()


@pytest.mark.parametrize("spacing_mm", [COARSER, (1.0, 1.58, 0.8), (2.0, 1.4, 1.6)])
def test_a_blob_stays_where_it_is_when_a_scan_is_resampled(spacing_mm: Triple) -> None:
    bump = blob(ODD, SPACING)
    cut = cut_of(bump + AIR, bump > 0.5)
    patch = draw_patch(cut, np.random.default_rng(0), (48, 48, 48), positive_share=1.0, spacing_mm=spacing_mm)
    sizes = [int(np.ceil(n * own / new - 1e-6)) for n, own, new in zip(ODD, SPACING, spacing_mm, strict=True)]
    first = tuple(-((48 - size) // 2) for size in sizes)
    was, now = centre_mm(bump, SPACING), centre_mm(patch.signal - AIR, spacing_mm, first)
    for axis in range(3):
        assert abs(was[axis] - now[axis]) < 0.1 * spacing_mm[axis]
    mass = float(bump.sum()) * np.prod(SPACING)
    assert float((patch.signal - AIR).sum()) * np.prod(spacing_mm) == pytest.approx(mass, rel=0.03)


def test_a_blob_stays_where_it_is_on_the_way_there_and_back() -> None:
    bump = blob(ODD, SPACING)
    found = segment_by_patches(
        Crop(bump, 0.0, SPACING),
        (16, 16, 16),
        lambda stack: stack,
        overlap=0.25,
        prepare=lambda signal: signal[None],
        probability=lambda output: output,
        spacing_mm=COARSER,
    )
    assert found.shape == (1, *ODD)
    was, now = centre_mm(bump, SPACING), centre_mm(found[0], SPACING)
    for axis in range(3):
        assert abs(was[axis] - now[axis]) < 0.1 * SPACING[axis]
    assert float((found[0] - bump).abs().max()) < 0.3


def test_masks_stay_masks_and_lungs_labels_when_a_scan_is_resampled() -> None:
    cut = toy_cut(3, size=32)
    z, y, x = cut.spacing_mm
    patch = draw_patch(
        cut, np.random.default_rng(1), (16, 16, 16), positive_share=1.0, spacing_mm=(2 * z, 1.7 * y, 1.7 * x)
    )
    assert patch.lungs is not None
    for mask, labels in ((patch.truth, {0, 1}), (patch.counted, {0, 1}), (patch.lungs, {0, 1, 2})):
        assert set(mask.unique().tolist()) == labels
    # The lungs lie where voxels count, up to the border that is rounded differently.
    assert float(((patch.lungs > 0) == (patch.counted > 0)).float().mean()) > 0.9


def test_another_spacing_that_is_the_scans_own_changes_nothing() -> None:
    cut = toy_cut(1)
    draws = [
        draw_patch(cut, np.random.default_rng(5), (16, 16, 16), positive_share=1.0, spacing_mm=spacing_mm)
        for spacing_mm in (None, cut.spacing_mm)
    ]
    assert torch.equal(draws[0].signal, draws[1].signal)
    assert torch.equal(draws[0].truth, draws[1].truth)


def test_variation_moves_signal_truth_and_lungs_together() -> None:
    cut = toy_cut(4)
    whole = draw_patch(cut, np.random.default_rng(0), (32, 32, 32), positive_share=1.0)
    seen = set()
    for seed in range(24):
        varied = vary_patch(whole, np.random.default_rng(seed), cut.air)
        assert set(varied.truth.unique().tolist()) == {0.0, 1.0}
        true, rest = varied.truth > 0, (varied.counted > 0) & (varied.truth == 0)
        assert float(varied.signal[true].mean()) - float(varied.signal[rest].mean()) > 0.2
        assert varied.lungs is not None
        # Mirrored or not: the lung at low x goes by the name of the right lung.
        columns = [torch.nonzero(varied.lungs == name)[:, 2].float().mean() for name in (1, 2)]
        assert columns[0] < 16 < columns[1]
        seen.add(float(varied.signal.sum()))
    assert len(seen) == 24


def test_variation_mirrors_rotates_and_scales() -> None:
    # A lone voxel near a corner tells where it went.
    signal = torch.full((16, 16, 16), AIR)
    truth = torch.zeros(16, 16, 16)
    truth[2:5, 3:6, 4:7] = 1.0
    patch = Patch(signal, truth, torch.ones_like(truth), None)
    corners, volumes = set(), set()
    for seed in range(60):
        varied = vary_patch(patch, np.random.default_rng(seed), AIR)
        z, _, x = torch.nonzero(varied.truth).float().mean(dim=0).tolist()
        corners.add((z < 8, x < 8))
        volumes.add(float(varied.truth.sum()))
        assert varied.lungs is None
        # Air turned in stays air, up to the variation of intensity.
        assert float(varied.signal.max()) < AIR * 0.9 + 0.03 + 0.12
    assert len(corners) == 4
    assert 27.0 in volumes
    assert len(volumes) > 1


@pytest.mark.parametrize("shape", [(16, 16, 16), (32, 16, 48)])
def test_patches_put_together_are_the_volume(shape: tuple[int, int, int]) -> None:
    signal = torch.rand(ODD, generator=torch.Generator().manual_seed(0))
    shown = []
    found = segment_by_patches(
        Crop(signal, AIR, SPACING),
        shape,
        lambda stack: stack,
        overlap=0.25,
        prepare=lambda volume: volume[None],
        probability=lambda output: output.clone(),
        progress=lambda _, done, total: shown.append((done, total)),
    )
    assert found.shape == (1, *ODD)
    torch.testing.assert_close(found[0], signal)
    assert shown[-1][0] == shown[-1][1]
    assert all(earlier[0] < later[0] for earlier, later in itertools.pairwise(shown))


def test_a_short_crop_is_padded_with_air_on_both_sides() -> None:
    seen = []

    def prepare(volume: Tensor) -> Tensor:
        seen.append(volume)
        return volume[None]

    segment_by_patches(
        Crop(torch.ones(5, 20, 7), AIR, SPACING),
        (16, 16, 16),
        lambda stack: stack,
        overlap=0.5,
        prepare=prepare,
        probability=torch.sigmoid,
    )
    assert seen[0].shape == (16, 20, 16)
    inside = torch.zeros(16, 20, 16, dtype=torch.bool)
    inside[5:10, :, 4:11] = True
    assert (seen[0][inside] == 1.0).all()
    assert (seen[0][~inside] == AIR).all()


def test_where_patches_overlap_their_answers_are_averaged() -> None:
    counter = iter(range(9))
    found = segment_by_patches(
        Crop(torch.zeros(128, 128, 192), AIR, SPACING),
        (128, 128, 128),
        lambda stack: torch.full_like(stack, float(next(counter))),
        overlap=0.5,
        prepare=lambda volume: volume[None],
        probability=lambda output: output,
    )
    assert found[0, 0, 0, ::64].tolist() == [0.0, 0.5, 1.0]


def test_how_many_patches_are_predicted_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(2)
    network = torch.nn.Conv3d(1, 1, 3, padding=1)
    crop, sizes = Crop(torch.randn(ODD), AIR, SPACING), []

    def segmented(at_once: int) -> Tensor:
        def forward(stack: Tensor) -> Tensor:
            sizes.append(len(stack))
            answer: Tensor = network(stack)
            return answer

        monkeypatch.setattr(patches, "CPU_VOXELS_AT_ONCE", at_once)
        with torch.no_grad():
            return segment_by_patches(
                crop,
                (16, 16, 16),
                forward,
                overlap=0.5,
                prepare=lambda volume: volume[None],
                probability=torch.sigmoid,
            )

    single = segmented(1)
    assert set(sizes) == {1}
    torch.testing.assert_close(segmented(5 * 16**3), single)
    assert max(sizes) == 5
