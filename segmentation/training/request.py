"""A run as the command `train` asks for it: plain values that are kept with the run, and what they name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from segmentation.methods import THREE_WAY, options_for
from segmentation.training.cut import MARGIN_MM, TYPICAL_SHARE
from segmentation.training.items import TrainingItem, items_of, validation_patients
from segmentation.training.options import TrainingOptions
from segmentation.training.run_folder import encoder_sha256_of
from simulator.fits import CohortFits
from simulator.sampler import ProgressionSampler
from standard_space.cohort import Cohort, open_with_sources
from standard_space.errors import UsageError

SOURCE_BYTES_PER_VOXEL = 9
"""Of a source that volumes are made of: its signal twice and its masks."""

VOLUMES_IN_A_ROW = 4
"""Made of a source before the next one comes up, where not all sources fit into memory."""

Arguments = dict[str, Any]
"""Fields of `TrainingOptions`, and `augmented` (list of paths), `fits`, `validation` (paths), `validation_share`,
`on_the_fly`. None, or no key, is what was not asked for."""


def resumed(stored: dict[str, Any], given: Arguments, steps: int | None) -> Arguments:
    """Return the arguments of a stored run, with other steps where they are given.

    Parameters
    ----------
    stored : dict
        See `stored_run`.
    given : dict
        What the user named again.
    steps : int or None

    Raises
    ------
    UsageError
        What is named again differs, or the run was not begun by the command.
    DataError
        The encoder weights that are named again cannot be read.
    """
    known = stored["arguments"]
    if known is None:
        raise UsageError(
            "this run was not begun by `lungcast train`", remedy="continue it where it was begun"
        )
    # Older runs name no method. A file is known by its content: it may have moved.
    began = {"method": THREE_WAY, **known, "encoder_weights": stored.get("encoder_sha256")}
    again = {**given}
    if "encoder_weights" in given:
        again["encoder_weights"] = encoder_sha256_of(given["encoder_weights"])
    for name, value in again.items():
        if began.get(name) != value:
            raise UsageError(
                f"the run that is continued was begun with another {name.replace('_', ' ')}",
                got=value,
                expected=began.get(name),
                remedy="leave the option out, or begin anew with --force",
            )
    kept = {**known, "encoder_weights": given.get("encoder_weights", known.get("encoder_weights"))}
    return {**kept, "steps": stored["steps"] if steps is None else steps, "epochs": None}


def options_of(arguments: Arguments) -> TrainingOptions:
    """Return the training options among the arguments.

    Raises
    ------
    UsageError
        A value is out of range, or one lacks the other that it needs.
    """
    known = {field.name for field in fields(TrainingOptions)}
    given = {name: value for name, value in arguments.items() if name in known and value is not None}
    if (arguments.get("on_the_fly") is None) != (arguments.get("fits") is None):
        raise UsageError("--on-the-fly SHARE and --fits FITS go together")
    if arguments.get("validation") is not None and arguments.get("validation_share") is not None:
        raise UsageError("--validation and --validation-share exclude each other")
    if arguments.get("on_the_fly") is not None:
        given["on_the_fly_share"] = arguments["on_the_fly"]
    if given.get("slice_offsets_mm") is not None:
        given["slice_offsets_mm"] = tuple(given["slice_offsets_mm"])
    return options_for(given.pop("method", THREE_WAY), **given)


def offsets_in(text: str | None) -> list[float] | None:
    """Return the slice offsets of a text such as "-5,-2,0,2,5", mm.

    Raises
    ------
    UsageError
        Not numbers.
    """
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError("slice offsets are numbers between commas, mm", got=text) from None


def absolute(path: Path | None) -> str | None:
    """Return a path as it is kept with a run: good from any folder."""
    return None if path is None else str(path.resolve())


def opened(cohort: str | Path, arguments: Arguments, options: TrainingOptions) -> dict[str, Any]:
    """Open what the arguments name, as keywords for `train_views`.

    Patients that are validated on are kept out of the volumes made on the fly; `train_views` keeps them out of
    the rest.

    Raises
    ------
    UsageError
        A folder is no cohort, the same synthetic scans twice, or fewer patients than a validation share needs.
    DataError
        The fits are not of the cohort.
    """
    originals = Cohort.open(cohort)
    items = items_of(originals)
    synthetic = [
        item
        for folder in arguments.get("augmented") or ()
        for item in items_of(Cohort.open(folder, sources=originals))
    ]
    _refuse_twice(synthetic)
    validation = []
    if arguments.get("validation") is not None:
        validation = items_of(open_with_sources(arguments["validation"]))
    if arguments.get("validation_share") is not None:
        chosen = validation_patients(items, arguments["validation_share"], options.seed, options.target)
        validation = [item for item in items if item.patient in chosen]
    sampler = None
    if arguments.get("fits") is not None:
        fits = CohortFits.load(arguments["fits"])
        fits.check(originals)
        observed = [item for item in validation if not item.synthetic]
        whose, images = {item.patient for item in observed}, {item.image_sha256 for item in observed} - {""}
        mixed = {item.name for item in items if item.patient in whose or item.image_sha256 in images}
        apart = without_entries(originals, mixed)
        sampler = sampler_of(apart, fits, options, kinds=2 if synthetic else 1)
    return {"originals": items, "synthetic": synthetic, "validation": validation, "sampler": sampler}


def _refuse_twice(items: Iterable[TrainingItem]) -> None:
    seen = set()
    for item in items:
        key = (item.name, item.content_sha256)
        if key in seen:
            raise UsageError(
                "the same synthetic scans are named twice", got=item.name, remedy="name each --augmented once"
            )
        seen.add(key)


def without_entries(cohort: Cohort, names: set[str]) -> Cohort:
    """Return a cohort without some scans.

    Raises
    ------
    UsageError
        None is left.
    """
    entries = [entry for entry in cohort.entries if entry.name not in names]
    if not entries:
        raise UsageError("every scan of the cohort is for validation", where=cohort.folder)
    return Cohort(cohort.folder, entries, cohort.sources)


def sampler_of(
    cohort: Cohort, fits: CohortFits, options: TrainingOptions, *, kinds: int
) -> ProgressionSampler:
    """Make the sampler of a run, with its part of the memory.

    Parameters
    ----------
    kinds : int
        Of stored scans that share the memory with it: originals alone, or synthetic ones as well.
    """
    memory_gb = options.memory_mb * 2**20 / 1e9 / (kinds + 2)
    head = cohort.head(cohort.entries[0])
    wanted_gb = (
        len(cohort.entries)
        * int(head["grid"]) ** 3
        * TYPICAL_SHARE["infection"]
        * SOURCE_BYTES_PER_VOXEL
        / 1e9
    )
    return ProgressionSampler(
        cohort,
        fits,
        seed=options.seed,
        margin_mm=MARGIN_MM,
        memory_gb=memory_gb,
        in_a_row=1 if wanted_gb <= memory_gb else VOLUMES_IN_A_ROW,
    )
