"""The voxel engine: moves a lesion through time in jumps of whole transitions (DESIGN 3).

For every jump: expected births with their ages come from the chain and are drawn as Poisson numbers per
final bin; they are placed among normal voxels. The voxels that were there are moved: how many go where is an
exact multinomial with the rows of T^n, who goes is decided by rank. Counts are exact whatever the
morphology controls, so the chain is the exact mean as long as births find space (`RunReport.exact`).

All randomness is a hash of (seed, purpose, voxel or counter, transition); work is proportional to infected
plus frontier voxels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics.bins import N_BELOW, N_BINS
from simulator.dynamics.controls import Controls
from simulator.dynamics.errors import DynamicsError, ParameterError
from simulator.dynamics.field import field_keys, fill_field, lattice_steps
from simulator.dynamics.hashing import (
    PURPOSE_BIRTH_BIN,
    PURPOSE_OFFSET,
    PURPOSE_PLACE,
    PURPOSE_SCORE_NOISE,
    PURPOSE_SCORE_TIE,
    PURPOSE_SEED_NUMBER,
    PURPOSE_SEED_PLACE,
    as_seed,
    stream_key,
)
from simulator.dynamics.multinomial import draw_binomial
from simulator.dynamics.neighbours import enter_neighbourhoods
from simulator.dynamics.parameters import TransitionParameters
from simulator.dynamics.placement import (
    ROUND_DIVISOR,
    ROUND_LEAST,
    choose_from_frontier,
    choose_seeds,
    gather_frontier,
    weight_table,
)
from simulator.dynamics.ranking import (
    MAX_SHARED,
    SCORE_LEVELS,
    bonus_table,
    noise_width,
    plan_moves,
    score_voxels,
)
from simulator.dynamics.report import RunReport
from simulator.dynamics.slots import (
    apply_moves,
    draw_births,
    draw_moves,
    drop_unplaced,
    give_bins,
    insert_newborns,
)
from simulator.dynamics.state import LesionState, start_state
from simulator.dynamics.transitions import births_in_jump, transition_rows

__all__ = ["Controls", "LesionState", "RunReport", "advance", "start_state"]

_ZERO = np.uint64(0)


def _key(seed: np.uint64, purpose: int, transition: int) -> np.uint64:
    """`stream_key` for Python code: Numba hands unsigned results back as plain integers."""
    return np.uint64(stream_key(seed, purpose, transition))


class _Run:
    """What stays the same over one call of `advance`, and its scratch space."""

    def __init__(self, state: LesionState, parameters: TransitionParameters, seed: int, controls: Controls):
        self.w = parameters.as_array()
        self.g_ref = parameters.reference_ggo_voxels
        self.seed = as_seed(seed)
        self.controls = controls
        self.table = weight_table(int(state._weights.sum()), controls.gamma)
        self.bonus = bonus_table(controls.consolidation_clustering)
        self.steps = lattice_steps(state.spacing_mm, controls.correlation_mm)
        self.keys = field_keys(self.seed)
        self.levels = np.zeros((N_BINS, SCORE_LEVELS), np.int32)
        self.birth_levels = np.zeros((1, SCORE_LEVELS), np.int32)
        self.no_bonus = np.zeros(27, np.int64)
        self.shared_destination = np.zeros(MAX_SHARED, np.int16)
        self.shared_left = np.zeros(MAX_SHARED, np.int32)
        self.scores = np.zeros(state._voxel.size, np.uint16)
        self.cumulative = np.zeros(state._frontier.size, np.int64)
        self.chosen = np.zeros(1024, state._kind)
        wanted = (int(self.seed), controls.correlation_mm)
        if state._field_of != wanted:
            self.fill(state, 0, state.n)
            state._field_of = wanted

    def fill(self, state: LesionState, first: int, last: int) -> None:
        fill_field(
            state._voxel, first, last, state.shape[1], state.shape[2], self.steps, self.keys, state._field
        )

    def jump(self, state: LesionState, rows: NDArray[np.float64], steps: int) -> None:
        report = state.report
        when = state.transition
        births = draw_births(self.expected_births(state, steps), self.seed, when)
        moves = draw_moves(state._counts, rows, self.seed, when)
        report.born_and_recovered += int(births[0])
        wanted = int(births[1:].sum())
        recoveries = int(moves[:, 0].sum())
        falling = int(moves[N_BELOW:, 1 : N_BELOW + 1].sum())
        state.reserve(wanted, wanted + falling, recoveries)
        if self.scores.size < state._voxel.size:
            self.scores = np.zeros(state._voxel.size, np.uint16)
        if self.cumulative.size < state._frontier.size:
            self.cumulative = np.zeros(state._frontier.size, np.int64)
        if self.chosen.size < wanted:
            self.chosen = np.zeros(2 * wanted, state._kind)
        n_old = state.n
        # Births see the lesion as it was before the moves; they take part from the next jump on.
        placed = self.place(state, wanted) if wanted else 0
        report.births += placed
        report.unplaced += wanted - placed
        if wanted > placed:
            drop_unplaced(births, wanted - placed, _key(self.seed, PURPOSE_BIRTH_BIN, when))
        noise = noise_width(steps)
        if placed:
            self.rank_newborns(state, births, n_old, noise)
        self.move(state, moves, n_old, noise)
        counts = moves[:, 1:].sum(axis=0)
        counts += births[1:]
        report.recovered += recoveries
        state._n_free += recoveries
        state._counts = counts
        report.saturated = int(counts[N_BINS - 1])
        report.jumps += 1
        report.transitions += steps
        state.transition += steps

    def expected_births(self, state: LesionState, steps: int) -> NDArray[np.float64]:
        """Means per final destination; far beyond the free places they are cut, as the rest would be lost."""
        means = births_in_jump(state._counts, self.w, self.g_ref, steps)
        total = float(means.sum())
        if not np.isfinite(total):
            raise ParameterError(
                "births grow beyond all numbers within one jump", got=f"birth_rate {self.w[0]}",
                remedy="lower birth_rate or linked_share",
            )  # fmt: skip
        most = 2.0 * state._n_free + 1000.0
        return means * (most / total) if total > most else means

    def place(self, state: LesionState, wanted: int) -> int:
        """Place births in rounds; return how many found a voxel."""
        when = state.transition
        placed = 0
        counter = seed_counter = _ZERO
        place_key = _key(self.seed, PURPOSE_PLACE, when)
        seed_key = _key(self.seed, PURPOSE_SEED_PLACE, when)
        to_seed = 0
        if self.controls.seeded_share > 0:
            number_key = _key(self.seed, PURPOSE_SEED_NUMBER, when)
            to_seed, _ = draw_binomial(wanted, self.controls.seeded_share, number_key, _ZERO)
        if to_seed:
            found, following = choose_seeds(
                to_seed, True, state._status, state._ggo_weight, state._above, self.chosen, 0,
                seed_key, seed_counter,
            )  # fmt: skip
            seed_counter = np.uint64(following)
            state.report.seeded += found
            self.infect(state, found)
            placed += found
        while placed < wanted and state._n_free > 0:
            state._n_frontier = gather_frontier(
                state._frontier, state._n_frontier, state._status, state._ggo_weight, self.table,
                self.cumulative,
            )  # fmt: skip
            if state._n_frontier == 0:
                found, following = choose_seeds(
                    min(wanted - placed, ROUND_LEAST), False, state._status, state._ggo_weight,
                    state._above, self.chosen, 0, seed_key, seed_counter,
                )  # fmt: skip
                seed_counter = np.uint64(following)
                state.report.seeded_without_frontier += found
                if found == 0:
                    break
            else:
                largest = max(ROUND_LEAST, state._n_frontier // ROUND_DIVISOR)
                found, following = choose_from_frontier(
                    state._frontier, state._n_frontier, self.cumulative, min(wanted - placed, largest),
                    state._status, self.chosen, place_key, counter,
                )  # fmt: skip
                counter = np.uint64(following)
            self.infect(state, found)
            placed += found
        return placed

    def infect(self, state: LesionState, number: int) -> None:
        """Apply a round: the first `number` chosen voxels become infected."""
        if number == 0:
            return
        insert_newborns(
            self.chosen, number, state.n, state._voxel, state._bin, state._offset, state._born,
            _key(self.seed, PURPOSE_OFFSET, state.transition),
        )  # fmt: skip
        state._n_frontier = enter_neighbourhoods(
            state._voxel, state._bin, state.n, state.n + number, N_BELOW, state._dims, state._steps,
            state._weights, state._status, state._ggo_weight, state._above, state._frontier,
            state._n_frontier,
        )  # fmt: skip
        self.fill(state, state.n, state.n + number)
        state.n += number
        state._n_free -= number

    def rank_newborns(self, state: LesionState, births: NDArray[np.int64], n_old: int, noise: int) -> None:
        """Give this jump's newborns their final bins: where the field is high they enter higher."""
        noise_key = _key(self.seed, PURPOSE_SCORE_NOISE, state.transition)
        number = np.array([state.n - n_old], np.int64)
        score_voxels(
            state._voxel, state._bin, state._field, state._above, self.no_bonus, n_old, state.n, noise,
            noise_key, number, self.scores, self.birth_levels,
        )  # fmt: skip
        births[0] = 0
        plan_moves(self.birth_levels, births[None, :], number, self.shared_destination, self.shared_left)
        state._n_frontier = give_bins(
            n_old, state.n, state._voxel, state._bin, self.scores, self.birth_levels,
            self.shared_destination, self.shared_left,
            _key(self.seed, PURPOSE_SCORE_TIE, state.transition), state._dims, state._steps,
            state._weights, state._status, state._ggo_weight, state._above, state._frontier,
            state._n_frontier,
        )  # fmt: skip

    def move(self, state: LesionState, moves: NDArray[np.int64], n_old: int, noise: int) -> None:
        """Move the voxels that were there before the births."""
        noise_key = _key(self.seed, PURPOSE_SCORE_NOISE, state.transition)
        tie_key = _key(self.seed, PURPOSE_SCORE_TIE, state.transition)
        score_voxels(
            state._voxel, state._bin, state._field, state._above, self.bonus, 0, n_old, noise,
            noise_key, state._counts, self.scores, self.levels,
        )  # fmt: skip
        plan_moves(self.levels, moves, state._counts, self.shared_destination, self.shared_left)
        state.n, state._n_frontier, state._n_gone = apply_moves(
            n_old, state.n, state._voxel, state._bin, state._offset, state._field, state._born,
            self.scores, self.levels, self.shared_destination, self.shared_left, tie_key, state._dims,
            state._steps, state._weights, state._status, state._ggo_weight, state._above,
            state._frontier, state._n_frontier, state._gone_voxel, state._gone_offset,
            state._gone_born, state._n_gone,
        )  # fmt: skip


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
    run = _Run(state, parameters, seed, controls if controls is not None else Controls())
    whole, rest = divmod(int(n_transitions), int(jump))
    if whole:
        rows = transition_rows(run.w, int(jump))
        for _ in range(whole):
            run.jump(state, rows, int(jump))
    if rest:
        run.jump(state, transition_rows(run.w, rest), rest)
    return state
