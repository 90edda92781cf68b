"""The voxel engine: moves a lesion through time in jumps of whole transitions (DESIGN 3).

For every jump, numbers come first (`numbers`): how many voxels of each lesion end in which bin is an exact
multinomial with the rows of T^n, births with their ages are Poisson numbers. Births are placed among normal
voxels; who of the voxels that were there goes where is decided by rank (`ranking`). Numbers are drawn before and
whatever the morphology controls, so the chain is the exact mean as long as births find space
(`RunReport.exact`), and its V the covariance.

All randomness is a hash of (seed, purpose, voxel or counter, transition); work is proportional to infected
plus frontier voxels.
"""

from __future__ import annotations

from simulator.dynamics.controls import Controls
from simulator.dynamics.errors import DynamicsError
from simulator.dynamics.jumps import Run
from simulator.dynamics.parameters import TransitionParameters
from simulator.dynamics.report import RunReport
from simulator.dynamics.state import LesionState, start_state

RESULTS_REVISION = 1
"""Raised whenever the same state, W, seed and controls come to give other voxels; a part of every provenance."""

__all__ = ["RESULTS_REVISION", "Controls", "LesionState", "RunReport", "advance", "start_state"]


def advance(
    state: LesionState,
    parameters: TransitionParameters,
    n_transitions: int,
    *,
    jump: int = 10,
    seed: int,
    controls: Controls | None = None,
) -> LesionState:
    """Move a lesion `n_transitions` forward, IN PLACE.

    Parameters
    ----------
    state : LesionState
        Changed in place and returned; use `state.copy()` to keep the old one.
    parameters : TransitionParameters
        W, per transition of 1/100 day.
    n_transitions : int, >= 0
    jump : int, >= 1
        Transitions per jump; 1 is stepwise. A remainder is done in one shorter jump at the end. Expected
        counts do not depend on it.
    seed : int
        Same seed, same bytes; with the same seed, two calls whose first length is a multiple of `jump`
        equal one call.
    controls : Controls, optional
        Morphology; defaults to `Controls()`.

    Returns
    -------
    LesionState
        The same object; `state.report` is cumulative.

    Raises
    ------
    DynamicsError
        A bad number of transitions or jump length.

    Notes
    -----
    DESIGN 3, "The voxel engine"; T(W) of the paper, section III-C (DOI 10.1109/TMI.2020.3001810).
    """
    if int(n_transitions) != n_transitions or n_transitions < 0:
        raise DynamicsError(
            "the number of transitions must be a whole number", got=n_transitions, expected="0 or more",
            remedy="time runs forward; start from Y_t0 to go back",
        )  # fmt: skip
    if int(jump) != jump or jump < 1:
        raise DynamicsError("the jump must be a whole number of transitions", got=jump, expected="1 or more")
    if n_transitions == 0:
        return state
    run = Run(state, parameters, seed, controls if controls is not None else Controls())
    whole, rest = divmod(int(n_transitions), int(jump))
    for _ in range(whole):
        run.jump(state, int(jump))
    if rest:
        run.jump(state, rest)
    return state
