"""A TorchIO transform that plays a subject's infection on, on the fly (docs/on_the_fly.md).

As in TorchIO, the random transform draws and hands over to its plain twin, which is pure and stands in the
subject's history. Needs TorchIO (`pip install 'lungcast[torchio]'`).
"""

from __future__ import annotations

from typing import Any

import torch
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
    import torchio
    from torchio.transforms.augmentation import RandomTransform
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "torchio":
        raise
    raise missing_library("TorchIO", "torchio") from None


class Progression(torchio.Transform):
    """Play the infection of a subject on as a draw says; nothing is drawn here.

    Parameters
    ----------
    draw : dict
        `SubjectDraw.to_json()`: how far, with which seed and texture, and the dynamics.
    image, infection, lungs : str
        Names of the subject's CT and its label maps.
    units : {"hu", "signal"}
        Of the image.
    window : tuple of float, optional
        Level and width of images in HU; defaults to -600, 1600.
    labels : sequence of int
        Label of infection; or those of GGO and consolidation, told apart at -200 HU.
    closed : str, optional
        Label map of airways and vessels: nothing in them is infected anew.
    **kwargs
        See `torchio.Transform`.

    Raises
    ------
    UsageError
        When an argument cannot be used. Called: when the subject lacks an image.
    DataError
        Called: see `progress_subject`.
    """

    def __init__(
        self,
        draw: dict[str, Any],
        image: str = "ct",
        infection: str = "infection",
        lungs: str = "lungs",
        units: str = "hu",
        window: tuple[float, float] | None = None,
        labels: tuple[int, ...] = (1,),
        closed: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.draw, self.image, self.infection, self.lungs = draw, image, infection, lungs
        self.units, self.window, self.labels, self.closed = units, window, tuple(labels), closed
        self.args_names = ["draw", "image", "infection", "lungs", "units", "window", "labels", "closed"]
        self._draw, self._units = SubjectDraw.from_json(draw), SubjectUnits.of(units, window, self.labels)

    def apply_transform(self, subject: torchio.Subject) -> torchio.Subject:
        """Play a parsed subject on."""
        there = subject.get_image(self.image)
        for name in (self.infection, self.lungs, *(() if self.closed is None else (self.closed,))):
            if name in subject:
                mask = subject.get_image(name)
                require_same_place(there.affine, mask.affine, there.spatial_shape, f"image {name!r}")
        image, infection = progress_subject(
            _volume(subject, self.image),
            _volume(subject, self.infection),
            _volume(subject, self.lungs),
            subject.get_image(self.image).spacing,
            self._draw,
            self._units,
            closed=_volume(subject, self.closed) if self.closed is not None else None,
            where=f"image {self.image!r}",
        )
        for name, volume in ((self.image, image), (self.infection, infection)):
            subject.get_image(name).set_data(torch.from_numpy(volume)[None])
        return subject


class RandomProgression(RandomTransform):
    """Play the infection of a subject on by a drawn number of days; the infection's label map follows.

    Spacing is taken from the image, which may have any orientation. The draw comes from PyTorch's generator
    (`torch.manual_seed`), as in TorchIO, and stands in the subject's history as a `Progression`.

    Parameters
    ----------
    fits : CohortFits, StoredFit, TransitionParameters or a sequence of them
        Dynamics; one is drawn. Births are relative to the subject's own infection, so they may come from others.
    days : tuple of float
        Shortest and longest progression, days.
    image, infection, lungs, units, window, labels, closed
        See `Progression`.
    jump : int, optional
        Transitions drawn at once; None plays every progression in one jump.
    controls : Controls or TextureRange, optional
        Morphology, fixed or drawn.
    allow_healthy : bool
        Let subjects without infection pass untouched instead of failing.
    **kwargs
        See `torchio.Transform` (for example `p`, the probability).
    """

    def __init__(
        self,
        fits: Dynamics,
        days: tuple[float, float] = (0.01, 2.0),
        image: str = "ct",
        infection: str = "infection",
        lungs: str = "lungs",
        units: str = "hu",
        window: tuple[float, float] | None = None,
        labels: tuple[int, ...] = (1,),
        closed: str | None = None,
        jump: int | None = None,
        controls: Controls | TextureRange | None = None,
        allow_healthy: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.ranges = SubjectRanges(
            parameters_of(fits), PlayRanges(days, jump, Controls() if controls is None else controls)
        )
        self.infection, self.allow_healthy = infection, allow_healthy
        self.named: dict[str, Any] = {
            "image": image, "infection": infection, "lungs": lungs, "units": units, "window": window,
            "labels": tuple(labels), "closed": closed,
        }  # fmt: skip
        SubjectUnits.of(units, window, labels)

    def get_params(self) -> SubjectDraw:
        """Draw one progression."""
        return self.ranges.draw(lambda: float(torch.rand(1, dtype=torch.float64).item()))

    def apply_transform(self, subject: torchio.Subject) -> torchio.Subject:
        """Draw, and play a parsed subject on."""
        drawn = self.get_params()
        if self.allow_healthy and not (_volume(subject, self.infection) != 0).any():
            return subject
        arguments: dict[str, Any] = {**self.named, **self._get_base_args()}
        return Progression(drawn.to_json(), **arguments)(subject)


def _volume(subject: torchio.Subject, name: str) -> NDArray[Any]:
    if name not in subject:
        raise UsageError("the subject lacks an image", got=", ".join(subject), expected=name)
    data = subject.get_image(name).data
    if data.ndim != 4 or data.shape[0] != 1:
        raise DataError(
            "not one channel", where=f"image {name!r}", got=tuple(data.shape), expected="(1, x, y, z)"
        )
    volume: NDArray[Any] = data[0].numpy()
    return volume
