"""One jump of the voxel engine: numbers are drawn, births placed, voxels moved (DESIGN 3).

`Run` holds what stays the same over many jumps and all scratch space, so that a jump allocates nothing that
grows with the lesion.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics.bins import N_BELOW, N_BINS
from simulator.dynamics.controls import Controls
from simulator.dynamics.field import field_keys, fill_field, lattice_steps
from simulator.dynamics.hashing import (
    PURPOSE_BIRTH_BIN,
    PURPOSE_BIRTH_REGION,
    PURPOSE_OFFSET,
    PURPOSE_PLACE,
    PURPOSE_SCORE,
    PURPOSE_SCORE_TIE,
    PURPOSE_SEED_NUMBER,
    PURPOSE_SEED_PLACE,
    as_seed,
    stream_key,
)
from simulator.dynamics.memory import remember
from simulator.dynamics.multinomial import draw_binomial
from simulator.dynamics.neighbours import enter_neighbourhoods, largest_weight
from simulator.dynamics.numbers import draw_numbers, part_length
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
    Pushes,
    one_level_per_bin,
    plan_moves,
    score_voxels,
    shared_entries,
)
from simulator.dynamics.rates import entry_distribution, rise_probabilities
from simulator.dynamics.regions import MAX_REGIONS
from simulator.dynamics.slots import (
    apply_moves,
    drop_unplaced,
    give_bins,
    insert_newborns,
    split_births,
)
from simulator.dynamics.state import LesionState
from simulator.dynamics.transitions import N_DESTINATIONS, transition_rows

_ZERO = np.uint64(0)


def _key(seed: np.uint64, purpose: int, transition: int) -> np.uint64:
    """`stream_key` for Python code: Numba hands unsigned results back as plain integers."""
    return np.uint64(stream_key(seed, purpose, transition))


class Run:
    """What stays the same over one call of `advance`, and its scratch space."""

    def __init__(self, state: LesionState, parameters: TransitionParameters, seed: int, controls: Controls):
        self.w = parameters.as_array()
        self.g_ref = parameters.reference_ggo_voxels
        self.seed = as_seed(seed)
        self.controls = controls
        self.table = weight_table(largest_weight(state._weights), controls.gamma)
        self.steps = lattice_steps(state.spacing_mm, controls.correlation_mm)
        self.keys = field_keys(self.seed)
        self.rise, self.entry = np.empty(N_BINS), np.empty(N_BELOW)
        rise_probabilities(self.w, self.rise, np.empty(N_BINS))
        entry_distribution(self.w[2], self.entry, np.empty(N_BELOW))
        self.here = np.zeros((MAX_REGIONS, N_BINS), np.int64)
        self.newborn = np.zeros((2, N_BINS), np.int64)
        self.born_moves = np.zeros(N_DESTINATIONS, np.int64)
        self.rows, self.part = np.zeros((N_BINS, N_DESTINATIONS)), 0
        self.means = np.zeros(N_DESTINATIONS)
        self.births = np.zeros(N_DESTINATIONS, np.int64)
        self.births_left = np.zeros(N_DESTINATIONS, np.int64)
        self.region_births = np.zeros((MAX_REGIONS, N_DESTINATIONS), np.int64)
        self.region_counts = np.zeros(MAX_REGIONS, np.int64)
        self.region_moves = np.zeros((MAX_REGIONS, N_DESTINATIONS), np.int64)
        self.levels = np.zeros((0, 0), np.int32)
        self.chain_scratch = np.zeros((2, N_BINS))
        self.cumulative_rows = np.zeros(N_DESTINATIONS + 1)
        self.stack = np.zeros((32, 3), np.int64)
        self.shared_destination = np.zeros(0, np.int16)
        self.scores = np.zeros(0, np.uint16)
        self.cumulative = np.zeros(0, np.int64)
        self.chosen = np.zeros(1024, state._kind)
        self.pushes, self.steps_scored = Pushes(controls, 1), 1
        # ordered lesions need the sums over their bins only, so one row is used again and again
        kept = 1 if self.pushes.ordered else MAX_REGIONS * N_BINS
        self.moves = np.zeros((kept, N_DESTINATIONS), np.int64)
        wanted = (int(self.seed), controls.correlation_mm)
        if state._field_of != wanted:
            remembers = state._remembers and controls.correlation_mm > 0
            if not remembers or state._born[: state.n].any():
                self.fill(state, 0, state.n)
            if remembers:
                remember(
                    state._source.reshape(-1), state._status, state._voxel, state._born, state._region,
                    state.n, state._n_regions, state._dims, state.spacing_mm, controls.correlation_mm,
                    state._field,
                )  # fmt: skip
            state._field_of = wanted

    def fit_scratch(self, state: LesionState, wanted: int) -> None:
        """Make scratch space fit the state; it grows by half at a time, so hardly ever."""
        rows = self.pushes.rows_per_region * MAX_REGIONS
        if self.levels.shape[0] < rows or self.levels.shape[1] < self.pushes.levels:
            self.levels = np.zeros((rows, self.pushes.levels), np.int32)
        entries = shared_entries(rows, state._voxel.size)
        if self.shared_destination.size < entries:
            self.shared_destination = np.zeros(entries, np.int16)
            self.shared_left = np.zeros(entries, np.int32)
        if self.scores.size < state._voxel.size:
            self.scores = np.zeros(state._voxel.size, np.uint16)
        if self.cumulative.size < state._frontier.size:
            self.cumulative = np.zeros(state._frontier.size, np.int64)
        if self.chosen.size < wanted:
            self.chosen = np.zeros(2 * wanted, state._kind)

    def fill(self, state: LesionState, first: int, last: int) -> None:
        fill_field(
            state._voxel, first, last, state.shape[1], state.shape[2], self.steps, self.keys, state._field
        )

    def jump(self, state: LesionState, steps: int) -> None:
        """Play `steps` transitions: at once, or in parts when voxels are independent of each other."""
        part = part_length(steps, self.w[0], self.w[1])
        if part != self.part:
            self.rows, self.part = transition_rows(self.w, part), part
        if self.pushes.ordered:
            self.play(state, steps // part)
            return
        # numbers per bin are needed then, and a jump of several parts has them per lesion only
        for _ in range(steps // part):
            self.play(state, 1)

    def play(self, state: LesionState, parts: int) -> None:
        """One draw, one placement, one order: `parts` times the length of a part."""
        report = state.report
        when, steps = state.transition, self.part * parts
        n_old, regions = state.n, state._n_regions
        births = self.births
        if steps != self.steps_scored:
            self.pushes, self.steps_scored = Pushes(self.controls, steps), steps
        self.fit_scratch(state, 0)
        draw_numbers(
            state._counts, regions, self.w, self.g_ref, self.rise, self.entry, self.rows, self.part, parts,
            2.0 * state._n_free + 1000.0, self.seed, when, self.moves, self.region_moves, births, self.here,
            self.newborn, self.born_moves, self.chain_scratch, self.means, self.cumulative_rows, self.stack,
        )  # fmt: skip
        recoveries = int(self.region_moves[:regions, 0].sum())
        report.born_and_recovered += int(births[0])
        wanted = int(births[1:].sum())
        state.reserve(wanted, recoveries)
        self.fit_scratch(state, wanted)
        # Births see the lesion as it was before the moves; they take part from the next jump on.
        placed = self.place(state, wanted) if wanted else 0
        report.births += placed
        report.unplaced += wanted - placed
        if wanted > placed:
            drop_unplaced(births, wanted - placed, _key(self.seed, PURPOSE_BIRTH_BIN, when))
        self.rank_newborns(state, n_old)
        self.move(state, n_old, regions)
        self.region_moves[regions : state._n_regions] = 0
        np.add(self.region_moves[:, 1:], self.region_births[:, 1:], out=state._counts)
        report.recovered += recoveries
        state._n_free += recoveries
        report.saturated = int(state._counts[:, N_BINS - 1].sum())
        report.jumps += 1
        report.transitions += steps
        state.transition += steps

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
                to_seed, True, state._status, state._near, self.chosen, 0,
                seed_key, seed_counter,
            )  # fmt: skip
            seed_counter = np.uint64(following)
            state.report.seeded += found
            self.infect(state, found)
            placed += found
        while placed < wanted and state._n_free > 0:
            state._n_frontier = gather_frontier(
                state._frontier, state._n_frontier, state._status, state._near, self.table,
                self.cumulative,
            )  # fmt: skip
            if state._n_frontier == 0:
                found, following = choose_seeds(
                    min(wanted - placed, ROUND_LEAST), False, state._status, state._near, self.chosen, 0,
                    seed_key, seed_counter,
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
            state._weights, state._status, state._near, state._frontier,
            state._n_frontier,
        )  # fmt: skip
        self.fill(state, state.n, state.n + number)
        state.assign_regions(state.n, state.n + number)
        state.n += number
        state._n_free -= number

    def rank_newborns(self, state: LesionState, n_old: int) -> None:
        """Give this jump's newborns their final bins: where the field is high they enter higher."""
        when, regions = state.transition, state._n_regions
        split_births(
            self.births, state._region, n_old, state.n, regions, _key(self.seed, PURPOSE_BIRTH_REGION, when),
            self.births_left, self.region_births, self.region_counts,
        )  # fmt: skip
        self.plan(state, n_old, state.n, self.region_births, self.region_counts[:regions])
        state._n_frontier = give_bins(
            n_old, state.n, state._voxel, state._bin, state._region, self.scores, self.levels,
            self.shared_destination, self.shared_left, _key(self.seed, PURPOSE_SCORE_TIE, when),
            state._dims, state._steps, state._weights, state._status, state._near, state._frontier,
            state._n_frontier,
        )  # fmt: skip

    def move(self, state: LesionState, n_old: int, regions: int) -> None:
        """Move the voxels that were there before the births."""
        when = state.transition
        if self.pushes.ordered:
            counts = state._counts[:regions].sum(axis=1)
            self.plan(state, 0, n_old, self.region_moves, counts)
        else:
            self.plan(state, 0, n_old, self.moves, state._counts[:regions].reshape(-1))
        state.n, state._n_frontier, state._n_gone = apply_moves(
            n_old, state.n, state._voxel, state._bin, state._offset, state._field, state._born,
            state._region, self.pushes.rows_per_region, self.scores, self.levels, self.shared_destination,
            self.shared_left, _key(self.seed, PURPOSE_SCORE_TIE, when), state._dims, state._steps,
            state._weights, state._status, state._near, state._frontier, state._n_frontier,
            state._gone_voxel, state._gone_offset, state._gone_born, state._n_gone,
        )  # fmt: skip

    def plan(
        self,
        state: LesionState,
        first: int,
        last: int,
        numbers: NDArray[np.int64],
        row_counts: NDArray[np.int64],
    ) -> None:
        """Score slots first..last-1 and plan which scores go where."""
        pushes = self.pushes
        if pushes.ordered:
            score_voxels(
                state._voxel, state._bin, state._region, state._field, state._near, first, last,
                pushes.field, pushes.neighbours, pushes.noise, pushes.zero,
                _key(self.seed, PURPOSE_SCORE, state.transition), row_counts, self.scores, self.levels,
            )  # fmt: skip
        else:
            one_level_per_bin(first, last, row_counts, self.scores, self.levels)
        plan_moves(self.levels, numbers, row_counts, self.shared_destination, self.shared_left)
