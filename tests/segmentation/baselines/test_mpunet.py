"""MPUNet: slices along six directions, sampled and brought back in millimetres."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional

pytest.importorskip("monai")

from segmentation.baselines.mpunet import MPUNet, _deformation, _image_through, step_of
from segmentation.baselines.mpunet_planes import Lattice, directions_of, plane_normals
from segmentation.methods import options_for
from segmentation.training.examples import Batch
from segmentation.training.recipe import Crop, Turn
from standard_space.grid import StandardGrid
from tests.segmentation.baselines.learning import AIR, GRID_SIZE, forwards, learns, toy_cut

RECIPE = MPUNet()
SPACING = (4.0, 2.6, 2.6)
SHAPE = (24, 31, 36)
NORMALS = plane_normals(0)


def tiny(**given):
    return options_for("mpunet", **{"width": 4, "batch_size": 4, "patch": 32, **given})


def example(seed=0, vary=True, **given):
    turn = Turn(tiny(**given), GRID_SIZE, 0, 10, vary)
    return RECIPE.example(toy_cut(1), "network", np.random.default_rng(seed), turn)


def places_mm(shape=SHAPE, spacing_mm=SPACING):
    """Each voxel's centre, float64 (z, y, x, 3), mm from the first one's."""
    axes = [torch.arange(size, dtype=torch.float64) * mm for size, mm in zip(shape, spacing_mm, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def blob(centre_mm, width_mm=9.0):
    squared = ((places_mm() - torch.tensor(centre_mm, dtype=torch.float64)) ** 2).sum(-1)
    return torch.exp(-squared / (2 * width_mm**2)).float()


def centre_mm(volume):
    return ((places_mm() * volume[..., None]).sum((0, 1, 2)) / volume.sum()).numpy()


def there_and_back(volume, normal, step_mm=2.6):
    lattice = Lattice.around(SHAPE, SPACING, normal, step_mm)
    return lattice.back(lattice.sample(volume, SPACING, 0.0), SHAPE, SPACING)


# The planes.


def test_six_planes_are_at_least_60_degrees_apart():
    for seed in range(3):
        normals = plane_normals(seed)
        assert normals.shape == (6, 3)
        np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1.0)
        for one, other in itertools.combinations(normals, 2):
            assert np.degrees(np.arccos(abs(one @ other))) > 60.0


def test_the_seed_draws_the_planes():
    assert np.array_equal(plane_normals(3), plane_normals(3))
    assert not np.allclose(plane_normals(3), plane_normals(4))


@pytest.mark.parametrize("normal", [*NORMALS, (1.0, 1.0, 1.0), (0.0, 1.0, 1.0), (0.0, 0.0, -2.0)])
def test_the_directions_of_a_plane_are_orthonormal(normal):
    directions = directions_of(np.array(normal))
    np.testing.assert_allclose(directions @ directions.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(directions[0] * np.linalg.norm(normal), normal, atol=1e-12)


@pytest.mark.parametrize(
    ("normal", "rows", "columns"),
    [((1, 0, 0), (0, 1, 0), (0, 0, 1)), ((0, 1, 0), (1, 0, 0), (0, 0, 1)), ((0, 0, 1), (1, 0, 0), (0, 1, 0))],
)
def test_a_plane_along_the_axes_looks_as_the_views_have_it(normal, rows, columns):
    np.testing.assert_array_equal(directions_of(np.array(normal, float)), [normal, rows, columns])


def test_slices_along_z_at_the_own_spacing_are_the_volume():
    volume = torch.rand(5, 7, 9)
    lattice = Lattice.around(volume.shape, (2.0, 2.0, 2.0), np.array([1.0, 0.0, 0.0]), 2.0)
    assert lattice.shape == (5, 7, 9)
    torch.testing.assert_close(lattice.sample(volume, (2.0, 2.0, 2.0), -0.25), volume, atol=1e-5, rtol=0)


# Sampling.


def test_a_linear_volume_is_sampled_exactly():
    # Linear interpolation reproduces it; so every pixel tells in millimetres where it lies.
    slope = torch.tensor([0.7, -1.1, 0.4], dtype=torch.float64)
    volume = (places_mm() @ slope).float()
    for normal in NORMALS:
        whole = Lattice.around(SHAPE, SPACING, normal, 2.6)
        middle = [size // 2 - 2 for size in whole.shape]
        lattice = whole.part(middle, (4, 4, 4))
        steps = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), axis=-1) * 2.6
        expected = (lattice.origin_mm + steps @ lattice.directions) @ slope.numpy()
        np.testing.assert_allclose(lattice.sample(volume, SPACING, 0.0), expected, atol=1e-3)


def test_a_smooth_volume_there_and_back_agrees_with_itself_inside():
    z, y, x = places_mm().unbind(-1)
    volume = (torch.sin(z / 20.0) + torch.cos(y / 15.0) * torch.sin(x / 18.0)).float()
    inside = (slice(2, -2), slice(3, -3), slice(3, -3))
    for normal in NORMALS:
        difference = (there_and_back(volume, normal) - volume)[inside].abs()
        assert difference.max() < 0.04


def test_a_blob_stays_where_it_is_in_millimetres():
    where = (45.0, 38.0, 50.0)
    volume = blob(where)
    np.testing.assert_allclose(centre_mm(volume), where, atol=0.2)
    for normal in NORMALS:
        np.testing.assert_allclose(centre_mm(there_and_back(volume, normal)), centre_mm(volume), atol=0.05)


def test_the_brightest_pixel_of_the_planes_is_where_the_blob_is():
    where = np.array([45.0, 38.0, 50.0])
    for normal in NORMALS:
        lattice = Lattice.around(SHAPE, SPACING, normal, 2.6)
        planes = lattice.sample(blob(where), SPACING, 0.0)
        pixel = np.unravel_index(int(planes.argmax()), planes.shape)
        place = lattice.origin_mm + np.array(pixel) * 2.6 @ lattice.directions
        assert np.linalg.norm(place - where) < 2.6


def test_beyond_the_volume_is_air():
    lattice = Lattice.around(SHAPE, SPACING, NORMALS[0], 2.6)
    far = lattice.part((0, -200, 0), (2, 8, 8))
    volume = torch.ones(SHAPE)
    assert torch.all(far.sample(volume, SPACING, AIR) == AIR)
    assert torch.all(far.sample(volume, SPACING, AIR, nearest=True) == AIR)
    planes = lattice.sample(volume, SPACING, AIR)
    assert planes.min() == AIR
    assert planes.max() == pytest.approx(1.0, abs=1e-5)


def test_masks_take_the_nearest_voxel():
    mask = torch.rand(SHAPE) > 0.5
    lattice = Lattice.around(SHAPE, SPACING, NORMALS[1], 2.6)
    found = lattice.sample(mask, SPACING, 0.0, nearest=True)
    assert set(found.unique().tolist()) == {0.0, 1.0}
    whole = Lattice.around(SHAPE, SPACING, np.array([1.0, 0.0, 0.0]), 2.6)
    assert torch.equal(whole.sample(mask, SPACING, 0.0, nearest=True)[0], mask[0].float())


def test_displaced_points_look_elsewhere_in_their_plane():
    volume = blob((45.0, 38.0, 50.0))
    lattice = Lattice.around(SHAPE, SPACING, NORMALS[2], 2.6)
    shift = torch.zeros(2, *lattice.shape[1:])
    shift[0], shift[1] = 3.0, -2.0
    moved = lattice.sample(volume, SPACING, 0.0, moved=shift)
    plain = lattice.part((0, 3, -2), lattice.shape).sample(volume, SPACING, 0.0)
    torch.testing.assert_close(moved, plain, atol=1e-4, rtol=0)


def test_half_precision_loses_no_place():
    volume = blob((45.0, 38.0, 50.0))
    lattice = Lattice.around(SHAPE, SPACING, NORMALS[3], 2.6)
    torch.testing.assert_close(
        lattice.sample(volume.half(), SPACING, 0.0), lattice.sample(volume, SPACING, 0.0), atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("normal", [*NORMALS, (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_windows_hold_all_that_the_way_back_looks_at(normal):
    lattice = Lattice.around(SHAPE, SPACING, np.array(normal), 2.6)
    marked = torch.zeros(lattice.shape)
    for start in range(0, lattice.shape[0], 3):
        stop = min(start + 3, lattice.shape[0])
        rows, columns = lattice.window(start, stop, SHAPE, SPACING)
        marked[start:stop, rows, columns] = 1.0
    assert lattice.back(marked, SHAPE, SPACING).min() == pytest.approx(1.0, abs=1e-4)


def test_windows_spare_much_of_the_planes():
    for normal in NORMALS:
        lattice = Lattice.around(SHAPE, SPACING, normal, 2.6)
        spared = 0
        for plane in range(lattice.shape[0]):
            rows, columns = lattice.window(plane, plane + 1, SHAPE, SPACING)
            spared += lattice.shape[1] * lattice.shape[2]
            spared -= (rows.stop - rows.start) * (columns.stop - columns.start)
        assert spared > 0.15 * np.prod(lattice.shape)


# Training images.


def test_published_width_has_62_million_parameters():
    network = RECIPE.network("network", options_for("mpunet"))
    assert sum(weights.numel() for weights in network.parameters()) == 62_187_119


def test_pixels_have_the_spacing_in_plane():
    for grid in (64, 128, 512):
        assert step_of(StandardGrid(grid).spacing_mm) == pytest.approx(334.0 / grid)


def test_an_image_is_334_mm_wide_unless_asked_otherwise():
    assert example(patch=None).stack.shape == (1, 64, 64)
    drawn = example(patch=48)
    assert drawn.stack.shape == drawn.truth.shape == drawn.counted.shape == (1, 48, 48)
    assert set(drawn.truth.unique().tolist()) <= {0.0, 1.0}
    assert set(drawn.counted.unique().tolist()) <= {0.0, 1.0}


def test_an_example_is_a_pure_function_of_its_arguments():
    for seed in range(6):
        one, same = example(seed), example(seed)
        assert torch.equal(one.stack, same.stack)
        assert torch.equal(one.truth, same.truth)
        assert torch.equal(one.counted, same.counted)
    assert not torch.equal(example(3).stack, example(4).stack)


def test_a_positive_plane_meets_the_truth():
    for seed in range(12):
        assert example(seed, vary=False, positive_share=1.0).truth.sum() > 0
    without = toy_cut(1)
    without.truth.zero_()
    without.positive_slices.update({view: np.zeros(0, np.intp) for view in without.positive_slices})
    turn = Turn(tiny(positive_share=1.0), GRID_SIZE, 0, 10)
    drawn = RECIPE.example(without, "network", np.random.default_rng(0), turn)
    assert drawn.truth.sum() == 0
    assert drawn.counted.sum() > 0


def test_an_unvaried_example_lies_on_one_of_the_planes():
    cut = toy_cut(1)
    z, y, x = places_mm(cut.signal.shape, cut.spacing_mm).unbind(-1)
    normals = plane_normals(0)
    # The signal tells the depth along one normal; only images of that plane are constant.
    depth = (torch.stack([z, y, x], dim=-1) @ torch.from_numpy(normals[2])).float()
    flat = toy_cut(1)
    flat.signal.copy_(depth.half() / 16)
    constant = 0
    for seed in range(12):
        turn = Turn(tiny(patch=16), GRID_SIZE, 0, 10, False)
        drawn = RECIPE.example(flat, "network", np.random.default_rng(seed), turn)
        middle = drawn.stack[drawn.counted > 0]
        constant += bool(middle.max() - middle.min() < 0.05)
    assert 0 < constant < 12


def test_an_image_lies_inside_the_scan_if_it_can_and_holds_its_place():
    cut, rng = toy_cut(1), np.random.default_rng(0)
    size = np.array(cut.signal.shape) * cut.spacing_mm
    for normal in NORMALS:
        anchor = size * (0.1, 0.5, 0.8)
        whole = Lattice.around(cut.signal.shape, cut.spacing_mm, normal, 5.0)
        image = _image_through(cut, normal, anchor, 5.0, 16, rng)
        within = (image.directions @ (anchor - image.origin_mm)) / 5.0
        assert abs(within[0]) < 1e-9
        assert np.all((within[1:] >= -1e-9) & (within[1:] <= 15 + 1e-9))
        corner = image.directions @ (image.origin_mm - whole.origin_mm) / 5.0
        assert np.all(corner[1:] >= -1e-9)
        assert np.all(corner[1:] + 15 <= np.array(whole.shape[1:]) - 1 + 1e-9)
        large = _image_through(cut, normal, anchor, 5.0, 160, rng)
        middle = large.directions @ (large.origin_mm - whole.origin_mm) / 5.0 + 79.5
        np.testing.assert_allclose(middle[1:], (np.array(whole.shape[1:]) - 1) / 2.0)


def test_a_deformation_has_the_same_size_in_millimetres_on_every_grid():
    for seed in range(4):
        sizes = []
        for side, step_mm in ((64, 5.2), (128, 2.6), (256, 1.3)):
            moved = _deformation(side, step_mm, np.random.default_rng(seed))
            assert moved.shape == (2, side, side)
            assert moved.dtype == torch.float32
            inner = slice(side // 4, -side // 4)
            sizes.append(float(moved[:, inner, inner].square().mean().sqrt()) * step_mm)
        assert max(sizes) < 5.0
        assert max(sizes) < 2.0 * min(sizes)


def test_a_third_of_the_images_is_deformed(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "segmentation.baselines.mpunet._deformation",
        lambda side, step_mm, rng: drawn.append(side) or torch.zeros(2, side, side),
    )
    for seed in range(60):
        example(seed, patch=16)
    assert 10 <= len(drawn) <= 30
    drawn.clear()
    example(0, vary=False, patch=16)
    assert not drawn


def test_the_loss_is_the_cross_entropy_of_marked_pixels():
    batch = Batch.of([example(seed, positive_share=1.0) for seed in range(3)])
    output = torch.linspace(-3, 3, batch.stack.numel()).view(batch.stack.shape)
    loss, dice = RECIPE.loss(output, batch, tiny())
    marked = batch.counted > 0
    expected = functional.binary_cross_entropy_with_logits(output[marked], batch.truth[marked])
    torch.testing.assert_close(loss, expected)
    assert 0.0 < dice < 1.0


# Prediction.


def test_a_crop_of_odd_size_is_answered_by_each_plane():
    options = tiny()
    signal = toy_cut(1).signal.float()[:7, :21, :30].contiguous()
    seen = []
    with torch.no_grad():
        found = RECIPE.probabilities(
            forwards(RECIPE, options), Crop(signal, AIR, SPACING), options, lambda *step: seen.append(step)
        )
    assert found.shape == (6, 7, 21, 30)
    assert found.dtype == torch.float32
    assert 0.0 <= found.min() < found.max() <= 1.0
    assert seen[-1][0] == "plane 6"
    assert seen[-1][1] == seen[-1][2]


def test_each_plane_brings_back_what_its_network_says():
    # A network that answers with its input must give the signal back, through every plane.
    options = tiny()
    signal = blob((45.0, 38.0, 50.0), 16.0) - 0.5
    with torch.no_grad():
        found = RECIPE.probabilities({"network": lambda stack: stack}, Crop(signal, AIR, SPACING), options)
    expected = torch.sigmoid(signal)
    inside = (slice(2, -2), slice(3, -3), slice(3, -3))
    for view in found:
        assert (view - expected)[inside].abs().max() < 0.01


def test_a_scan_of_one_voxel_is_answered():
    options = tiny()
    crop = Crop(torch.full((1, 1, 1), 0.4), AIR, SPACING)
    assert RECIPE.probabilities({"network": lambda stack: stack}, crop, options).shape == (6, 1, 1, 1)


def test_usual_and_learned_fusion_are_offered():
    assert options_for("mpunet").rule == "mean"
    assert {"weighted", "logistic"} <= set(RECIPE.rules)


def test_it_learns_a_toy():
    options = tiny(batch_size=8, learning_rate=1e-2)
    assert learns(RECIPE, options, 0) < 0.5
    assert learns(RECIPE, options, 40) > 0.55
