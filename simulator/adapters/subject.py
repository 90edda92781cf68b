"""What the adapters share: an annotated image of any geometry is played on, as it lies (DESIGN 3, 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.dynamics.engine import start_state
from simulator.dynamics.errors import DynamicsError
from simulator.dynamics.parameters import TransitionParameters
from simulator.fits import CohortFits, StoredFit
from simulator.play import Play, PlayRanges, Uniform
from simulator.progression import CONSOLIDATION_HU, with_reference
from standard_space.errors import DataError, UsageError
from standard_space.masks import bounding_box
from standard_space.window import Window

Dynamics = TransitionParameters | StoredFit | CohortFits | Sequence[TransitionParameters | StoredFit]


def missing_library(library: str, extra: str) -> UsageError:
    """The error for an adapter whose library is not installed."""
    return UsageError(
        f"this adapter needs {library}, which is not installed", remedy=f"pip install 'lungcast[{extra}]'"
    )


def require_same_place(
    image: NDArray[np.float64], mask: NDArray[np.float64], shape: Sequence[int], where: str
) -> None:
    """Refuse a mask whose voxels lie elsewhere in the world than its image's.

    Parameters
    ----------
    image, mask : float64 array, shape (4, 4)
        Affines from voxel to world, mm.
    shape : sequence of int
        Of the image.
    where : str
        For the message.

    Raises
    ------
    DataError
        When a corner lies a tenth of the smallest spacing or more apart.
    """
    ends = np.array(list(np.ndindex(2, 2, 2))) * (np.array(shape) - 1)
    apart_mm = float(np.abs(np.c_[ends, np.ones(8)] @ (image - mask).T).max())
    if apart_mm > 0.1 * float(np.linalg.norm(image[:3, :3], axis=0).min()):
        raise DataError(
            "the mask lies on another grid than its image",
            where=where,
            got=f"corners {apart_mm:.3g} mm apart",
            remedy="bring both onto one grid before this transform",
        )


@dataclass(frozen=True)
class SubjectDraw:
    """Everything random about one progression of a subject.

    Parameters
    ----------
    play : Play
        How far, with which chance, in which texture.
    parameters : TransitionParameters
        W. Births are taken relative to the subject's own count below 0 (`reference_ggo_voxels` is replaced), so
        that dynamics fitted on one grid or patient can run on another.
    """

    play: Play
    parameters: TransitionParameters

    def to_json(self) -> dict[str, Any]:
        """Plain values for a history."""
        return {"play": self.play.to_json(), "parameters": self.parameters.to_json()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> SubjectDraw:
        """A draw from a history.

        Raises
        ------
        UsageError
            When the record is not one of a draw.
        """
        try:
            return cls(Play.from_json(content["play"]), TransitionParameters.from_json(content["parameters"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"not the record of a progression ({error!r})", got=content) from None


@dataclass(frozen=True)
class SubjectRanges:
    """What progressions of subjects are drawn from: one of several W, and the ranges of a play."""

    parameters: tuple[TransitionParameters, ...]
    plays: PlayRanges = field(default_factory=PlayRanges)

    def draw(self, uniform: Uniform) -> SubjectDraw:
        """One progression."""
        chosen = self.parameters[int(len(self.parameters) * uniform())]
        return SubjectDraw(self.plays.draw(uniform), chosen)


def parameters_of(dynamics: Dynamics) -> tuple[TransitionParameters, ...]:
    """W of everything that holds one.

    Raises
    ------
    UsageError
        When there is none, or it is something else.
    """
    if isinstance(dynamics, CohortFits):
        dynamics = dynamics.fits
    elif isinstance(dynamics, TransitionParameters | StoredFit):
        dynamics = [dynamics]
    if not isinstance(dynamics, Sequence):
        raise UsageError(
            "not the dynamics of an infection", got=type(dynamics).__name__, expected="fits or W"
        )
    found = []
    for one in dynamics:
        if not isinstance(one, TransitionParameters | StoredFit):
            raise UsageError("not the dynamics of an infection", got=type(one).__name__, expected="fits or W")
        found.append(one.fit.parameters if isinstance(one, StoredFit) else one)
    if not found:
        raise UsageError("there are no dynamics to draw from", remedy="run `lungcast fit` on a cohort")
    return tuple(found)


@dataclass(frozen=True)
class SubjectUnits:
    """What a subject's numbers mean.

    Parameters
    ----------
    window : Window, optional
        Of images in HU; None when they are signals already, (HU - WL) / WW.
    labels : tuple of int
        One label for infection; or two, for GGO and for consolidation, which are told apart by the clinical cut.
    consolidation_hu : float
        The clinical cut, HU.

    Raises
    ------
    UsageError
        When the labels are not one or two different positive numbers, or two are wanted of signals without window.
    """

    window: Window | None = field(default_factory=Window)
    labels: tuple[int, ...] = (1,)
    consolidation_hu: float = CONSOLIDATION_HU

    def __post_init__(self) -> None:
        labels = tuple(int(label) for label in self.labels)
        if not (len(labels) in (1, 2) and len(set(labels)) == len(labels) and min(labels) > 0):
            raise UsageError(
                "the labels cannot be used", got=self.labels, expected="(infection,) or (GGO, consolidation)"
            )
        if len(labels) == 2 and self.window is None:
            raise UsageError(
                "GGO and consolidation are told apart in HU", expected="a window", remedy="pass images in HU"
            )
        object.__setattr__(self, "labels", labels)

    @classmethod
    def of(cls, units: str, window: tuple[float, float] | None, labels: Sequence[int]) -> SubjectUnits:
        """Units from an adapter's arguments.

        Raises
        ------
        UsageError
            When the units are neither "hu" nor "signal", or the window cannot be used.
        """
        if units not in ("hu", "signal"):
            raise UsageError("no such units", got=units, expected="hu or signal")
        used = Window(float(window[0]), float(window[1]), "caller") if window is not None else Window()
        return cls(used if units == "hu" else None, tuple(labels))

    def to_json(self) -> dict[str, Any]:
        """Plain values for a history."""
        return {
            "units": "signal" if self.window is None else "hu",
            "window": None if self.window is None else [self.window.level_hu, self.window.width_hu],
            "labels": list(self.labels),
        }


def progress_subject(
    image: NDArray[Any],
    infection: NDArray[Any],
    lungs: NDArray[Any],
    spacing_mm: Sequence[float],
    draw: SubjectDraw,
    units: SubjectUnits,
    *,
    closed: NDArray[Any] | None = None,
    where: str | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Play the infection of an image on (pure).

    Parameters
    ----------
    image : array, three axes in any order and direction
        HU or signal, see `units`.
    infection : array of the same shape
        Label map with `units.labels`, 0 elsewhere.
    lungs : array of the same shape
        Not 0 where lung is. Infection outside is susceptible all the same.
    spacing_mm : sequence of float
        Of the three axes.
    draw : SubjectDraw
    units : SubjectUnits
    closed : array of the same shape, optional
        Not 0 where nothing can be infected (airways, vessels), but for what is annotated.
    where : str, optional
        The subject, for messages.

    Returns
    -------
    image, infection : arrays
        New ones of the same shape and type. What was and is no infection is untouched.

    Raises
    ------
    DataError
        No infection; shapes differ or are not three-dimensional; labels that are not `units.labels`; signals in
        the lungs that are not finite; a bad spacing.
    """
    named = {"image": image, "infection": infection, "lungs": lungs}
    if closed is not None:
        named["closed tissue"] = closed
    if image.ndim != 3 or any(array.shape != image.shape for array in named.values()):
        raise DataError(
            "image and masks do not have the same three axes",
            where=where,
            got=", ".join(f"{name} {array.shape}" for name, array in named.items()),
        )
    _check_labels(infection, units.labels, where)
    infected = infection != 0
    box = bounding_box(infected | (lungs != 0))
    if box is None or not infected.any():
        raise DataError(
            "the subject has no infection to play on",
            where=where,
            remedy="leave it out, or let such subjects pass with allow_healthy=True",
        )
    inner = infected[box]
    open_tissue = lungs[box] != 0
    if closed is not None:
        open_tissue = open_tissue & (closed[box] == 0)
    values = np.asarray(image[box], np.float32)
    signal = values if units.window is None else units.window.to_signal(values)
    try:
        state = start_state(signal, inner, open_tissue | inner, tuple(float(s) for s in spacing_mm))  # type: ignore[arg-type]
        draw.play.advance(state, with_reference(draw.parameters, state))
    except DynamicsError as error:
        raise DataError(str(error), where=where) from None

    index, changed = state.changed()
    new_image, new_infection = image.copy(), infection.copy()
    place = tuple(axis + b.start for axis, b in zip(np.unravel_index(index, inner.shape), box, strict=True))
    shown = changed if units.window is None else units.window.to_hu(changed)
    new_image[place] = _as_type(shown, image.dtype)
    now = state.mask().reshape(-1)[index]
    marked = np.where(now, units.labels[0], 0)
    if len(units.labels) == 2:
        marked[now & (shown >= units.consolidation_hu)] = units.labels[1]
    new_infection[place] = marked.astype(infection.dtype)
    return new_image, new_infection


def _as_type(values: NDArray[np.float32], kind: np.dtype[Any]) -> NDArray[Any]:
    if np.issubdtype(kind, np.integer):
        limits = np.iinfo(kind)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return values.astype(kind)


def _check_labels(infection: NDArray[Any], labels: tuple[int, ...], where: str | None) -> None:
    known = infection == 0
    for label in labels:
        known |= infection == label
    if not known.all():
        strange = np.unique(infection[~known])
        raise DataError(
            "the infection holds other labels than it should",
            where=where,
            got=", ".join(f"{label:g}" for label in strange[:5].tolist()),
            expected=f"0 and {', '.join(map(str, labels))}",
            remedy="name them with labels=(infection,) or labels=(GGO, consolidation)",
        )
