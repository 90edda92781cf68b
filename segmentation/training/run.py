"""A whole run: a method's networks, here or elsewhere, at once or in parts, and the model at its end."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from segmentation.device import choose_device
from segmentation.methods import load_segmenter, recipe_of
from segmentation.segmenter import Segmenter
from segmentation.training.checkpoint import ViewState
from segmentation.training.coverage import note_what_is_not_drawn
from segmentation.training.distributed import Ranks, joined, world_size
from segmentation.training.finish import finish, finished_model
from segmentation.training.items import TrainingItem
from segmentation.training.loop import ViewTrainer, train_view
from segmentation.training.material import Material, Notes, material_of
from segmentation.training.memory import out_of_memory_told
from segmentation.training.mixture import grid_size_of
from segmentation.training.options import TrainingOptions
from segmentation.training.parallel import train_on_devices
from segmentation.training.pool import Note
from segmentation.training.run_folder import RunFolder, is_begun, stored_run
from segmentation.training.validation import ValidationSlices
from segmentation.views import VIEWS
from simulator.sampler import ProgressionSampler
from standard_space.errors import UsageError
from standard_space.progress import Progress, silent


def train(
    originals: Sequence[TrainingItem],
    synthetic: Sequence[TrainingItem] = (),
    *,
    validation: Sequence[TrainingItem] = (),
    sampler: ProgressionSampler | None = None,
    options: TrainingOptions | None = None,
    device: str | torch.device = "auto",
    folder: str | Path | None = None,
    resume: bool = False,
    progress: Progress = silent,
    note: Note | None = None,
) -> Segmenter:
    """Train a method's networks, by default the three-way method's, on a cohort and, optionally, its augmentation.

    Scans without infection annotation are left out. With the same seed, options and inputs the weights are
    bit-identical on the same processor and number of threads, whether the run was interrupted or not, and each
    view's weights do not depend on the others being trained.

    Parameters
    ----------
    originals, synthetic : sequence of TrainingItem
        All on one grid; `items_of` makes them from a cohort.
    validation : sequence of TrainingItem
        To keep the best weights by, and to tune the threshold on. Their patients are not trained on.
    sampler : ProgressionSampler, optional
        For progressions on the fly, with ``margin_mm=40`` or more; of no validation patient.
    options : TrainingOptions, optional
        Defaults, or with `resume` those of the run in `folder`.
    device : str or torch.device
        "auto" takes a GPU when there is one, and a GPU for each view when there are several.
    folder : str or Path, optional
        Keeps checkpoints and the history, and in the end the model. Empty, or with `resume` holding a run.
    resume : bool
        Continue what `folder` holds, or begin.
    progress : Progress
        Called with ("xy loss 0.412 Dice 0.63", steps done, steps) after each step.
    note : callable, optional
        Told in one sentence about scans left out.

    Raises
    ------
    DataError
        No annotated scan, scans on different grids, training that diverged, or too little memory.
    UsageError
        A device that is not there, or options that contradict each other or the stored run.
    """
    model = train_views(
        originals,
        synthetic,
        validation=validation,
        sampler=sampler,
        options=options,
        device=device,
        folder=folder,
        resume=resume,
        progress=progress,
        note=note,
    )
    if model is None:
        raise UsageError("other processes still train views of this folder", where=folder)
    return model


def train_views(
    originals: Sequence[TrainingItem],
    synthetic: Sequence[TrainingItem] = (),
    *,
    views: Sequence[str] | None = None,
    validation: Sequence[TrainingItem] = (),
    sampler: ProgressionSampler | None = None,
    options: TrainingOptions | None = None,
    device: str | torch.device = "auto",
    devices: Sequence[str] | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    arguments: dict[str, Any] | None = None,
    progress: Progress = silent,
    note: Note | None = None,
) -> Segmenter | None:
    """Train some of the views; whoever trains the last one makes the model. See `train`.

    Parameters
    ----------
    views : sequence of str, optional
        To train here; all when absent, or without a folder. A rival has other networks, see `Recipe.parts`.
    devices : sequence of str, optional
        Where processes of their own train the views, some of them several in turn where there are fewer devices.
    force : bool
        Replace the model or run that `folder` holds.
    arguments : dict, optional
        Of the command, kept in the folder.

    Returns
    -------
    Segmenter or None
        None while views are left to be trained elsewhere.
    """
    stored = stored_run(folder) if folder is not None and resume and not force else None
    if options is None:
        options = TrainingOptions() if stored is None else TrainingOptions.from_json(stored["options"])
        given = stored is None
    else:
        given = stored is None or options.steps is not None or options.epochs is not None
    if stored is not None and is_begun(folder, options):
        # What the user brings is in the checkpoints by now; its file may be gone.
        options = replace(options, encoder_weights=None)
    recipe = recipe_of(options.method)
    views = checked_views(views, recipe.parts, folder)
    several = devices or _one_gpu_each(device, views)
    with ExitStack() as stack:
        stack.enter_context(out_of_memory_told())
        ranks, chosen = stack.enter_context(joined(choose_device(device)))
        notes = Notes(note if ranks.first else None)
        material = material_of(originals, synthetic, validation, sampler, options, notes)
        count = len(material.originals) or len(material.synthetic)
        if count == 0 and sampler is not None:
            count = len(sampler.entries)
        steps = options.steps_for(count) if given else int((stored or {})["steps"])
        # Before the folder is touched, so that what cannot be trained leaves nothing behind.
        grid_size = grid_size_of(material.training, material.sampler, options, notes)
        recipe.check(options, grid_size, ranks.world)
        if folder is None and not several:
            if ranks.world > 1:
                raise UsageError("several processes need a folder to write the model into")
            return _in_memory(options, steps, material, notes, chosen, progress)
        if folder is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
        run = None
        if ranks.first:
            run = RunFolder.opened(
                folder, options, steps, material.data, resume=resume, force=force, arguments=arguments
            )
            if not several:
                stack.enter_context(run.holding(views))
        run = ranks.shared(run)
        if several:
            train_on_devices(run, material, views, several, notes, progress)
        else:
            train_here(run, views, material, notes, chosen, ranks, progress)
        model = finish(run, material, notes, chosen) if ranks.first else None
        whole = ranks.shared(model is not None)
        return load_segmenter(run.folder) if whole and model is None else model


def train_here(
    run: RunFolder,
    views: Sequence[str],
    material: Material,
    notes: Notes,
    device: torch.device,
    ranks: Ranks,
    progress: Progress,
) -> None:
    """Train views in this process, from where a run's folder says they stand."""
    states = [ranks.shared(run.state(view) if ranks.first else None) for view in views]
    todo = [state for state in states if not state.is_done(run.steps)]
    if not todo:
        return
    mixture = material.mixture(run.options, run.begun_with, notes, ahead=device.type != "cpu")

    def keep(state: ViewState) -> None:
        state.notes = sorted({*state.notes, *notes.texts})
        if ranks.first:
            run.keep(state)

    for state in todo:
        note_what_is_not_drawn(mixture, state.view, run.steps, notes)
        slices = None
        if material.validation and ranks.first:
            slices = ValidationSlices(material.validation, state.view, run.options, mixture.grid_size, notes)
        trainer = ViewTrainer(state, run.options, run.steps, device, ranks, begun_with=run.begun_with)
        for text in state.notes:
            notes(text)
        train_view(trainer, mixture, slices=slices, keep=keep, progress=progress if ranks.first else silent)


def checked_views(
    views: Sequence[str] | None, parts: Sequence[str], folder: str | Path | None
) -> tuple[str, ...]:
    """Return the views to train in their usual order; all of a method's parts when absent.

    Raises
    ------
    UsageError
        An unknown view, none, or not all of them where no folder keeps them.
    """
    if views is None:
        return tuple(parts)
    for view in views:
        if view not in parts:
            remedy = (
                None if tuple(parts) == VIEWS else "the method has networks of its own: leave --views out"
            )
            raise UsageError("unknown view", got=view, expected=", ".join(parts), remedy=remedy)
    if not views or (folder is None and len(set(views)) < len(parts)):
        raise UsageError(
            "a model needs all its views", got=", ".join(views) or "none", expected=", ".join(parts)
        )
    return tuple(part for part in parts if part in views)


def _in_memory(
    options: TrainingOptions,
    steps: int,
    material: Material,
    notes: Notes,
    device: torch.device,
    progress: Progress,
) -> Segmenter:
    mixture = material.mixture(options, steps, notes, ahead=device.type != "cpu")
    states = {}
    for view in recipe_of(options.method).parts:
        note_what_is_not_drawn(mixture, view, steps, notes)
        slices = None
        if material.validation:
            slices = ValidationSlices(material.validation, view, options, mixture.grid_size, notes)
        trainer = ViewTrainer(ViewState(view), options, steps, device)
        for text in trainer.state.notes:
            notes(text)
        states[view] = train_view(trainer, mixture, slices=slices, progress=progress)
    return finished_model(states, options, mixture, material, notes, device)


def _one_gpu_each(device: str | torch.device, views: Sequence[str]) -> list[str] | None:
    """The GPUs for processes of their own, where there are several and nothing else was asked for."""
    count = torch.cuda.device_count() if str(device) == "auto" and world_size() == 1 else 0
    return (
        [f"cuda:{index}" for index in range(min(count, len(views)))] if min(count, len(views)) > 1 else None
    )
