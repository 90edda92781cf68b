"""The model of a finished run: best weights, threshold tuned on validation scans, provenance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from segmentation.aggregation import DEFAULT_THRESHOLD, LEARNED_RULES, Aggregation
from segmentation.figures import training_figure
from segmentation.model import ThreeWaySegmenter
from segmentation.training.checkpoint import ViewState
from segmentation.training.coverage import drawn_from
from segmentation.training.history import CURVES, kept_history
from segmentation.training.items import TrainingItem, loaded_or_noted, patient_records
from segmentation.training.material import Material, Notes
from segmentation.training.mixture import Mixture
from segmentation.training.options import TrainingOptions
from segmentation.training.run_folder import RunFolder, preparing
from segmentation.tuning import not_tuned_on, tune
from segmentation.unet import UNet
from segmentation.views import VIEWS
from simulator.figures import save_figure
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
) -> ThreeWaySegmenter:
    """Make the model of three trained views and tune its threshold.

    Parameters
    ----------
    mixture : Mixture
        What was drawn from.

    Raises
    ------
    DataError
        No validation scan can be tuned on.
    """
    ordered = [states[view] for view in VIEWS]
    reached = {state.view: state.step for state in ordered}
    said = {*notes.texts, *(text for state in ordered for text in state.notes)}
    training: dict[str, Any] = {
        "options": options.to_json(),
        "seed": options.seed,
        "steps_per_view": reached,
        "patch": mixture.patch,
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
    untuned = "sum>t" if options.rule in LEARNED_RULES else options.rule
    threshold = DEFAULT_THRESHOLD if options.rule in LEARNED_RULES else options.untuned_threshold
    model = ThreeWaySegmenter(
        {state.view: _network(state, options) for state in ordered},
        mixture.grid_size,
        aggregation=Aggregation(untuned, threshold),
        target=options.target,
        input_window=options.input_window,
        training=training,
    )
    if material.validation:
        training["best_step"] = {state.view: state.best_step for state in ordered}
        for state in ordered:
            if state.best_dice == 0.0:
                notes(f"view {state.view}: no validation found anything, its newest weights are kept")
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


def _mark(folder: Path, model: ThreeWaySegmenter) -> None:
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


def _network(state: ViewState, options: TrainingOptions) -> UNet:
    network = UNet(width=options.width)
    network.load_state_dict(state.final_weights)
    return network.eval()
