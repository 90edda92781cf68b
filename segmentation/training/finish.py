"""The model of a finished run: best weights, threshold tuned on validation scans, provenance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from segmentation.aggregation import DEFAULT_THRESHOLD, LEARNED_RULES, Aggregation
from segmentation.figures import training_figure
from segmentation.model import ThreeWaySegmenter
from segmentation.training.checkpoint import ViewState
from segmentation.training.history import CURVES, kept_history
from segmentation.training.items import patient_records, readable
from segmentation.training.material import Material, Notes
from segmentation.training.mixture import grid_size_of
from segmentation.training.options import TrainingOptions
from segmentation.training.run_folder import RunFolder, preparing
from segmentation.tuning import tune
from segmentation.unet import UNet
from segmentation.views import VIEWS
from simulator.figures import save_figure
from standard_space.errors import DataError


def finished_model(
    states: Mapping[str, ViewState],
    options: TrainingOptions,
    grid_size: int,
    material: Material,
    notes: Notes,
    device: torch.device,
) -> ThreeWaySegmenter:
    """Make the model of three trained views and tune its threshold.

    Raises
    ------
    DataError
        No validation scan can be tuned on.
    """
    ordered = [states[view] for view in VIEWS]
    training: dict[str, Any] = {
        "options": options.to_json(),
        "seed": options.seed,
        "steps_per_view": {state.view: state.step for state in ordered},
        "patch": options.patch_for(grid_size),
        "device": device.type,
        "originals": len(material.originals),
        "synthetic": len(material.synthetic),
        "on_the_fly": 0 if material.sampler is None else len(material.sampler.entries),
        "history": kept_history(ordered),
        "patients": patient_records(material.training, material.sampler),
        "validation_patients": patient_records(material.validation),
        "stopped_early": [state.view for state in ordered if state.stopped],
    }
    untuned = "sum>t" if options.rule in LEARNED_RULES else options.rule
    threshold = DEFAULT_THRESHOLD if options.rule in LEARNED_RULES else options.untuned_threshold
    model = ThreeWaySegmenter(
        {state.view: _network(state, options) for state in ordered},
        grid_size,
        aggregation=Aggregation(untuned, threshold),
        target=options.target,
        input_window=options.input_window,
        training=training,
    )
    if material.validation:
        training["best_step"] = {state.view: state.best_step for state in ordered}
        tuned = tune(model, readable(material.validation, notes), rule=options.rule, device=device)
        model.aggregation = tuned.aggregation
        model.scores = {
            "validation": {
                "median_dice": tuned.median_dice,
                "scans": len(material.validation),
                "slices_dice": {state.view: state.best_dice for state in ordered},
            }
        }
    training["notes"] = sorted({*notes.texts, *(text for state in ordered for text in state.notes)})
    return model


def finish(
    run: RunFolder, material: Material, notes: Notes, device: torch.device
) -> ThreeWaySegmenter | None:
    """Write the model of a folder whose views are all trained; None while some are not.

    A model that is there already, whole and of these steps, is left as it is.
    """
    with preparing(run.folder):
        states = run.states()
        if len(states) < len(VIEWS) or not all(state.is_done(run.steps) for state in states.values()):
            return None
        reached = {view: states[view].step for view in VIEWS}
        try:
            model = ThreeWaySegmenter.load(run.folder)
            if model.training.get("steps_per_view") == reached and (run.folder / CURVES).is_file():
                return model
        except DataError:  # not written yet, or half: it is made now
            pass
        grid_size = grid_size_of(material.training, material.sampler, run.options, notes)
        model = finished_model(states, run.options, grid_size, material, notes, device)
        run.write_history()
        save_figure(training_figure(model.training["history"]), run.folder / CURVES)
        model.save(run.folder)
        return model


def _network(state: ViewState, options: TrainingOptions) -> UNet:
    network = UNet(width=options.width)
    network.load_state_dict(state.final_weights)
    return network.eval()
