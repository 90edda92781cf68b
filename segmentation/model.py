"""The trained three-way segmenter and its folder: three weight files and one JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from segmentation.aggregation import Aggregation
from segmentation.methods import THREE_WAY
from segmentation.segmenter import (
    MODEL_FILE,
    TARGETS,
    Segmenter,
    digest_of,
    load_weights,
    read_description,
    read_weights,
    seeded_torch,
    window_in,
)
from segmentation.signal import REFERENCE_WINDOW
from segmentation.unet import UNet
from segmentation.views import OFFSETS_MM, VIEWS
from standard_space.errors import DataError, UsageError
from standard_space.grid import StandardGrid
from standard_space.window import Window


@dataclass
class ThreeWaySegmenter(Segmenter):
    """Three independent 2D U-Nets, one per plane, and what is needed to use them [paper III-D].

    Parameters
    ----------
    networks : dict of str to UNet
        One network for each of ``VIEWS``, each with weights of its own.
    grid_size : int
        Voxels along each axis of the standard grid the networks were trained on.
    offsets_mm : dict of str to tuple of float
        For each view, distances of a stack's slices from the central one, in mm.
    aggregation : Aggregation
        How the three probabilities become a mask.
    target : str
        One of `TARGETS`.
    input_window, training, scores
        See `Segmenter`.

    Raises
    ------
    UsageError
        A view lacks its network or offsets, networks of different shapes, or an unknown target.
    """

    networks: dict[str, UNet]
    grid_size: int
    offsets_mm: dict[str, tuple[float, ...]] = field(default_factory=lambda: dict.fromkeys(VIEWS, OFFSETS_MM))
    aggregation: Aggregation = field(default_factory=Aggregation)
    target: str = "infection"
    input_window: Window | None = REFERENCE_WINDOW
    training: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)

    weights_key = "views"

    def __post_init__(self) -> None:
        for held in (self.networks, self.offsets_mm):
            if set(held) != set(VIEWS):
                raise UsageError("a segmenter needs one network per view, and its offsets", got=sorted(held))
        if len({network.width for network in self.networks.values()}) != 1:
            raise UsageError("the three networks differ in width")
        for view, network in self.networks.items():
            if len(self.offsets_mm[view]) != network.in_channels:
                raise UsageError(
                    f"the network of view {view} takes another number of slices than there are offsets",
                    got=len(self.offsets_mm[view]),
                    expected=network.in_channels,
                )
        if self.target not in TARGETS:
            raise UsageError("unknown target", got=self.target, expected=", ".join(TARGETS))
        if self.aggregation.view_count not in (None, len(VIEWS)):
            raise UsageError("the rule is for another number of views", got=self.aggregation.view_count)

    @classmethod
    def untrained(
        cls, grid_size: int, *, width: int = 16, seed: int = 0, target: str = "infection"
    ) -> ThreeWaySegmenter:
        """Return a segmenter with random weights, each view's from a seed of its own."""
        return cls({view: new_network(view, width, seed) for view in VIEWS}, grid_size, target=target)

    @property
    def method(self) -> str:
        """The method's name."""
        return THREE_WAY

    @property
    def parts(self) -> Mapping[str, nn.Module]:
        """The networks in the order of ``VIEWS``."""
        return {view: self.networks[view] for view in VIEWS}

    @property
    def width(self) -> int:
        """Channels of the networks' first level."""
        return self.networks[VIEWS[0]].width

    @property
    def model_id(self) -> str:
        """First 16 hexadecimal digits of a SHA-256 over weights, grid, offsets, window and target."""
        window = self.input_window
        levels = None if window is None else (window.level_hu, window.width_hu)
        offsets = [self.offsets_mm[view] for view in VIEWS]
        return digest_of((self.grid_size, offsets, levels, self.target), self.parts)

    def described(self) -> dict[str, Any]:
        """The offsets."""
        return {"offsets_mm": {view: list(self.offsets_mm[view]) for view in VIEWS}}

    @classmethod
    def load(cls, folder: str | Path) -> ThreeWaySegmenter:
        """Read a model folder; weights are read with ``weights_only=True``.

        Raises
        ------
        DataError
            No folder of a three-way model, foreign or damaged JSON, weights missing, damaged, not finite or of
            another network.
        """
        folder = Path(folder)
        description = read_description(folder)
        method = description.get("method", THREE_WAY)
        if method != THREE_WAY:
            raise DataError("this model is of another method", where=folder, got=method, expected=THREE_WAY)
        try:
            offsets_mm = {
                view: tuple(float(offset) for offset in description["offsets_mm"][view]) for view in VIEWS
            }
            if not all(math.isfinite(offset) for view in VIEWS for offset in offsets_mm[view]):
                raise ValueError("offsets that are not finite")
            grid_size, width = int(description["grid_size"]), int(description["width"])
            files = {view: description["views"][view] for view in VIEWS}
            StandardGrid(grid_size)
            networks = {
                view: _read_network(
                    folder / f"{view}.pt", files[view]["sha256"], len(offsets_mm[view]), width
                )
                for view in VIEWS
            }
            return cls(
                networks,
                grid_size,
                offsets_mm,
                Aggregation.from_json(description["aggregation"]),
                str(description["target"]),
                window_in(description),
                dict(description["training"]),
                dict(description["scores"]),
            )
        except (KeyError, TypeError, ValueError, UsageError) as error:
            where = folder / MODEL_FILE
            raise DataError(f"the model's description is damaged ({error!r})", where=where) from error


def new_network(view: str, width: int, seed: int, in_channels: int = len(OFFSETS_MM)) -> UNet:
    """Return a network with random weights that depend on the seed and the view alone."""
    with seeded_torch(seed, view, "weights"):
        return UNet(in_channels, width)


def _read_network(path: Path, sha256: str, in_channels: int, width: int) -> UNet:
    weights = read_weights(path)
    kind = f"a U-Net of width {width}"
    first = weights.get("down.0.conv1.weight")
    if first is None or tuple(first.shape) != (width, in_channels, 3, 3):
        raise DataError("the weights belong to another network", where=path, expected=kind)
    network = UNet(in_channels, width)
    load_weights(network, weights, path, sha256, kind)
    return network
