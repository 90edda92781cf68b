"""A whole trajectory of a scan: the lesion's state on a few days gives any day, texture and seed (DESIGN 9).

A run's own days come out bit for bit as if it had never been interrupted, because a keyframe holds the engine's
whole state (`simulator.dynamics.keyframe`). Other seeds and textures branch off from a keyframe: until then they
share the run's past, and from there on have their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator.augmentation_plan import SIMULATED_TRANSITIONS
from simulator.dynamics.branching import branch
from simulator.dynamics.engine import RESULTS_REVISION, Controls, LesionState, advance
from simulator.dynamics.errors import DynamicsError
from simulator.dynamics.keyframe import Keyframe, restore_keyframe, take_keyframe
from simulator.dynamics.parameters import TransitionParameters
from simulator.lung_crop import LungCrop, read_lung_crop
from simulator.play import Play
from simulator.progression import DEFAULT_JUMP, LONGEST_DAYS
from simulator.series import TRANSITIONS_PER_DAY
from simulator.synthetic_crop import Surroundings, SyntheticCrop, surroundings_of, synthesise
from simulator.trajectory_file import read_keyframes, write_keyframes
from standard_space.cohort import Cohort
from standard_space.errors import ScanFileError, UsageError
from standard_space.version import lungcast_version

KEYFRAME_EVERY = 50
"""Transitions between keyframes, half a day, or the next multiple of the jump."""


def default_keyframes(jump: int, last: int = SIMULATED_TRANSITIONS) -> tuple[int, ...]:
    """Transitions 0, about 50, 100 ... up to `last` at which a run with this jump can be taken up again."""
    every = jump * -(-KEYFRAME_EVERY // jump)
    return tuple(range(0, last + 1, every))


def write_trajectory(
    path: str | Path,
    crop: LungCrop,
    parameters: TransitionParameters,
    seed: int,
    jump: int = DEFAULT_JUMP,
    controls: Controls | None = None,
    keyframes: Sequence[int] | None = None,
) -> str:
    """Play a scan on and write its trajectory as one file; returns its content hash. Same arguments, same bytes.

    Parameters
    ----------
    path : str or Path
    crop : LungCrop
        The source.
    parameters : TransitionParameters
        W that runs on from it.
    seed : int
    jump : int
        Transitions drawn at once.
    controls : Controls, optional
        Morphology; defaults to `Controls()`.
    keyframes : sequence of int, optional
        Transitions at which the state is kept, ascending multiples of the jump; 0 is the source itself and costs
        nothing. Defaults to `default_keyframes(jump)`.

    Raises
    ------
    UsageError
        When the keyframes do not ascend or are no multiples of the jump.
    DataError
        When the source has no infection.
    OutOfSpaceError
        When the disk is full.
    """
    used = controls if controls is not None else Controls()
    if int(jump) != jump or jump < 1:
        raise UsageError("the jump must be a whole number of transitions", got=jump, expected="1 or more")
    wanted = list(default_keyframes(jump) if keyframes is None else keyframes)
    if any(t < 0 or t % jump for t in wanted) or sorted(set(wanted)) != wanted:
        raise UsageError(
            "the keyframes cannot be used",
            got=wanted,
            expected=f"ascending multiples of the jump, {jump}",
            remedy="a run is the same after an interruption only where one jump ends and the next begins",
        )
    state = crop.start()
    taken = []
    for transition in wanted:
        if transition == 0:
            continue
        advance(state, parameters, transition - state.transition, jump=jump, seed=seed, controls=used)
        taken.append(take_keyframe(state, seed=seed))
    head = crop.head
    meta = {
        "lungcast_version": lungcast_version(),
        "engine": RESULTS_REVISION,
        "source": {key: head[key] for key in ("patient", "scan", "content_sha256")},
        "grid": int(head["grid"]),
        "corner": list(crop.corner),
        "shape": list(crop.signal.shape),
        "seed": int(seed),
        "jump": int(jump),
        "controls": used.to_json(),
        "parameters": parameters.to_json(),
    }
    return write_keyframes(path, meta, taken)


@dataclass(frozen=True)
class Trajectory:
    """A stored run of one scan, ready to draw from; use `open_trajectory`.

    Parameters
    ----------
    content_sha256 : str
    parameters : TransitionParameters
    seed : int
    jump : int
    controls : Controls
    keyframes : tuple of Keyframe
        Ascending, without the start.
    start : LesionState
        The source's own state.
    surroundings : Surroundings
    """

    content_sha256: str
    parameters: TransitionParameters
    seed: int
    jump: int
    controls: Controls
    keyframes: tuple[Keyframe, ...]
    start: LesionState
    surroundings: Surroundings

    @property
    def name(self) -> str:
        """Patient and source scan, for messages."""
        return f"{self.surroundings.head['patient']}/{self.surroundings.head['scan']}"

    @property
    def keyframe_days(self) -> tuple[float, ...]:
        """Days at which a draw can start, 0 first."""
        return (0.0, *(keyframe.transition / TRANSITIONS_PER_DAY for keyframe in self.keyframes))

    def at(
        self,
        days: float,
        seed: int | None = None,
        controls: Controls | None = None,
        *,
        branch_days: float | None = None,
    ) -> SyntheticCrop:
        """The scan so many days later.

        With the trajectory's own seed and controls the result is, bit for bit, that of an uninterrupted run.
        Otherwise the run branches off from a keyframe: counts have the same distribution, lesions that were born
        before it stay where they are, and the further back it is the more is new.

        Parameters
        ----------
        days : float
            Since the source scan, 0.01 days or more.
        seed : int, optional
            Defaults to the trajectory's own.
        controls : Controls, optional
            Defaults to the trajectory's own.
        branch_days : float, optional
            The keyframe to start from, one of `keyframe_days` and before `days`; 0 makes everything new. Defaults
            to the last one at or before `days`; for another seed or texture, to the last one before.

        Raises
        ------
        UsageError
            When the days are less than one transition or more than ten years, or there is no keyframe at
            `branch_days`.
        """
        if not 1 / TRANSITIONS_PER_DAY <= days * (1 + 1e-9) <= LONGEST_DAYS * (1 + 1e-9):
            raise UsageError(
                "the day cannot be drawn",
                where=self.name,
                got=days,
                expected=f"0.01 to {LONGEST_DAYS:g} days",
            )
        play = Play(
            transitions=round(days * TRANSITIONS_PER_DAY),
            seed=self.seed if seed is None else int(seed),
            jump=self.jump,
            controls=self.controls if controls is None else controls,
        )
        return self.play(play, self._branch_point(play, branch_days))

    def play(self, play: Play, first: int) -> SyntheticCrop:
        """The crop of a play that starts from the keyframe at transition `first`, 0 or one there is (pure)."""
        state = self._state(first, play)
        left = play.transitions - first
        advance(state, self.parameters, left, jump=play.jump, seed=play.seed, controls=play.controls)
        provenance = {
            "lungcast_version": lungcast_version(),
            "engine": RESULTS_REVISION,
            "operation": "trajectory",
            "trajectory_sha256": self.content_sha256,
            "play": play.to_json(),
            "branch_transition": first,
            "own": {"seed": self.seed, "controls": self.controls.to_json()},
            "parameters": self.parameters.to_json(),
        }
        return synthesise(self.surroundings, state, play.transitions, provenance)

    def remake(self, provenance: dict[str, Any]) -> SyntheticCrop:
        """A crop again that was drawn from this trajectory, from its provenance.

        Raises
        ------
        UsageError
            When it was not drawn from this trajectory.
        """
        if provenance.get("trajectory_sha256") != self.content_sha256:
            raise UsageError("the crop was not drawn from this trajectory", where=self.name)
        return self.play(Play.from_json(provenance["play"]), int(provenance["branch_transition"]))

    def _branch_point(self, play: Play, branch_days: float | None) -> int:
        own = play.seed == self.seed and play.controls == self.controls
        known = [0, *(keyframe.transition for keyframe in self.keyframes)]
        if branch_days is None:
            # At the very day of a keyframe another seed would have nothing left to change.
            return max(t for t in known if t < play.transitions or (own and t == play.transitions))
        asked = round(branch_days * TRANSITIONS_PER_DAY) if math.isfinite(branch_days) else -1
        if asked not in known or asked > play.transitions:
            raise UsageError(
                "no keyframe before the day to branch off from",
                where=self.name,
                got=f"{branch_days:g} of {play.days:g} days",
                expected=f"one of {', '.join(f'{day:g}' for day in self.keyframe_days)}",
            )
        return asked

    def _state(self, first: int, play: Play) -> LesionState:
        if first == 0:
            return branch(self.start, seed=play.seed, controls=play.controls)
        keyframe = next(keyframe for keyframe in self.keyframes if keyframe.transition == first)
        return restore_keyframe(self.start, keyframe, seed=self.seed, controls=self.controls)


def open_trajectory(
    path: str | Path, cohort: Cohort, *, margin_mm: float = 0.0, verify: bool = True
) -> Trajectory:
    """Read a trajectory and its source.

    Parameters
    ----------
    path : str or Path
    cohort : Cohort
        The cohort that holds the source, or an augmented one opened with it.
    margin_mm : float
        Room around the lungs' box in what is drawn, mm.
    verify : bool
        Compare every voxel of the source with its hash. Without it only the hash written in its file is compared,
        which an altered scan file of lungcast's own making never passes.

    Raises
    ------
    ScanFileError
        When the file is missing, damaged or altered, or the source is missing or was altered.
    """
    digest, meta, keyframes = read_keyframes(path)
    origin = meta["source"]
    sources = cohort.sources or cohort
    entry = sources.source(**origin)
    crop = read_lung_crop(sources, entry, verify=verify)
    if [list(crop.corner), list(crop.signal.shape)] != [meta["corner"], meta["shape"]]:
        raise sources.altered(entry, f"lungs at {crop.corner}")
    start = crop.start()
    controls, seed = Controls(**meta["controls"]), int(meta["seed"])
    found = Trajectory(
        content_sha256=digest,
        parameters=TransitionParameters.from_json(meta["parameters"]),
        seed=seed,
        jump=int(meta["jump"]),
        controls=controls,
        keyframes=tuple(keyframes),
        start=start,
        surroundings=surroundings_of(sources, entry, crop, margin_mm),
    )
    if keyframes:
        try:
            restore_keyframe(start, keyframes[-1], seed=seed, controls=controls)
        except DynamicsError as error:
            raise ScanFileError(f"the trajectory does not fit its source: {error}", where=path) from None
    return found
