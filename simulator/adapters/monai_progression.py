"""A MONAI dictionary transform that plays a subject's infection on, on the fly (docs/on_the_fly.md).

Needs MONAI (`pip install 'lungcast[monai]'`).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.adapters.subject import (
    Dynamics,
    SubjectDraw,
    SubjectRanges,
    SubjectUnits,
    missing_library,
    parameters_of,
    progress_subject,
    require_same_place,
)
from simulator.dynamics.engine import Controls
from simulator.play import PlayRanges, TextureRange
from standard_space.errors import DataError, UsageError

try:
    from monai.data import MetaTensor
    from monai.data.utils import affine_to_spacing
    from monai.transforms import InvertibleTransform, MapTransform, RandomizableTransform
    from monai.utils import convert_to_dst_type
    from monai.utils.enums import TraceKeys
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "monai":
        raise
    raise missing_library("MONAI", "monai") from None


class ProgressInfectiond(RandomizableTransform, MapTransform, InvertibleTransform):
    """Play the infection of an annotated image on by a drawn number of days; the infection mask follows.

    Images and masks are channel-first with one channel; spacing is taken from the affine, axes may lie in any
    order. Shape, type, device and metadata stay. `randomize` draws, `apply` is pure; the draw stands in the
    `applied_operations` of image and infection, and `replay` applies a recorded one. A progression cannot be
    undone: `inverse` takes its record away, so that earlier spatial transforms can be inverted, and leaves voxels
    as they are.

    Parameters
    ----------
    keys : str
        The image.
    infection_key, lungs_key : str
        Its masks, not 0 inside.
    fits : CohortFits, StoredFit, TransitionParameters or a sequence of them
        Dynamics; one is drawn. Births are relative to the subject's own infection, so they may come from others.
    days : tuple of float
        Shortest and longest progression, days.
    prob : float
        Probability to do anything.
    units : {"hu", "signal"}
        Of the image.
    window : tuple of float, optional
        Level and width of images in HU; defaults to -600, 1600.
    labels : sequence of int
        Label of infection; or those of GGO and consolidation, told apart at -200 HU.
    closed_key : str, optional
        Mask of airways and vessels: nothing in them is infected anew.
    jump : int, optional
        Transitions drawn at once; None plays every progression in one jump.
    controls : Controls or TextureRange, optional
        Morphology, fixed or drawn.
    spacing_mm : tuple of float, optional
        Of the array's axes, for images without an affine.
    allow_healthy : bool
        Let subjects without infection pass untouched instead of failing.

    Raises
    ------
    UsageError
        When an argument cannot be used. Called: when a key is missing, or an image has no spacing.
    DataError
        Called: see `progress_subject`.
    """

    def __init__(
        self,
        keys: str | list[str],
        infection_key: str,
        lungs_key: str,
        fits: Dynamics,
        *,
        days: tuple[float, float] = (0.01, 2.0),
        prob: float = 1.0,
        units: str = "hu",
        window: tuple[float, float] | None = None,
        labels: tuple[int, ...] = (1,),
        closed_key: str | None = None,
        jump: int | None = None,
        controls: Controls | TextureRange | None = None,
        spacing_mm: tuple[float, float, float] | None = None,
        allow_healthy: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        if len(self.keys) != 1:
            raise UsageError("one image at a time can be played on", got=self.keys, expected="one key")
        self.infection_key, self.lungs_key, self.closed_key = infection_key, lungs_key, closed_key
        plays = PlayRanges(days, jump, Controls() if controls is None else controls)
        self.ranges = SubjectRanges(parameters_of(fits), plays)
        self.units = SubjectUnits.of(units, window, labels)
        self.spacing_mm, self.allow_healthy = spacing_mm, allow_healthy
        self.drawn: SubjectDraw | None = None

    @property
    def image_key(self) -> Hashable:
        """Key of the image."""
        return self.keys[0]

    def randomize(self, data: Any = None) -> None:
        """Draw whether and how to progress; the result is `drawn`, None for not at all."""
        super().randomize(None)
        # Drawn in any case, so that what comes after does not depend on `prob`.
        drawn = self.ranges.draw(self.R.random_sample)
        self.drawn = drawn if self._do_transform else None

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        self.randomize(data)
        drawn = self.drawn
        if drawn is not None and self.allow_healthy and not _is_infected(data, self.infection_key):
            drawn, self._do_transform = None, False
        result = dict(data) if drawn is None else self.apply(data, drawn)
        record = None if drawn is None else self.record(drawn)
        for key in (self.image_key, self.infection_key):
            if isinstance(result.get(key), MetaTensor):
                self.push_transform(result[key], extra_info={"progression": record})
        return result

    def record(self, draw: SubjectDraw) -> dict[str, Any]:
        """Plain values from which `replay` can do the same again."""
        return {
            "draw": draw.to_json(),
            **self.units.to_json(),
            "image_key": self.image_key,
            "infection_key": self.infection_key,
            "lungs_key": self.lungs_key,
            "closed_key": self.closed_key,
            "spacing_mm": self.spacing_mm,
        }

    def apply(self, data: Mapping[Hashable, Any], draw: SubjectDraw) -> dict[Hashable, Any]:
        """Data with the image and its infection played on as drawn; the input stays as it is."""
        masks = (self.infection_key, self.lungs_key, *(() if self.closed_key is None else (self.closed_key,)))
        for key in masks:
            _require_same_place(data, self.image_key, key)
        image, infection = progress_subject(
            _volume(data, self.image_key),
            _volume(data, self.infection_key),
            _volume(data, self.lungs_key),
            _spacing(data[self.image_key], self.spacing_mm),
            draw,
            self.units,
            closed=_volume(data, self.closed_key) if self.closed_key is not None else None,
            where=f"key {self.image_key!r}",
        )
        result = dict(data)
        for key, volume in ((self.image_key, image), (self.infection_key, infection)):
            result[key] = convert_to_dst_type(volume[None], data[key])[0]
        return result

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Take the record away; voxels stay as they are."""
        result = dict(data)
        for key in (self.image_key, self.infection_key):
            if isinstance(result.get(key), MetaTensor):
                self.pop_transform(result[key])
        return result


def recorded_progressions(image: Any) -> list[dict[str, Any]]:
    """Records of the progressions in an image's history, oldest first.

    Parameters
    ----------
    image : MetaTensor
    """
    found = []
    for operation in getattr(image, "applied_operations", []):
        if operation.get(TraceKeys.CLASS_NAME) == ProgressInfectiond.__name__:
            record = operation[TraceKeys.EXTRA_INFO]["progression"]
            found += [record] if record is not None else []
    return found


def replay(data: Mapping[Hashable, Any], record: dict[str, Any]) -> dict[Hashable, Any]:
    """Apply a recorded progression to data as they were before it; nothing is drawn.

    Parameters
    ----------
    data : mapping
    record : dict
        One of `recorded_progressions`.

    Raises
    ------
    UsageError
        When it is no such record.
    """
    try:
        draw = SubjectDraw.from_json(record["draw"])
        transform = ProgressInfectiond(
            record["image_key"],
            record["infection_key"],
            record["lungs_key"],
            draw.parameters,
            units=record["units"],
            window=record["window"],
            labels=tuple(record["labels"]),
            closed_key=record["closed_key"],
            spacing_mm=record["spacing_mm"],
        )
    except (KeyError, TypeError) as error:
        raise UsageError(f"not the record of a progression ({error!r})") from None
    return transform.apply(data, draw)


def _volume(data: Mapping[Hashable, Any], key: Hashable) -> NDArray[Any]:
    if key not in data:
        raise UsageError("the data lack a key", got=", ".join(map(str, data)), expected=key)
    array = data[key]
    volume = array.detach().cpu().numpy() if hasattr(array, "detach") else np.asarray(array)
    if volume.ndim != 4 or volume.shape[0] != 1:
        raise DataError(
            "not one channel first and three axes",
            where=f"key {key!r}",
            got=volume.shape,
            expected="(1, x, y, z)",
            remedy="put EnsureChannelFirstd before this transform",
        )
    result: NDArray[Any] = volume[0]
    return result


def _require_same_place(data: Mapping[Hashable, Any], image_key: Hashable, key: Hashable) -> None:
    image, mask = data.get(image_key), data.get(key)
    if not isinstance(image, MetaTensor) or not isinstance(mask, MetaTensor):
        return
    require_same_place(np.asarray(image.affine), np.asarray(mask.affine), image.shape[1:], f"key {key!r}")


def _is_infected(data: Mapping[Hashable, Any], key: Hashable) -> bool:
    return bool((_volume(data, key) != 0).any())


def _spacing(image: Any, given: tuple[float, float, float] | None) -> tuple[float, ...]:
    if given is not None:
        return tuple(float(s) for s in given)
    if not isinstance(image, MetaTensor):
        raise UsageError(
            "the image has no affine to take its spacing from",
            got=type(image).__name__,
            expected="a MetaTensor",
            remedy="load it with LoadImaged, or pass spacing_mm",
        )
    return tuple(float(s) for s in affine_to_spacing(image.affine))
