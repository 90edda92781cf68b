"""A trained rival and its folder: a weight file for each of its networks and one JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segmentation.aggregation import Aggregation
from segmentation.methods import METHODS, THREE_WAY, recipe_of
from segmentation.segmenter import (
    MODEL_FILE,
    Segmenter,
    check_shapes,
    digest_of,
    load_weights,
    read_description,
    read_weights,
    seeded_torch,
    window_in,
)
from segmentation.signal import REFERENCE_WINDOW
from segmentation.training.options import TrainingOptions
from segmentation.training.recipe import Recipe, Rival
from standard_space.errors import DataError, UsageError
from standard_space.grid import StandardGrid
from standard_space.window import Window

RIVALS = tuple(method for method in METHODS if method != THREE_WAY)


@dataclass
class BaselineSegmenter(Segmenter):
    """A trained model of one of the rivals.

    Parameters
    ----------
    networks : dict of str to nn.Module
        By part, see `Recipe.parts`.
    grid_size : int
    options : TrainingOptions
        It was trained with: the method, and what its networks and its prediction depend on.
    aggregation, input_window, training, scores
        See `Segmenter`.

    Raises
    ------
    UsageError
        Networks of other parts than the method has, a rule or target it has not, or a rule for another number of
        views.
    """

    networks: dict[str, nn.Module]
    grid_size: int
    options: TrainingOptions
    aggregation: Aggregation
    input_window: Window | None = REFERENCE_WINDOW
    training: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        recipe = self.recipe
        self.target = self.options.target
        for what, got, known in (
            ("networks", tuple(sorted(self.networks)), (tuple(sorted(recipe.parts)),)),
            ("rule", self.aggregation.rule, recipe.rules),
            ("target", self.target, recipe.targets),
        ):
            if got not in known:
                raise UsageError(f"the method {recipe.name} has no such {what}", got=got, expected=str(known))
        wanted = self.aggregation.view_count
        if wanted not in (None, recipe.view_count):
            raise UsageError(
                f"the rule does not fit the method {recipe.name}",
                got=f"{wanted} views",
                expected=f"{recipe.view_count} views",
            )

    @property
    def recipe(self) -> Rival:
        """What the method does."""
        recipe = recipe_of(self.options.method)
        if not isinstance(recipe, Rival):
            raise UsageError("this method is no rival", got=recipe.name)
        return recipe

    @property
    def method(self) -> str:
        """The method's name."""
        return self.options.method

    @property
    def parts(self) -> Mapping[str, nn.Module]:
        """The networks in the method's order."""
        return {part: self.networks[part] for part in self.recipe.parts}

    @property
    def width(self) -> int:
        """Channels of the networks' first level."""
        return self.options.width

    @property
    def model_id(self) -> str:
        """First 16 hexadecimal digits of a SHA-256 over weights, grid, window and what prediction depends on."""
        window = self.input_window
        levels = None if window is None else (window.level_hu, window.width_hu)
        return digest_of((self.grid_size, sorted(self._settings().items()), levels), self.parts)

    def described(self) -> dict[str, Any]:
        """The settings."""
        return {"settings": self._settings()}

    def _settings(self) -> dict[str, Any]:
        """What networks and prediction depend on, of the options."""
        options = self.options
        return {
            "method": options.method,
            "width": options.width,
            "patch": options.patch,
            "preprocess": options.preprocess,
            "target": options.target,
            "seed": options.seed,
        }

    @classmethod
    def load(cls, folder: str | Path) -> BaselineSegmenter:
        """Read a model folder; weights are read with ``weights_only=True``.

        Raises
        ------
        DataError
            No folder of a rival's model, foreign or damaged JSON, weights missing, damaged, not finite or of
            another network.
        UsageError
            The method needs MONAI, which is missing.
        """
        folder = Path(folder)
        description = read_description(folder)
        method = _method_in(description, folder / MODEL_FILE)
        recipe = recipe_of(method)
        try:
            options = TrainingOptions(**{"rule": recipe.rules[0], **description["settings"]})
            grid_size = int(description["grid_size"])
            StandardGrid(grid_size)
            networks = {}
            for part in recipe.parts:
                path = folder / f"{part}.pt"
                weights = read_weights(path)
                kind = f"a {recipe.title} of width {options.width}"
                # Before any memory is taken: a damaged width may ask for more than there is.
                check_shapes(_shape_of_network(recipe, part, options), weights, path, kind)
                network = untrained_network(recipe, part, options)
                load_weights(network, weights, path, description["networks"][part]["sha256"], kind)
                networks[part] = network
            return cls(
                networks,
                grid_size,
                options,
                Aggregation.from_json(description["aggregation"]),
                window_in(description),
                dict(description["training"]),
                dict(description["scores"]),
            )
        except (KeyError, TypeError, ValueError, UsageError) as error:
            where = folder / MODEL_FILE
            raise DataError(f"the model's description is damaged ({error!r})", where=where) from error


def _method_in(description: dict[str, Any], where: Path) -> str:
    """Return the rival that a model's JSON names, here and among its settings.

    Raises
    ------
    DataError
        None, an unknown one, or two.
    """
    settings = description.get("settings")
    within = settings.get("method") if isinstance(settings, dict) else None
    method = description.get("method")
    if method not in RIVALS or method != within:
        raise DataError(
            "the model's description is damaged: it names no rival", where=where, got=f"{method}, {within}"
        )
    return str(method)


def _shape_of_network(recipe: Recipe, part: str, options: TrainingOptions) -> nn.Module:
    """Return a part's network without any value in it.

    Raises
    ------
    ValueError
        There can be no network so large.
    """
    try:
        with torch.device("meta"):
            return recipe.network(part, options)
    except RuntimeError as error:
        raise ValueError(f"no network of width {options.width}") from error


def untrained_network(recipe: Recipe, part: str, options: TrainingOptions) -> nn.Module:
    """Return a part's network, its random weights a function of the seed and the part alone."""
    with seeded_torch(options.seed, part, "weights"):
        return recipe.network(part, options)


def trained_segmenter(
    networks: Mapping[str, nn.Module],
    grid_size: int,
    options: TrainingOptions,
    aggregation: Aggregation,
    training: dict[str, Any],
) -> BaselineSegmenter:
    """Make the model of trained networks."""
    kept = replace(options, rule=aggregation.rule)
    return BaselineSegmenter(
        dict(networks),
        grid_size,
        kept,
        aggregation,
        input_window=REFERENCE_WINDOW,
        training=training,
    )
