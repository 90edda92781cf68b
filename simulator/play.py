"""How an infection is played on, drawn beforehand: how far, with which chance, in which texture (DESIGN 3, 4).

Drawing and applying are apart: `PlayRanges.draw` is the one place that asks for random numbers, a `Play` is what
it drew, plain enough for any record, and `Play.advance` applies it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from simulator.dynamics.engine import Controls, LesionState, advance
from simulator.dynamics.parameters import TransitionParameters
from simulator.progression import LONGEST_DAYS
from simulator.series import TRANSITIONS_PER_DAY
from standard_space.errors import UsageError

Uniform = Callable[[], float]
"""Gives the next number of a stream of random numbers, uniform in [0, 1)."""

_SEEDS = 2**53  # every integer below is a float64


@dataclass(frozen=True)
class Play:
    """One progression, before it is played.

    Parameters
    ----------
    transitions : int
        How far, 1/100 days.
    seed : int
        The engine's.
    jump : int
        Transitions drawn at once.
    controls : Controls
        Texture and shape.
    """

    transitions: int
    seed: int
    jump: int
    controls: Controls = field(default_factory=Controls)

    @property
    def days(self) -> float:
        """How far, days."""
        return self.transitions / TRANSITIONS_PER_DAY

    def advance(self, state: LesionState, parameters: TransitionParameters) -> LesionState:
        """Play a state on IN PLACE; pure but for that."""
        return advance(
            state, parameters, self.transitions, jump=self.jump, seed=self.seed, controls=self.controls
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values for a record."""
        return {
            "transitions": self.transitions,
            "seed": self.seed,
            "jump": self.jump,
            "controls": self.controls.to_json(),
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Play:
        """A play from a record.

        Raises
        ------
        UsageError
            When the record is not one of a play.
        """
        try:
            return cls(
                transitions=int(content["transitions"]),
                seed=int(content["seed"]),
                jump=int(content["jump"]),
                controls=Controls(**content["controls"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"not the record of a progression ({error!r})", got=content) from None


@dataclass(frozen=True)
class TextureRange:
    """Morphology controls to draw from, each uniformly between two values; see `Controls` for what they are.

    Parameters
    ----------
    gamma, seeded_share, consolidation_clustering, correlation_mm : tuple of float
        Lowest and highest. The default leaves each where it comes nearest to observed lesions.

    Raises
    ------
    UsageError
        When a pair is upside down.
    ParameterError
        When a value is out of range.
    """

    gamma: tuple[float, float] = (Controls.gamma,) * 2
    seeded_share: tuple[float, float] = (Controls.seeded_share,) * 2
    consolidation_clustering: tuple[float, float] = (Controls.consolidation_clustering,) * 2
    correlation_mm: tuple[float, float] = (Controls.correlation_mm,) * 2

    def __post_init__(self) -> None:
        for limit in (0, 1):
            Controls(**{item.name: getattr(self, item.name)[limit] for item in fields(self)})
        for item in fields(self):
            low, high = getattr(self, item.name)
            if low > high:
                raise UsageError(f"the range of {item.name} is upside down", got=f"{low} to {high}")

    def draw(self, uniform: Uniform) -> Controls:
        """Controls within the range; four numbers are always drawn."""
        drawn = {}
        for item in fields(self):
            low, high = getattr(self, item.name)
            drawn[item.name] = low + (high - low) * uniform()
        return Controls(**drawn)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        return asdict(self)


@dataclass(frozen=True)
class PlayRanges:
    """What progressions are drawn from.

    Parameters
    ----------
    days : tuple of float
        Shortest and longest, days; whole transitions between them are equally likely.
    jump : int, optional
        Transitions drawn at once; None plays every progression in one jump, the fastest.
    controls : Controls or TextureRange

    Raises
    ------
    UsageError
        When the days are upside down, hold no transition, or go beyond ten years; when the jump is not positive.
    """

    days: tuple[float, float] = (0.01, 2.0)
    jump: int | None = None
    controls: Controls | TextureRange = field(default_factory=Controls)

    def __post_init__(self) -> None:
        low, high = self.days
        if not (math.isfinite(low) and math.isfinite(high) and 0 < low <= high <= LONGEST_DAYS):
            raise UsageError(
                "the days cannot be used", got=self.days, expected="two, 0 < first <= last <= 3650"
            )
        if self.transitions[0] > self.transitions[1]:
            raise UsageError(
                "no whole transition lies between the days", got=self.days, expected="steps of 0.01 days"
            )
        if self.jump is not None and (int(self.jump) != self.jump or self.jump < 1):
            raise UsageError(
                "the jump must be a whole number of transitions", got=self.jump, expected="1 or more, or None"
            )

    @property
    def transitions(self) -> tuple[int, int]:
        """The shortest and the longest, in whole transitions."""
        low, high = (day * TRANSITIONS_PER_DAY for day in self.days)
        return max(1, math.ceil(low - 1e-9)), math.floor(high + 1e-9)

    def draw(self, uniform: Uniform) -> Play:
        """One progression."""
        low, high = self.transitions
        transitions = low + int((high - low + 1) * uniform())
        seed = int(_SEEDS * uniform())
        controls = self.controls.draw(uniform) if isinstance(self.controls, TextureRange) else self.controls
        return Play(transitions, seed, transitions if self.jump is None else int(self.jump), controls)
