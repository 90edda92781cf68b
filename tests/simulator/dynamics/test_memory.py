import numpy as np

from simulator.dynamics.engine import Controls, advance, start_state
from simulator.dynamics.field import FIELD_LEVELS
from simulator.dynamics.memory import remember
from simulator.dynamics.neighbours import ANNOTATED, FREE, INFECTED
from tests.simulator.dynamics.twins import STATIONARY

SHAPE = (12, 14, 16)
SPACING_MM = (2.0, 1.0, 1.0)


def test_field_of_annotated_voxels_is_the_rank_of_their_surroundings() -> None:
    rng = np.random.default_rng(0)
    annotated = rng.random(SHAPE) < 0.7
    source = rng.normal(0.0, 0.2, SHAPE).astype(np.float32)
    source[0, 0, :2] = 9.0, -9.0  # beyond the model's range: clipped
    status = np.where(annotated, INFECTED | ANNOTATED, FREE).astype(np.uint8)
    voxels = rng.permutation(np.flatnonzero(annotated)).astype(np.int32)
    n = voxels.size
    region = (voxels % 2).astype(np.uint8)
    born = np.zeros(n, np.uint8)
    born[:5] = 1
    field = np.full(n, 200, np.uint8)
    remember(
        source.ravel(), status.ravel(), voxels, born, region, n, 2, np.array(SHAPE), SPACING_MM, 4.0, field
    )
    assert (field[:5] == 200).all()  # newborns keep theirs
    means = np.zeros(n)
    for i, v in enumerate(voxels):
        z, y, x = np.unravel_index(v, SHAPE)
        found = [
            min(max(source[q], -0.15), 0.5)
            for q in np.ndindex(SHAPE)
            if annotated[q]
            and abs(q[0] - z) in (0, 1)
            and abs(q[1] - y) in (0, 2)
            and abs(q[2] - x) in (0, 2)
        ]
        means[i] = np.mean(found)
    for r in (0, 1):
        mine = np.flatnonzero((region == r) & (born == 0))
        rank = means[mine].argsort().argsort()
        assert np.abs(field[mine] - FIELD_LEVELS * (rank + 0.5) / mine.size).max() < 2.5
        assert field[mine].max() < FIELD_LEVELS


def test_a_lesion_keeps_the_pattern_that_was_seen() -> None:
    z, y, x = np.indices((24, 40, 40))
    lesion = (z - 12) ** 2 + (y - 20) ** 2 + (x - 20) ** 2 < 10**2
    rng = np.random.default_rng(1)
    signal = rng.normal(-0.2, 0.02, lesion.shape).astype(np.float32)
    signal[lesion] = (0.012 * (x - 20) - 0.02 + rng.normal(0.0, 0.02, lesion.shape))[lesion]
    start = start_state(signal, lesion, np.ones_like(lesion), (1.0, 1.0, 1.0))

    def kept(controls: Controls) -> float:
        """Correlation between where a voxel lies on the gradient and its bin, ten days later."""
        state = advance(start.copy(), STATIONARY, 1000, seed=2, controls=controls)
        still = lesion.ravel()[state.index] & ~state.born
        return float(np.corrcoef(x.ravel()[state.index[still]], state.bin[still])[0, 1])

    alone = kept(Controls(consolidation_clustering=0.0, correlation_mm=0.0))
    assert kept(Controls()) > 0.9 > alone + 0.1
