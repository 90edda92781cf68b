"""Synthetic pairs with known dynamics, made by the voxel engine from a stated prior (DESIGN 3).

The prior, per pair (uniform unless said otherwise):

- start: 5,000 to 60,000 infected voxels (log-uniform), in one to four balls; signals a mixture of ground glass
  (mean -0.08..0.06, s.d. 0.05..0.09) and consolidation (share 0.05..0.45, mean 0.12..0.35, s.d. 0.06..0.12), cut
  to [-0.15, 0.5): the quartiles of the observed lesions in shared/data/lesion_statistics.json lie inside;
- W: stiffness kappa 0.045..0.10 (log-uniform), absorption a 0.05..0.20 (log-uniform), equilibria 0.06..0.14 above
  -0.15 for ground glass and 0.04..0.16 above 0 for consolidation, which give g and c; conversion p_c 0.1..0.9 of
  1 - a; entry height 0.03..0.12; linked share 0..1; births per transition 0.05 to 1 % (log-uniform) of the
  start's voxels below 0. Draws that break a + g <= 1 or a + c <= 1 are drawn again;
- one to five days apart (100 to 500 transitions), then half as long again for the forecast;
- controls off for half of the pairs, the defaults for the other half;
- pairs whose later scans hold fewer than 500 voxels below or above 0, or leave the room, are drawn again.

Two harder kinds of pair share the rest of that prior:

- "small": a twentieth of the voxels (250 to 3,000), at least 30 below and above 0 later;
- "new": a third of the voxels, all in bin 0 as in Y_t0, births 0.5 to 3 % per transition; at least 200 below and
  above 0 later.

Counts come from the engine's own voxels: nothing is drawn from the chain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics.bins import N_BELOW
from simulator.dynamics.chain import propagate
from simulator.dynamics.engine import Controls, advance, start_state
from simulator.dynamics.parameters import TransitionParameters

GRID = 84
SPACING_MM = (1.0, 334 / 512, 334 / 512)
MOST_VOXELS = 200_000  # of 84^3 = 593 k: births always find room
KINDS = {"lesion": (1.0, 500), "small": (1 / 20, 30), "new": (1 / 3, 200)}
"""Kind of pair: size against the prior's, fewest voxels below and above 0 in the later scans."""
OFF = Controls(gamma=0.0, consolidation_clustering=0.0, correlation_mm=0.0)


@dataclass(frozen=True)
class Case:
    """A pair, the truth behind it, and what came later."""

    truth: TransitionParameters
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    transitions: int
    later: NDArray[np.float64]
    later_transitions: int
    default_controls: bool
    exact: bool


def draw_parameters(rng: np.random.Generator, below: float) -> TransitionParameters:
    """W from the prior, for a start with that many voxels below 0."""
    while True:
        kappa = float(np.exp(rng.uniform(np.log(0.045), np.log(0.10))))
        fall = float(np.exp(rng.uniform(np.log(0.05), np.log(0.20))))
        growth = fall * float(np.exp(rng.uniform(0.06, 0.14) / kappa))
        consolidation = fall * float(np.exp(rng.uniform(0.04, 0.16) / kappa))
        conversion = float(rng.uniform(0.1, 0.9)) * (1 - fall)
        births = float(np.exp(rng.uniform(np.log(0.0005), np.log(0.01))))
        entry, linked = float(rng.uniform(0.03, 0.12)), float(rng.uniform(0.0, 1.0))
        if fall + max(growth, consolidation) <= 1.0:
            return TransitionParameters(
                births, linked, entry, fall, growth, conversion, consolidation, kappa, max(below, 1.0)
            )


def draw_signals(rng: np.random.Generator, voxels: int) -> NDArray[np.float32]:
    """Signals of a start lesion from the prior."""
    dense = rng.random(voxels) < rng.uniform(0.05, 0.45)
    glass = rng.normal(rng.uniform(-0.08, 0.06), rng.uniform(0.05, 0.09), voxels)
    consolidation = rng.normal(rng.uniform(0.12, 0.35), rng.uniform(0.06, 0.12), voxels)
    return np.clip(np.where(dense, consolidation, glass), -0.149, 0.499).astype(np.float32)


def draw_mask(rng: np.random.Generator, voxels: float) -> NDArray[np.bool_]:
    """One to four balls of about that many voxels in all."""
    z, y, x = np.indices((GRID, GRID, GRID))
    mask = np.zeros((GRID, GRID, GRID), bool)
    balls = int(rng.integers(1, 5))
    radius = (voxels / balls * 3 / (4 * np.pi)) ** (1 / 3)
    for centre in rng.uniform(radius + 1, GRID - radius - 1, (balls, 3)):
        mask |= (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < radius**2
    return mask


def make_case(seed: int, kind: str = "lesion") -> Case:
    """One pair from the prior; the same seed gives the same pair. `kind` is a key of `KINDS`."""
    size, fewest = KINDS[kind]
    rng = np.random.default_rng([seed, 0xCA11])
    while True:
        mask = draw_mask(rng, size * float(np.exp(rng.uniform(np.log(5e3), np.log(6e4)))))
        signals = draw_signals(rng, int(mask.sum()))
        if kind == "new":
            signals[:] = -0.1475
        truth = draw_parameters(rng, float((signals < 0).sum()))
        if kind == "new":
            truth = replace(truth, birth_rate=float(rng.uniform(0.005, 0.03)))
        steps = int(rng.integers(100, 501))
        later_steps = steps // 2
        volume = np.full(mask.shape, -0.2, np.float32)
        volume[mask] = signals
        state = start_state(volume, mask, np.ones_like(mask), SPACING_MM)
        expected = [propagate(state.counts(), truth, steps + more) for more in (0, later_steps)]
        if any(p.sum() > MOST_VOXELS for p in expected):
            continue
        if any(min(p[:N_BELOW].sum(), p[N_BELOW:].sum()) < fewest for p in expected):
            continue
        controls = Controls() if seed % 2 else OFF
        before = state.counts()
        advance(state, truth, steps, jump=10, seed=seed, controls=controls)
        after = state.counts()
        advance(state, truth, later_steps, jump=10, seed=seed, controls=controls)
        return Case(
            truth, before, after, steps, state.counts(), later_steps, bool(seed % 2), state.report.exact
        )


def truth_at(truth: TransitionParameters, reference: float) -> TransitionParameters:
    """The same births with another G_ref: nu phi and nu (1 - phi) G_ref stay as they are."""
    linked = truth.birth_rate * truth.linked_share
    constant = truth.birth_rate * (1 - truth.linked_share) * truth.reference_ggo_voxels / reference
    values = truth.as_array()
    values[0], values[1] = linked + constant, linked / (linked + constant)
    return TransitionParameters.from_array(values, reference)
