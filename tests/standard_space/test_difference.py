"""Differences: any part is that part of the whole, wherever blocks end."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from standard_space.difference import BLOCK, Difference, read_difference, write_synthetic_scan

HEAD = {"patient": "p", "scan": "a", "day": 0.0, "grid": 512, "content_sha256": "0" * 64, "kind": "scan"}


def some(rng: np.random.Generator, count: int, largest: int) -> Difference:
    index = np.cumsum(rng.integers(1, largest, count)).astype(np.int64)
    return Difference(index, rng.normal(0, 0.1, count).astype(np.float16), rng.random(count) < 0.7)


@pytest.mark.parametrize(
    ("count", "largest"), [(0, 2), (1, 2), (7, 90_000), (BLOCK, 3), (BLOCK + 1, 3), (3 * BLOCK + 5, 40)]
)
def test_parts_and_the_whole(tmp_path: Path, count: int, largest: int) -> None:
    rng = np.random.default_rng(count)
    written = some(rng, count, largest)
    path = tmp_path / "a.h5"
    digest = write_synthetic_scan(
        path, HEAD, written, scan="a-sim1", day=1.0, infected_voxels=3, provenance={}
    )
    assert digest == written.content_sha256("0" * 64)
    last = int(written.index[-1]) if count else 10
    with h5py.File(path, "r") as file:
        whole = read_difference(file)
        for name in ("index", "signal", "infection"):
            np.testing.assert_array_equal(getattr(whole, name), getattr(written, name))
        for _ in range(20):
            first, end = sorted(rng.integers(-5, last + 5, 2).tolist())
            inside = (written.index >= first) & (written.index < end)
            for part in (read_difference(file, first, end), whole.part(first, end)):
                for name in ("index", "signal", "infection"):
                    np.testing.assert_array_equal(getattr(part, name), getattr(written, name)[inside])


def test_the_hash_tells_sources_and_voxels_apart() -> None:
    one = some(np.random.default_rng(0), 30, 9)
    moved = Difference(one.index + 1, one.signal, one.infection)
    other = Difference(one.index, one.signal, ~one.infection)
    digests = {d.content_sha256(s) for d in (one, moved, other) for s in ("0" * 64, "1" * 64)}
    assert len(digests) == 6
