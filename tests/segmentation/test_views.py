from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from segmentation.views import (
    OFFSETS_MM,
    VIEWS,
    as_planes,
    normal_axis,
    plane_axes,
    slab_of,
    stacks,
    stacks_of_slab,
)
from standard_space.errors import UsageError
from standard_space.grid import StandardGrid

AIR = -0.25


def twin(
    volume: NDArray[np.float32], view: str, index: int, spacing: tuple[float, ...]
) -> NDArray[np.float64]:
    """Slow, obvious: every slice by np.interp-like blending of whole planes taken one by one."""
    axis = {"xy": 0, "xz": 1, "yz": 2}[view]

    def plane(k: int) -> NDArray[np.float64]:
        if 0 <= k < volume.shape[axis]:
            return np.take(volume, k, axis=axis).astype(np.float64)
        rest = [n for a, n in enumerate(volume.shape) if a != axis]
        return np.full(rest, AIR)

    out = []
    for offset in (-5, -2, 0, 2, 5):
        position = index + offset / spacing[axis]
        below = math.floor(position)
        out.append((1 - (position - below)) * plane(below) + (position - below) * plane(below + 1))
    return np.stack(out)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("size", [16, 64, 512])
def test_stacks_equal_the_twin_at_edges_and_inside(view: str, size: int) -> None:
    rng = np.random.default_rng(1)
    volume = rng.normal(size=(12, 14, 16)).astype(np.float32)
    spacing = StandardGrid(size).spacing_mm
    last = volume.shape[normal_axis(view)] - 1
    indices = [0, 1, 6, last]
    found = stacks(torch.from_numpy(volume), view, indices, spacing, AIR)
    expected = np.stack([twin(volume, view, index, spacing) for index in indices])
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("size", [16, 32, 64, 128, 256])
def test_five_slices_differ_at_every_grid(view: str, size: int) -> None:
    volume = torch.from_numpy(np.random.default_rng(0).normal(size=(size, 16, 16)).astype(np.float32))
    volume = volume.permute({"xy": (0, 1, 2), "xz": (1, 0, 2), "yz": (1, 2, 0)}[view])
    stack = stacks(volume, view, [size // 2], StandardGrid(size).spacing_mm, AIR)[0]
    for a in range(5):
        for b in range(a):
            assert float((stack[a] - stack[b]).abs().max()) > 0.05


def test_a_ramp_along_the_normal_gives_its_value_in_millimetres() -> None:
    for view in VIEWS:
        spacing = StandardGrid(64).spacing_mm
        axis = normal_axis(view)
        shape = [1, 1, 1]
        shape[axis] = 64
        ramp_mm = (torch.arange(64, dtype=torch.float64) * spacing[axis]).reshape(shape).expand(64, 64, 64)
        stack = stacks(ramp_mm, view, [30], spacing, AIR)[0]
        for channel, offset in enumerate(OFFSETS_MM):
            torch.testing.assert_close(
                stack[channel], torch.full((64, 64), 30 * spacing[axis] + offset, dtype=torch.float64)
            )


def test_rows_and_columns_are_as_documented() -> None:
    volume = torch.arange(2 * 3 * 4, dtype=torch.float32).reshape(2, 3, 4)
    assert torch.equal(as_planes(volume, "xy")[1], volume[1])
    assert torch.equal(as_planes(volume, "yz")[2], volume[:, :, 2])
    assert torch.equal(as_planes(volume, "xz")[2], volume[:, 2, :])
    assert [plane_axes(view) for view in VIEWS] == [(1, 2), (0, 1), (0, 2)]
    as_planes(volume, "yz")[3, 1, 2] = -7.0
    assert volume[1, 2, 3] == -7.0


def test_a_crop_is_a_part_of_the_whole() -> None:
    volume = torch.from_numpy(np.random.default_rng(2).normal(size=(9, 10, 11)).astype(np.float32))
    spacing = StandardGrid(128).spacing_mm
    for view in VIEWS:
        whole = stacks(volume, view, [0, 4], spacing, AIR)
        part = stacks(volume, view, [0, 4], spacing, AIR, rows=slice(2, 7), columns=slice(1, 8))
        assert torch.equal(part, whole[:, :, 2:7, 1:8])


def test_bad_requests_are_refused() -> None:
    volume = torch.zeros(4, 4, 4)
    with pytest.raises(UsageError, match="unknown view"):
        stacks(volume, "zz", [0], (1, 1, 1), AIR)
    with pytest.raises(UsageError, match="outside the volume"):
        stacks(volume, "xy", [4], (1, 1, 1), AIR)
    with pytest.raises(UsageError, match="outside the volume"):
        stacks(volume, "xy", [-1], (1, 1, 1), AIR)
    with pytest.raises(UsageError, match="3-D"):
        stacks(volume[0], "xy", [0], (1, 1, 1), AIR)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("start", "stop"), [(0, 3), (5, 9), (13, 16)])
def test_stacks_of_a_slab_are_the_gathered_ones(view: str, start: int, stop: int) -> None:
    volume = torch.from_numpy(np.random.default_rng(1).normal(size=(16, 16, 16)).astype(np.float32))
    spacing_mm, offsets_mm, air = (2.5, 1.7, 0.9), (-5.0, -2.0, 0.0, 2.0, 5.0), -0.25
    along = spacing_mm[normal_axis(view)]
    furthest = int(np.ceil(5.0 / along)) + 1
    slab = slab_of(as_planes(volume, view)[:, 2:14, 1:9], start, stop, furthest, air)
    found = stacks_of_slab(slab, furthest, furthest + stop - start, along, offsets_mm=offsets_mm)
    expected = stacks(
        volume, view, range(start, stop), spacing_mm, air, rows=slice(2, 14), columns=slice(1, 9)
    )
    assert torch.equal(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last)
