"""What there is to see: a case is something that has a time, or several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from segmentation.viewer.volumes import View

Kind = Literal["observed", "simulated", "predicted"]


@dataclass(frozen=True)
class Frame:
    """A case at one time.

    Attributes
    ----------
    label : str
        For people.
    kind : str
        "observed" (a scan, with its annotation), "simulated", or "predicted" (a scan, with what a model found).
    day : float or None
        Days on the case's own clock.
    read : callable
        Gives the volumes; nothing is read before.
    infected_ml : dict
        ``infected_ml``, ``ggo_ml`` and ``consolidation_ml``, ml, as far as they are known before; None unknown.
    """

    label: str
    kind: Kind
    day: float | None
    read: Callable[[], View]
    infected_ml: dict[str, float | None] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What the page needs before the volumes."""
        return {"label": self.label, "kind": self.kind, "day": self.day, "volumes": self.infected_ml}


@dataclass(frozen=True)
class Point:
    """A volume that was observed and has no frame of its own.

    Attributes
    ----------
    label : str
        Name of the scan.
    day : float
        Days on the case's own clock.
    infected_ml : float
    """

    label: str
    day: float
    infected_ml: float


@dataclass(frozen=True)
class Case:
    """Something to see, with its frames in the order of their days.

    Attributes
    ----------
    title, text : str
        What it is, in few words and in a sentence.
    frames : sequence of Frame
    observed : sequence of Point
        What was observed beside the frames, for the curves.
    """

    title: str
    text: str
    frames: Sequence[Frame]
    observed: Sequence[Point] = ()

    def to_json(self) -> dict[str, Any]:
        """What the page needs before the volumes."""
        return {
            "title": self.title,
            "text": self.text,
            "frames": [frame.to_json() for frame in self.frames],
            "observed": [asdict(point) for point in self.observed],
        }


def thinned(case: Case, most: int) -> Case:
    """Return a case with at most so many frames, evenly chosen with the first and the last, and say so.

    Observed scans all stay, also when they alone are more.
    """
    kept = [frame for frame in case.frames if frame.kind == "observed"]
    others = [frame for frame in case.frames if frame.kind != "observed"]
    room = max(2, most - len(kept))
    if len(others) <= room:
        return case
    chosen = {round(index * (len(others) - 1) / (room - 1)) for index in range(room)}
    left = [frame for index, frame in enumerate(others) if index in chosen]
    frames = [frame for frame in case.frames if frame in kept or frame in left]
    text = f"{case.text} {len(frames)} of {len(case.frames)} times are shown."
    return replace(case, text=text, frames=frames)
