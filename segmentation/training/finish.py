"""The model of a finished run: best weights, threshold tuned on validation scans, provenance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segmentation.aggregation import LEARNED_RULES, Aggregation, usual_threshold
from segmentation.figures import training_figure
from segmentation.methods import THREE_WAY, load_segmenter, recipe_of
from segmentation.model import ThreeWaySegmenter
from segmentation.segmenter import Segmenter, seeded_torch
from segmentation.training.checkpoint import ViewState
from segmentation.training.coverage import drawn_from
from segmentation.training.history import CURVES, kept_history
from segmentation.training.items import TrainingItem, loaded_or_noted, patient_records
from segmentation.training.material import Material, Notes
from segmentation.training.mixture import Mixture
from segmentation.training.options import TrainingOptions
from segmentation.training.recipe import Recipe
from segmentation.training.run_folder import RunFolder, preparing
from segmentation.training.three_way import offsets_of
from segmentation.tuning import not_tuned_on, tune
from segmentation.views import VIEWS
from simulator.figure_style import save_figure
from standard_space.errors import DataError
from standard_space.files import read_mark, write_mark
from standard_space.scan import Scan
from standard_space.version import lungcast_version


def finished_model(
    states: Mapping[str, ViewState],
    options: TrainingOptions,
    mixture: Mixture,
    material: Material,
    notes: Notes,
    device: torch.device,
) -> Segmenter:
    """Make the model of trained networks and tune its threshold.

    Parameters
    ----------
    mixture : Mixture
        What was drawn from.

    Raises
    ------
    DataError
        No validation scan can be tuned on.
    """
    recipe = recipe_of(options.method)
    ordered = [states[view] for view in recipe.parts]
    reached = {state.view: state.step for state in ordered}
    said = {*notes.texts, *(text for state in ordered for text in state.notes)}
    training: dict[str, Any] = {
        "options": options.without_paths(),
        "seed": options.seed,
        "steps_per_view": reached,
        "patch": _patch(recipe, options, mixture.grid_size),
        "device": device.type,
        "originals": len(material.originals),
        "synthetic": len(material.synthetic),
        "drawn": drawn_from(mixture, reached, said),
        "on_the_fly": 0 if material.sampler is None else len(material.sampler.entries),
        "history": kept_history(ordered),
        "patients": patient_records(material.training, material.sampler),
        "validation_patients": patient_records(material.validation),
        "stopped_early": [state.view for state in ordered if state.stopped and state.step < state.steps],
    }
    learned = options.rule in LEARNED_RULES
    untuned = recipe.rules[0] if learned else options.rule
    threshold = usual_threshold(untuned) if learned else options.untuned_threshold
    networks = {state.view: _network(state, options) for state in ordered}
    model = segmenter_of(networks, mixture.grid_size, options, Aggregation(untuned, threshold), training)
    if material.validation:
        training["best_step"] = {state.view: state.best_step for state in ordered}
        for state in ordered:
            if state.best_dice == 0.0:
                notes(f"{_said(state.view)}: no validation found anything, its newest weights are kept")
        scans = _Readable(material.validation, options.target, notes)
        tuned = tune(model, scans, rule=options.rule, device=device)
        model.aggregation = tuned.aggregation
        model.scores = {
            "validation": {
                **tuned.aggregation.to_json(),
                "space": "standard",
                "median_dice": tuned.median_dice,
                "scans": tuned.scans,
                "slices_dice": {state.view: state.best_dice for state in ordered},
            }
        }
    training["notes"] = sorted({*said, *notes.texts})
    return model


def finish(run: RunFolder, material: Material, notes: Notes, device: torch.device) -> Segmenter | None:
    """Write the model of a folder whose views are all trained; None while some are not.

    A model that is there already, whole and of these steps, is left as it is.
    """
    with preparing(run.folder):
        states = run.states()
        if len(states) < len(run.views) or not all(state.is_done(run.steps) for state in states.values()):
            return None
        reached = {view: states[view].step for view in run.views}
        try:
            model = load_segmenter(run.folder)
            if model.training.get("steps_per_view") == reached and (run.folder / CURVES).is_file():
                _mark(run.folder, model)
                for text in model.training.get("notes", []):
                    notes(text)
                return model
            if "tuning" in model.scores:
                rule = f"{model.aggregation.rule}, t = {model.aggregation.threshold:g}"
                notes(f"the rule of `lungcast tune` ({rule}) was that of fewer steps: tune again")
        except DataError:  # not written yet, or half: it is made now
            pass
        mixture = material.mixture(run.options, run.begun_with, notes)
        model = finished_model(states, run.options, mixture, material, notes, device)
        run.write_history(states.values())
        save_figure(training_figure(model.training["history"]), run.folder / CURVES)
        model.save(run.folder)
        return model


def _mark(folder: Path, model: Segmenter) -> None:
    """Say what the folder holds, where the process was killed between the model and its mark."""
    mark = read_mark(folder)
    if mark is None or mark["provenance"].get("model_id") != model.model_id:
        write_mark(folder, "model", {"model_id": model.model_id, "version": lungcast_version()})


class _Readable:
    """Scans read one at a time, each time they are gone through; those that cannot be tuned on are named."""

    def __init__(self, items: Sequence[TrainingItem], target: str, notes: Notes) -> None:
        self._items, self._target, self._notes = items, target, notes

    def __iter__(self) -> Iterator[Scan]:
        for item in self._items:
            scan = loaded_or_noted(item, self._notes)
            if scan is None:
                continue
            reason = not_tuned_on(scan, self._target)
            if reason is None:
                yield scan
            else:
                self._notes(f"{item.name}: left out of tuning, {reason}")


def segmenter_of(
    networks: Mapping[str, nn.Module],
    grid_size: int,
    options: TrainingOptions,
    aggregation: Aggregation,
    training: dict[str, Any],
) -> Segmenter:
    """Make the segmenter of a method's trained networks."""
    if options.method != THREE_WAY:
        from segmentation.baselines.model import trained_segmenter

        return trained_segmenter(networks, grid_size, options, aggregation, training)
    return ThreeWaySegmenter(
        dict(networks),  # type: ignore[arg-type]  # its recipe makes U-Nets
        grid_size,
        dict.fromkeys(VIEWS, offsets_of(options)),
        aggregation=aggregation,
        target=options.target,
        input_window=options.input_window,
        training=training,
    )


def _patch(recipe: Recipe, options: TrainingOptions, grid_size: int) -> int | list[int]:
    """Return the side of the training patches, voxels; of unequal ones all sides, (z, y, x)."""
    sides = recipe.example_shape(options, grid_size)
    return sides[0] if len(set(sides)) == 1 else list(sides)


def _said(view: str) -> str:
    return f"view {view}" if view in VIEWS else view


def _network(state: ViewState, options: TrainingOptions) -> nn.Module:
    with seeded_torch(options.seed, state.view, "weights"):
        network = recipe_of(options.method).network(state.view, options)
    network.load_state_dict(state.final_weights)
    return network.eval()
