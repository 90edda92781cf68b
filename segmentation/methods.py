"""The methods by name: what `--method` takes. Each is imported when it is asked for."""

from __future__ import annotations

import importlib
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from standard_space.errors import UsageError

if TYPE_CHECKING:
    import torch

    from segmentation.scan_predictor import ScanPredictor
    from segmentation.segmenter import Segmenter
    from segmentation.training.options import TrainingOptions
    from segmentation.training.recipe import Recipe

THREE_WAY = "three-way"

_PLACES = {
    THREE_WAY: "segmentation.training.three_way:ThreeWay",
    "unet2d": "segmentation.baselines.unet2d:UNet2D",
    "h-denseunet": "segmentation.baselines.h_denseunet:HDenseUNet",
    "mpunet": "segmentation.baselines.mpunet:MPUNet",
    "unet3d": "segmentation.baselines.unet3d:UNet3D",
    "vnet3d": "segmentation.baselines.vnet3d:VNet3D",
    "mueller": "segmentation.baselines.mueller:Mueller",
    "transfer": "segmentation.baselines.transfer:TransferUNet",
    "covid-segnet": "segmentation.baselines.covid_segnet:CovidSegNet",
}

METHODS = tuple(_PLACES)
"""The paper's method first, then its rivals from 2D to 3D, then the related systems."""


def recipe_of(method: str) -> Recipe:
    """Return the recipe of a method.

    Raises
    ------
    UsageError
        Unknown method, or MONAI is missing, which most rivals are made of.
    """
    check_method(method)
    module, _, name = _PLACES[method].partition(":")
    try:
        recipe: Recipe = getattr(importlib.import_module(module), name)()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "monai":
            raise
        raise UsageError(
            f"the method {method} needs MONAI", remedy="pip install 'lungcast[baselines]'"
        ) from error
    return recipe


def check_method(method: str) -> None:
    """Refuse an unknown method.

    Raises
    ------
    UsageError
    """
    if method not in _PLACES:
        raise UsageError("there is no such method", got=method, expected=", ".join(METHODS))


def check_rule(method: str, rule: str) -> str:
    """Return a rule that a method can use.

    Raises
    ------
    UsageError
        It cannot.
    """
    known = recipe_of(method).rules
    if rule not in known:
        raise UsageError(f"the method {method} has no such rule", got=rule, expected=", ".join(known))
    return rule


def options_for(method: str, **given: Any) -> TrainingOptions:
    """Return training options with a method's own defaults where nothing is given.

    Raises
    ------
    UsageError
        Unknown method or option, or a value out of range; a rule, a target or an option that the method has not.
    """
    from segmentation.training.options import TrainingOptions

    recipe = recipe_of(method)
    known = {field.name for field in fields(TrainingOptions)}
    for name in given:
        if name not in known:
            raise UsageError("there is no such training option", got=name, expected=", ".join(sorted(known)))
    options = TrainingOptions(**{"rule": recipe.rules[0], **recipe.defaults, **given, "method": method})
    check_rule(method, options.rule)
    if options.target not in recipe.targets:
        raise UsageError(
            f"the method {method} cannot be trained for this target",
            got=options.target,
            expected=", ".join(recipe.targets),
        )
    if method != THREE_WAY and (options.own_window or options.compiled or options.slice_offsets_mm):
        raise UsageError(
            f"the method {method} takes neither a scan's own window, nor slice offsets, nor torch.compile"
        )
    for name in recipe.ignores:
        if given.get(name) is not None:
            raise UsageError(
                f"the method {method} has no {name.replace('_', ' ')}", got=given[name], remedy="leave it out"
            )
    if method != "mueller" and not options.preprocess:
        raise UsageError("only the method mueller has a preprocessing of its own to leave out", got=method)
    if method != "transfer" and options.encoder_weights is not None:
        raise UsageError("only the method transfer starts from encoder weights", got=method)
    return options


def load_segmenter(folder: str | Path) -> Segmenter:
    """Read a model folder, whatever its method; weights are read with ``weights_only=True``.

    Raises
    ------
    DataError
        No model folder, foreign or damaged JSON, weights missing, damaged, not finite or of another network.
    UsageError
        Its method needs MONAI, which is missing.
    """
    from segmentation.baselines.model import BaselineSegmenter
    from segmentation.model import ThreeWaySegmenter
    from segmentation.segmenter import read_description

    method = read_description(Path(folder)).get("method", THREE_WAY)
    return (ThreeWaySegmenter if method == THREE_WAY else BaselineSegmenter).load(folder)


def predictor_for(
    model: Segmenter,
    *,
    device: str | torch.device = "auto",
    batch: int | None = None,
    precision: str = "auto",
    compiled: bool = False,
) -> ScanPredictor:
    """Make a segmenter ready on a device; see `segmentation.predict.Predictor` for the parameters.

    Raises
    ------
    UsageError
        Unknown device or precision, a batch below one, or ``compiled`` with a method that is not.
    """
    from segmentation.baselines.model import BaselineSegmenter
    from segmentation.baselines.predict import BaselinePredictor
    from segmentation.model import ThreeWaySegmenter
    from segmentation.predict import Predictor

    if isinstance(model, ThreeWaySegmenter):
        return Predictor(model, device=device, batch=batch, precision=precision, compiled=compiled)
    if not isinstance(model, BaselineSegmenter):
        raise UsageError("this segmenter has no predictor", got=model.method)
    if compiled:
        raise UsageError(f"the method {model.method} is not compiled", remedy="leave --compile out")
    return BaselinePredictor(model, device=device, batch=batch, precision=precision)
