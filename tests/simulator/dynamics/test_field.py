import numpy as np
import pytest

from simulator.dynamics.field import FIELD_LEVELS, field_keys, fill_field, lattice_steps
from simulator.dynamics.hashing import as_seed

N = 36


def field(correlation: float, seed: int, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> np.ndarray:
    result = np.zeros(N**3, np.uint8)
    fill_field(
        np.arange(N**3, dtype=np.int32), 0, N**3, N, N, lattice_steps(spacing, correlation),
        field_keys(as_seed(seed)), result,
    )  # fmt: skip
    return result.reshape(N, N, N)


def correlation_at(fields: list[np.ndarray], lag: int, axis: int) -> float:
    centred = [np.moveaxis(f.astype(float) - (FIELD_LEVELS - 1) / 2, axis, 0) for f in fields]
    return sum((f[lag:] * f[: N - lag]).mean() for f in centred) / sum((f**2).mean() for f in centred)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_correlation_length_means_what_it_says(axis: int) -> None:
    fields = [field(4.0, seed) for seed in range(10)]
    assert correlation_at(fields, 4, axis) == pytest.approx(0.5, abs=0.1)
    assert correlation_at(fields, 1, axis) > 0.9
    assert abs(correlation_at(fields, 12, axis)) < 0.1


def test_millimetres_not_voxels() -> None:
    fields = [field(4.0, seed, (2.0, 1.0, 0.5)) for seed in range(10)]
    assert correlation_at(fields, 2, 0) == pytest.approx(0.5, abs=0.1)
    assert correlation_at(fields, 8, 2) == pytest.approx(0.5, abs=0.1)


def test_spread_and_range() -> None:
    values = np.concatenate([field(3.0, seed).ravel() for seed in range(6)]).astype(float)
    assert values.mean() == pytest.approx((FIELD_LEVELS - 1) / 2, abs=4)
    assert 22 < values.std() < 38
    assert values.max() < FIELD_LEVELS
    assert ((values == 0) | (values == FIELD_LEVELS - 1)).mean() < 0.06


def test_seed_and_switch() -> None:
    assert np.array_equal(field(4.0, 1), field(4.0, 1))
    assert not np.array_equal(field(4.0, 1), field(4.0, 2))
    assert (field(0.0, 1) == 0).all()
