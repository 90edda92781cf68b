"""Scores of one trained model and of its variants that need no training: single views, other rules."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from segmentation.aggregation import LEARNED_RULES, RULES, Aggregation, usual_threshold
from segmentation.evaluation.cohort_scores import skipped, without_place
from segmentation.evaluation.scan_scores import ScoringOptions, no_truth, score_scan
from segmentation.methods import predictor_for
from segmentation.results.native import box_to_native
from segmentation.runs import Box
from segmentation.scan_predictor import ScanPredictor
from segmentation.segmenter import Segmenter
from segmentation.study.plan import Run, StudyPlan
from segmentation.study.records import OWN, SCORES, Row
from segmentation.study.unnormalised import unnormalised
from segmentation.tuning import tune_with
from segmentation.views import VIEWS
from standard_space.cohort import Cohort, Entry
from standard_space.errors import DataError, LungcastError
from standard_space.jobs import told
from standard_space.progress import Progress, silent
from standard_space.scan import Scan

VIEW_CUT = 2.0 / 3.0
"""Threshold of one view alone where no validation patient tunes it: its part of the paper's rule."""

RULE_WORDS = {"sum>t": "sum"}
"""In the names of variants."""

METRICS = SCORES
VOLUMES = ("true_ml", "predicted_ml", "true_share", "predicted_share")


@dataclass
class RunScores:
    """What a model scored: rows, mean seconds per prediction, and what went wrong by scan."""

    rows: list[Row] = field(default_factory=list)
    predict_s: float | None = None
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Variant:
    """A way to make a mask of a model's views.

    Attributes
    ----------
    name : str
        Of `Row.variant`; empty for the model as it is.
    aggregation : Aggregation
    view : int, optional
        The only view it looks at.
    """

    name: str
    aggregation: Aggregation
    view: int | None = None

    def seen(self, views: Tensor) -> Tensor:
        """The views it looks at."""
        return views if self.view is None else views[self.view : self.view + 1]


class OneView(ScanPredictor):
    """A predictor that shows one view of another."""

    def __init__(self, whole: ScanPredictor, view: int) -> None:
        super().__init__(whole.model, device=whole.device)
        self._whole, self._view = whole, view

    def views(self, scan: Scan, *, progress: Progress = silent) -> tuple[Tensor, Box]:
        """See `ScanPredictor.views`."""
        found, box = self._whole.views(scan, progress=progress)
        return found[self._view : self._view + 1], box


class Scans:
    """Scans of some entries, read one at a time whenever they are gone through.

    One that cannot be read is passed over: training has left it out and said so.
    """

    def __init__(self, cohort: Cohort, entries: Sequence[Entry], *, normalised: bool) -> None:
        self._cohort, self._entries, self._normalised = cohort, entries, normalised

    def __iter__(self) -> Iterator[Scan]:
        for entry in self._entries:
            scan = told(self._cohort.read, entry)
            if not isinstance(scan, LungcastError):
                yield scan if self._normalised else unnormalised(scan)


def variants_of(
    model: Segmenter, plan: StudyPlan, run: Run, predictor: ScanPredictor, validation: Scans | None
) -> list[Variant]:
    """Return what is scored of a model: itself, and where the plan says so each view and each rule.

    Thresholds and learned rules are tuned on the validation patients of the model's fold, never on test patients.
    """
    found = [Variant("", model.aggregation)]
    if plan.scored_views(run.arm):
        for place, view in enumerate(VIEWS):
            rule = Aggregation("mean", VIEW_CUT)
            if validation is not None:
                rule = tune_with(OneView(predictor, place), validation, rule="mean").aggregation
            found.append(Variant(f"view={view}", rule, place))
    if plan.scored_rules(run.arm):
        for name in RULES:
            if name in ("mean", model.aggregation.rule):  # the mean is the rule sum>t on another scale
                continue
            if validation is not None:
                rule = tune_with(predictor, validation, rule=name).aggregation
                found.append(Variant(f"rule={RULE_WORDS.get(name, name)}", rule))
            elif name not in LEARNED_RULES:
                rule = Aggregation(name, usual_threshold(name))
                found.append(Variant(f"rule={RULE_WORDS.get(name, name)}", rule))
    return found


def score_run(
    model: Segmenter,
    plan: StudyPlan,
    run: Run,
    own: tuple[Cohort, Sequence[Entry]],
    validation: Sequence[Entry],
    tests: dict[str, Cohort],
    *,
    device: str | torch.device = "auto",
    progress: Progress = silent,
) -> RunScores:
    """Score a model on its fold's test patients and on every external cohort, on the native grid.

    A scan that fails is named and the others are scored.

    Parameters
    ----------
    own : (Cohort, entries)
        The cohort of the folds, and its entries of the fold's test patients.
    validation : sequence of Entry
        Of the same cohort, of the fold's validation patients.
    tests : dict of str to Cohort
        By name.

    A patient that the model was trained or tuned on is such a failure.
    """
    predictor = predictor_for(model, device=device)
    normalised = "normalise" not in run.arm.parts
    tuned_on = Scans(own[0], validation, normalised=normalised) if validation else None
    variants = variants_of(model, plan, run, predictor, tuned_on)
    todo = [(OWN, own[0], entry) for entry in own[1]]
    todo += [(name, cohort, entry) for name, cohort in tests.items() for entry in cohort.entries]
    todo = [(name, cohort, entry) for name, cohort, entry in todo if skipped(entry, model.target) is None]
    result, seconds = RunScores(), []
    for done, (name, cohort, entry) in enumerate(todo, 1):

        def score(entry: Entry, name: str = name, cohort: Cohort = cohort) -> tuple[list[Row], float]:
            scan = cohort.read(entry)
            reason = no_truth(scan, model.target)
            if reason is not None:
                raise DataError(f"the scan cannot be scored: {reason}", where=entry.name)
            return _score(predictor, scan, variants, run, name, normalised)

        outcome = told(score, entry)
        if isinstance(outcome, LungcastError):
            result.failures[f"{name}: {entry.name}"] = without_place(outcome)
        else:
            result.rows += outcome[0]
            seconds.append(outcome[1])
        progress(f"score {entry.name}", done, len(todo))
    if seconds:
        result.predict_s = sum(seconds) / len(seconds)
    return result


@torch.inference_mode()
def _score(
    predictor: ScanPredictor, scan: Scan, variants: Sequence[Variant], run: Run, cohort: str, normalised: bool
) -> tuple[list[Row], float]:
    model = predictor.model
    began = time.perf_counter()
    seen = scan if normalised else unnormalised(scan)
    views, box = predictor.views(seen)
    seconds = 0.0
    rows = []
    for place, variant in enumerate(variants):
        combined = variant.aggregation.combine(variant.seen(views)).cpu().numpy()
        mask = box_to_native(combined, box, seen, variant.aggregation, target=model.target).mask
        if place == 0:
            seconds = time.perf_counter() - began
        scores = score_scan(model, scan, mask, ScoringOptions())
        if scores["group"] != "held_out":
            raise DataError(
                "a model knows the patient it is scored on", where=scan.name, got=scores["reason"]
            )
        infected = scores["true_ml"] > 0
        kept: dict[str, Any] = {
            name: scores[name] if infected or name == "specificity" else None for name in METRICS
        }
        rows.append(
            Row(
                method=run.arm.method,
                generator=run.arm.generator,
                ratio=run.arm.ratio,
                variant=";".join(filter(None, [run.arm.variant, variant.name])),
                folds=run.folds,
                fold=run.fold,
                seed=run.seed,
                cohort=cohort,
                patient=scan.patient,
                scan=scan.scan,
                stage=scan.stage,
                scanner=scan.provenance.get("scanner"),
                **kept,
                **{name: scores[name] for name in VOLUMES},
            )
        )
    return rows, seconds
