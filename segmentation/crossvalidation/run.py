"""Cross-validation by patient: every scan scored once, by a model that never saw its patient (DESIGN 5)."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from segmentation.aggregation import LEARNED_RULES
from segmentation.crossvalidation.plan import FoldPlan, check_images, entries_for, plan_folds
from segmentation.device import choose_device
from segmentation.evaluation.cohort_scores import evaluate, groups_of
from segmentation.evaluation.figures import draw_scores
from segmentation.evaluation.scan_scores import ScoringOptions
from segmentation.evaluation.tables import scores_csv
from segmentation.methods import THREE_WAY, load_segmenter, options_for, predictor_for
from segmentation.scan_predictor import ScanPredictor
from segmentation.training import TrainingItem, TrainingOptions, items_of, train
from standard_space.cohort import Cohort
from standard_space.errors import DataError, LungcastError, OutOfSpaceError, UsageError
from standard_space.files import clear_temporaries, prepare_output_folder, write_json, write_mark, write_text
from standard_space.folders import check_apart, folder_lock, is_continued
from standard_space.jobs import told
from standard_space.progress import Progress, silent
from standard_space.scan import Scan
from standard_space.version import lungcast_version

SCORES, TABLE, FIGURES, MODEL = "scores.json", "scores.csv", "figures", "model"
KIND = "crossvalidation"


@dataclass
class Crossvalidation:
    """What a run did.

    Attributes
    ----------
    scores : dict or None
        As written to ``scores.json``: what `score_cohort` returns over all folds, every row with its ``fold``, and
        ``folds``, a dict each. None when no fold succeeded.
    kept : int
        Folds that an earlier run had finished.
    failures : dict
        Sentence by fold ("fold 2") or scan name.
    notes : dict
        Sentences by fold.
    """

    scores: dict[str, Any] | None = None
    kept: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)


def crossvalidate(
    cohort: Cohort,
    out: str | Path,
    *,
    folds: int = 5,
    augmented: Cohort | None = None,
    options: TrainingOptions | None = None,
    scoring: ScoringOptions | None = None,
    device: str | torch.device = "auto",
    force: bool = False,
    progress: Progress = silent,
) -> Crossvalidation:
    """Train, tune and score a model per fold and pool the scores.

    ``out/fold-K`` holds the model and the scores of its test patients; ``out`` the pooled scores, as JSON and
    CSV, and figures. Run again, it keeps finished folds and goes on with the one that was interrupted. A fold that
    fails is named and the others complete.

    Parameters
    ----------
    cohort : Cohort
    out : str or Path
        Folder to make, or one that the same request was working on.
    folds : int
        See `plan_folds`.
    augmented : Cohort, optional
        Synthetic scans of the cohort's patients, opened with it as ``sources``; trained on in the folds in which
        their patient is.
    options : TrainingOptions, optional
        The same for every fold, its seed included.
    scoring : ScoringOptions, optional
    device : str or torch.device
    force : bool
        Replace another request's results.
    progress : Progress
        Called with ("fold 1/5, view xy", done, total).

    Raises
    ------
    UsageError
        Fewer patients than folds, a learned rule without validation patients, or a folder that holds something
        else.
    DataError
        One image stands under several patients.
    """
    options, scoring, out = options or options_for(THREE_WAY), scoring or ScoringOptions(), Path(out)
    plans = plan_folds(entries_for(cohort, options.target), folds, options.seed)
    _check_rule(plans, options)
    items = items_of(cohort)
    originals = [item for item in items if not item.synthetic]
    synthetic = [item for item in items if item.synthetic]
    synthetic += [] if augmented is None else [item for item in items_of(augmented) if item.synthetic]
    check_images(originals)
    asked = _request(cohort, augmented, folds, options, scoring, choose_device(device).type)
    check_apart(out, [held.folder for held in (cohort, augmented) if held is not None])
    is_continued(out, KIND, asked, what="another cross-validation", force=force)
    result = Crossvalidation()
    with folder_lock(out):
        if is_continued(out, KIND, asked, what="another cross-validation", force=force):
            clear_temporaries(out)
        else:
            prepare_output_folder(out, KIND, force=force, provenance={**asked, "complete": False})
        runs = _Folds(cohort, originals, synthetic, options, scoring, device, out)
        done: list[dict[str, Any]] = []
        for plan in plans:
            name = f"fold {plan.number}"
            finished = runs.finished(plan)
            result.kept += finished is not None
            labelled = _Labelled(progress, f"{name}/{folds}")
            run = functools.partial(runs.run, progress=labelled)
            scores = told(run, plan) if finished is None else finished
            if isinstance(scores, OutOfSpaceError):
                raise scores
            if isinstance(scores, LungcastError):
                result.failures[name] = f"{name}: {scores}"
                continue
            done.append(scores)
            result.failures |= scores["failures"]
            if scores["notes"]:
                result.notes[name] = scores["notes"]
        if done:
            result.scores = pooled(done)
            _write(result.scores, out, cohort, device, _Labelled(progress, "figures"))
        write_mark(out, KIND, {**asked, "complete": True, "failed": sorted(result.failures)})
    return result


def pooled(done: list[dict[str, Any]]) -> dict[str, Any]:
    """Put the scores of folds together: every scan once.

    Raises
    ------
    DataError
        A scan was scored twice, or by a model that knows its patient: it cannot happen, and must not be told.
    """
    rows = [{**row, "fold": scores["fold"]} for scores in done for row in scores["scans"]]
    rows.sort(key=lambda row: (row["patient"], row["scan"]))
    names = [(row["patient"], row["scan"]) for row in rows]
    _check_held_out(rows)
    if len(set(names)) < len(names):
        raise DataError("the folds are not apart: a scan was scored twice")
    shared = ("target", "space", "nsd_tolerance_mm", "definitions", "intervals")
    per_fold = (
        "fold",
        "model_id",
        "aggregation",
        "training_patients",
        "validation_patients",
        "test_patients",
        "notes",
    )
    return {
        **{key: done[0][key] for key in shared},
        "folds": [
            {**{key: scores[key] for key in per_fold}, "held_out": scores["groups"]["held_out"]}
            for scores in done
        ],
        "scans": rows,
        "groups": groups_of(rows),
        "left_out": [text for scores in done for text in scores["left_out"]],
        "failures": {name: text for scores in done for name, text in scores["failures"].items()},
    }


@dataclass(frozen=True)
class _Folds:
    """What every fold is made from."""

    cohort: Cohort
    originals: list[TrainingItem]
    synthetic: list[TrainingItem]
    options: TrainingOptions
    scoring: ScoringOptions
    device: str | torch.device
    out: Path

    def finished(self, plan: FoldPlan) -> dict[str, Any] | None:
        """Return what an earlier run found; None when it came to no end or scans had failed."""
        path = self.out / f"fold-{plan.number}" / SCORES
        if not path.is_file():
            return None
        try:
            scores: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError:
            return None
        return None if scores["failures"] else scores

    def run(self, plan: FoldPlan, progress: Progress) -> dict[str, Any]:
        folder = self.out / f"fold-{plan.number}"
        notes: list[str] = []
        if not plan.validation:
            notes.append(
                f"no patient could be spared to tune on: threshold {self.options.untuned_threshold:.3g}"
                f" of the rule {self.options.rule}, untuned"
            )
        model = train(
            _of(self.originals, plan.training),
            _of(self.synthetic, plan.training),
            validation=_of(self.originals, plan.validation),
            options=self.options,
            device=self.device,
            folder=folder / MODEL,
            resume=True,
            progress=progress,
            note=notes.append,
        )
        tested = [entry for entry in self.cohort.entries if entry.patient in plan.test]
        test = Cohort(self.cohort.folder, tested, self.cohort.sources)
        scores = evaluate(model, test, device=self.device, options=self.scoring, progress=progress)
        _check_held_out(scores["scans"])
        content = {
            "fold": plan.number,
            "training_patients": list(plan.training),
            "validation_patients": list(plan.validation),
            "test_patients": list(plan.test),
            "notes": sorted(notes),
            **scores,
        }
        write_json(folder / SCORES, content)
        return content


def _write(
    scores: dict[str, Any], out: Path, cohort: Cohort, device: str | torch.device, progress: Progress
) -> None:
    write_json(out / SCORES, scores)
    write_text(out / TABLE, scores_csv(scores["scans"], more=["fold"]))

    @functools.lru_cache(maxsize=1)
    def predictor(fold: int) -> ScanPredictor:
        return predictor_for(load_segmenter(out / f"fold-{fold}" / MODEL), device=device)

    def found(row: Any) -> tuple[Scan, NDArray[np.bool_]]:
        scan = cohort.read(cohort.find(row["patient"], row["scan"]))
        return scan, predictor(row["fold"]).predict(scan).mask

    subject = f"{len(scores['folds'])} folds pooled"
    draw_scores(scores, out / FIGURES, found, subject=subject, progress=progress)


def _check_held_out(rows: list[dict[str, Any]]) -> None:
    known = [f"{row['patient']}/{row['scan']}" for row in rows if row["group"] != "held_out"]
    if known:
        raise DataError(
            "the folds are not apart: a model knows the patient it is scored on", got=", ".join(known)
        )


def _of(items: list[TrainingItem], patients: tuple[str, ...]) -> list[TrainingItem]:
    return [item for item in items if item.patient in patients]


@dataclass(frozen=True)
class _Labelled:
    """Progress that says which fold is at work."""

    progress: Progress
    label: str

    def __call__(self, item: str, done: int, total: int) -> None:
        self.progress(f"{self.label}, {item}", done, total)


def _check_rule(plans: list[FoldPlan], options: TrainingOptions) -> None:
    lonely = [str(plan.number) for plan in plans if not plan.validation]
    if lonely and options.rule in LEARNED_RULES:
        raise UsageError(
            f"the rule {options.rule} is learned on validation patients, and fold {', '.join(lonely)} has none",
            remedy="embed more patients, or use another rule",
        )


def _request(
    cohort: Cohort,
    augmented: Cohort | None,
    folds: int,
    options: TrainingOptions,
    scoring: ScoringOptions,
    device: str,
) -> dict[str, Any]:
    def contents(held: Cohort | None) -> dict[str, str]:
        return {} if held is None else {entry.name: entry.content_sha256 for entry in held.entries}

    return {
        "lungcast_version": lungcast_version(),
        "operation": "crossvalidate",
        "folds": folds,
        "options": options.without_paths(),
        "space": scoring.space,
        "nsd_tolerance_mm": scoring.nsd_tolerance_mm,
        "device": device,
        "sources": contents(cohort),
        "augmented": contents(augmented),
    }
