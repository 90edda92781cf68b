"""A stored model's rule tuned anew on the scans of patients that the model was not trained on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from segmentation.aggregation import LEARNED_RULES
from segmentation.evaluation.cohort_scores import skipped
from segmentation.evaluation.scan_scores import group_of
from segmentation.methods import check_rule, load_segmenter, recipe_of
from segmentation.segmenter import MODEL_FILE, Segmenter, image_sha256, patient_sha256
from segmentation.tuning import Tuned, not_tuned_on, tune
from standard_space.cohort import Cohort, Entry
from standard_space.errors import DataError, LungcastError, UsageError
from standard_space.files import write_json
from standard_space.folders import folder_lock
from standard_space.jobs import told
from standard_space.progress import Progress, silent
from standard_space.scan import Scan


@dataclass
class TunedFolder:
    """What came of it: the rule, the scans tuned on, those left out (sentences), and failures by scan name."""

    tuned: Tuned
    scans: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


def tune_folder(
    folder: str | Path,
    cohort: Cohort,
    *,
    rule: str | None = None,
    device: str | torch.device = "auto",
    progress: Progress = silent,
) -> TunedFolder:
    """Tune a rule on a cohort and write it into a model's folder; no weight of a network changes.

    Only the model's JSON is replaced, at once. It keeps the hashes of the patients used, beside those of earlier
    tunings, under ``training["validation_patients"]``: their scans are never held out again.

    Parameters
    ----------
    folder : str or Path
        Of the model.
    cohort : Cohort
        Of patients that the model was not trained on, on its grid. Synthetic scans are left out.
    rule : str, optional
        The method's usual one when absent.
    device
        See `tune`.

    Raises
    ------
    UsageError
        A scan's patient or image is in the model's training set; nothing is changed. Unknown rule or device.
    DataError
        The model cannot be read, or no scan holds anything of its target.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError("there is no such model folder", where=folder)
    with folder_lock(folder):
        model = load_segmenter(folder)
        _refuse_training_patients(model, cohort)
        rule = recipe_of(model.method).rules[0] if rule is None else check_rule(model.method, rule)
        run = _Scans(model, cohort, progress, passes=2 if rule in LEARNED_RULES else 1)
        tuned = tune(model, run, rule=rule, device=device)
        description = json.loads((folder / MODEL_FILE).read_text(encoding="utf-8"))
        description["aggregation"] = tuned.aggregation.to_json()
        known = description["training"].get("validation_patients", [])
        description["training"]["validation_patients"] = merged_patients(known, run.patients)
        description["scores"]["tuning"] = {
            **tuned.aggregation.to_json(),
            "space": "standard",
            "median_dice": tuned.median_dice,
            "scans": tuned.scans,
        }
        write_json(folder / MODEL_FILE, description)
    return TunedFolder(tuned, [entry.name for entry in run.used], run.left_out, run.failures)


def merged_patients(
    known: Sequence[dict[str, Any]], more: Sequence[tuple[str, str | None]]
) -> list[dict[str, Any]]:
    """Add (patient hash, image hash) pairs to the list of patients that a model keeps."""
    images = {record["patient_sha256"]: set(record["image_sha256"]) for record in known}
    for patient, image in more:
        images.setdefault(patient, set()).update([] if image is None else [image])
    return [{"patient_sha256": key, "image_sha256": sorted(images[key])} for key in sorted(images)]


class _Scans:
    """The scans to tune on, read one at a time whenever they are gone through.

    The first time it is kept whose they were and what went wrong; later only those that were used are read.
    """

    def __init__(self, model: Segmenter, cohort: Cohort, progress: Progress, *, passes: int) -> None:
        self._model, self._cohort, self._progress = model, cohort, progress
        self._done, self._total = 0, passes * len(cohort.entries)
        self._known = False
        self.used: list[Entry] = []
        self.patients: list[tuple[str, str | None]] = []
        self.left_out: list[str] = []
        self.failures: dict[str, str] = {}

    def __iter__(self) -> Iterator[Scan]:
        known, self._known = self._known, True
        for entry in self._cohort.entries:
            scan = self._again(entry) if known else self._first(entry)
            if scan is not None:
                yield scan
            self._done += 1
            self._progress(entry.name, self._done, self._total)

    def _first(self, entry: Entry) -> Scan | None:
        reason = skipped(entry, self._model.target)
        scan = None if reason is not None else told(self._cohort.read, entry)
        if isinstance(scan, LungcastError):
            self.failures[entry.name] = str(scan)
            return None
        if scan is not None:
            self._model.check_scan_grid(scan)
            reason = not_tuned_on(scan, self._model.target)
        if scan is None or reason is not None:
            self.left_out.append(f"{entry.name}: {reason}")
            return None
        self.used.append(entry)
        self.patients.append((patient_sha256(scan.patient), image_sha256(scan)))
        return scan

    def _again(self, entry: Entry) -> Scan | None:
        return self._cohort.read(entry) if entry in self.used else None


def _refuse_training_patients(model: Segmenter, cohort: Cohort) -> None:
    seen = []
    for entry in cohort.entries:
        if skipped(entry, model.target) is not None:
            continue
        head = told(cohort.head, entry)
        # A file that cannot be read is named when its turn comes; its patient is known all the same.
        image = None if isinstance(head, LungcastError) else head["provenance"].get("image_sha256")
        if group_of(model, entry.patient, image)[0] == "training":
            seen.append(entry.name)
    if seen:
        raise UsageError(
            "the model was trained on patients of this cohort, who cannot tune it as well",
            where=cohort.folder,
            got=", ".join(seen[:5]) + (f" and {len(seen) - 5} more" if len(seen) > 5 else ""),
            remedy="tune on other patients",
        )
