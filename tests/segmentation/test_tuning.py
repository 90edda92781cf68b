from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from segmentation.aggregation import LEARNED_RULES, RULES, Aggregation, usual_threshold
from segmentation.evaluation.metrics import dice
from segmentation.model import ThreeWaySegmenter
from segmentation.predict import predict_scan
from segmentation.tuning import thresholds_of, tune
from standard_space.errors import DataError, UsageError
from standard_space.restore import restore_mask
from standard_space.scan import Scan

from .toys import toy_scan


def untrained(seed: int = 8, **options: str) -> ThreeWaySegmenter:
    return ThreeWaySegmenter.untrained(32, width=2, seed=seed, **options)  # type: ignore[arg-type]


def dice_of(model: ThreeWaySegmenter, aggregation: Aggregation, scan: Scan) -> float:
    mask = predict_scan(replace(model, aggregation=aggregation), scan, device="cpu").mask
    assert scan.infection is not None
    return dice(mask, scan.infection)


@pytest.mark.parametrize("rule", RULES)
def test_the_score_of_every_rule_is_that_of_the_masks_it_makes(rule: str) -> None:
    model, scan = untrained(), toy_scan(seed=3)
    found = tune(model, [scan, toy_scan(annotated=False)], rule=rule, device="cpu")
    assert found.aggregation.rule == rule
    assert (found.aggregation.weights is not None) == (rule in LEARNED_RULES)
    chosen = found.thresholds.index(found.aggregation.threshold)
    assert found.scores[chosen] == found.median_dice == max(found.scores)
    for place in (chosen, len(found.thresholds) // 3, len(found.thresholds) // 2):
        at = found.aggregation.at(found.thresholds[place])
        assert dice_of(model, at, scan) == pytest.approx(found.scores[place], abs=1e-12)
    assert model.aggregation == Aggregation()


def test_the_median_over_scans_counts_and_no_threshold_does_better() -> None:
    model, scans = untrained(), [toy_scan(seed=seed) for seed in (1, 2, 3)]
    found = tune(model, (scan for scan in scans), device="cpu")
    for threshold in np.linspace(0.9, 2.1, 9):
        scores = [dice_of(model, Aggregation(threshold=float(threshold)), scan) for scan in scans]
        assert np.median(scores) <= found.median_dice + 1e-3
    assert found.median_dice == pytest.approx(
        np.median([dice_of(model, found.aggregation, scan) for scan in scans]), abs=1e-12
    )


def test_learned_rules_give_the_same_numbers_again() -> None:
    model = untrained()
    first, again = (
        tune(model, [toy_scan(seed=seed) for seed in (1, 2)], rule="logistic", device="cpu") for _ in range(2)
    )
    assert first == again
    assert first.aggregation.weights is not None


def test_a_learned_rule_finds_the_view_that_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """One view is right, one is noise, one is always wrong: the paper's sum fails, the learned rules do not."""
    scan = toy_scan(seed=3)
    assert scan.infection is not None
    truth = torch.from_numpy(scan.infection).float()
    noise = torch.rand(truth.shape, generator=torch.Generator().manual_seed(0))
    views = torch.stack([0.1 + 0.8 * truth, noise, 0.9 - 0.8 * truth])
    whole = (slice(0, 32),) * 3
    monkeypatch.setattr("segmentation.predict.Predictor.views", lambda self, scan: (views, whole))
    model = untrained()
    plain = tune(model, [scan], device="cpu")
    assert plain.median_dice < 0.8
    for rule in LEARNED_RULES:
        found = tune(model, [scan], rule=rule, device="cpu")
        assert found.median_dice > 0.99
        assert found.aggregation.weights is not None
        assert int(np.argmax(found.aggregation.weights)) == 0


def test_among_equal_thresholds_the_usual_one_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = toy_scan(seed=3)
    assert scan.infection is not None
    views = torch.from_numpy(scan.infection).float().expand(3, -1, -1, -1)
    monkeypatch.setattr(
        "segmentation.predict.Predictor.views", lambda self, scan: (views, (slice(0, 32),) * 3)
    )
    for rule in ("sum>t", "product", "majority"):
        found = tune(untrained(), [scan], rule=rule, device="cpu")
        assert found.median_dice == 1.0
        assert found.aggregation.threshold == pytest.approx(usual_threshold(rule), abs=1e-3)
    assert tune(untrained(), [scan], device="cpu").aggregation == Aggregation()


def test_a_probability_at_the_threshold_is_not_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = toy_scan(seed=3)
    assert scan.infection is not None
    views = torch.from_numpy(scan.infection).float().expand(3, -1, -1, -1) * 0.5
    whole = (slice(0, 32),) * 3
    monkeypatch.setattr("segmentation.predict.Predictor.views", lambda self, scan: (views, whole))
    found = tune(untrained(), [scan], rule="majority", device="cpu")
    scores = dict(zip(found.thresholds, found.scores, strict=True))
    assert (scores[0.499], scores[0.5]) == (1.0, 0.0)


def test_infection_outside_the_lungs_counts_as_missed() -> None:
    model, scan = untrained(), toy_scan(seed=3)
    assert scan.infection is not None
    infection = scan.infection.copy()
    infection[:3] = True
    assert not scan.lungs[:3].any()
    beyond = replace(scan, infection=infection)
    found = tune(model, [beyond], device="cpu")
    assert found.median_dice == pytest.approx(dice_of(model, found.aggregation, beyond), abs=1e-12)


def test_a_sample_of_both_kinds_still_counts_them_as_often_as_they_occur(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scan = toy_scan(seed=3)
    assert scan.infection is not None
    truth = torch.from_numpy(scan.infection).float()
    noise = torch.randn((3, *truth.shape), generator=torch.Generator().manual_seed(0))
    views = torch.sigmoid(2.0 * truth - 1.0 + noise)
    whole = (slice(0, 32),) * 3
    monkeypatch.setattr("segmentation.predict.Predictor.views", lambda self, scan: (views, whole))
    everything = tune(untrained(), [scan], rule="logistic", device="cpu").aggregation
    monkeypatch.setattr("segmentation.tuning.SAMPLED_VOXELS", 250)
    assert scan.infection.sum() > 250
    sample = tune(untrained(), [scan], rule="logistic", device="cpu").aggregation
    assert sample.weights != everything.weights
    healthy = (scan.lungs & ~scan.infection).sum()
    if_balanced = np.log(healthy / scan.infection.sum())
    assert if_balanced > 1.0
    assert abs(sample.bias - everything.bias) < 0.5 * if_balanced


def with_native_lungs(scan: Scan, source: str) -> Scan:
    own = restore_mask(scan.lungs, scan.placement)
    return replace(scan, native_lungs=own, provenance={**scan.provenance, "lungs": source})


def test_a_model_of_the_lungs_is_tuned_on_the_whole_grid() -> None:
    model, scan = untrained(target="lungs"), with_native_lungs(toy_scan(annotated=False), "user")
    found = tune(model, [scan], device="cpu")
    mask = predict_scan(replace(model, aggregation=found.aggregation), scan, device="cpu").mask
    assert dice(mask, scan.lungs) == pytest.approx(found.median_dice, abs=1e-12)


def test_a_model_of_the_lungs_is_tuned_on_the_users_own_lungs_only() -> None:
    model = untrained(target="lungs")
    found_by_lungcast = toy_scan(seed=2)
    found_by_lungmask = with_native_lungs(toy_scan(seed=4), "lungmask")
    own = with_native_lungs(toy_scan(seed=3), "user")
    found = tune(model, [found_by_lungcast, own, found_by_lungmask], device="cpu")
    assert found == tune(model, [own], device="cpu")
    assert found.scans == 1
    with pytest.raises(DataError, match="lung masks of your own"):
        tune(model, [found_by_lungcast, found_by_lungmask], device="cpu")


@pytest.mark.parametrize("rule", ["sum>t", "logistic"])
def test_scans_that_are_skipped_are_not_counted(rule: str) -> None:
    scan = toy_scan(seed=3)
    assert scan.infection is not None
    healthy = replace(scan, infection=np.zeros_like(scan.infection))
    found = tune(untrained(), [healthy, scan, toy_scan(annotated=False)], rule=rule, device="cpu")
    assert found.scans == 1


def test_a_learned_rule_needs_scans_it_can_read_again() -> None:
    with pytest.raises(UsageError, match="twice"):
        tune(untrained(), iter([toy_scan(seed=1)]), rule="svm", device="cpu")


def test_scans_that_are_others_the_second_time_are_refused() -> None:
    class Shrinking:
        def __init__(self) -> None:
            self.seeds = [1, 2, 3]

        def __iter__(self) -> Iterator[Scan]:
            self.seeds.pop()
            return (toy_scan(seed=seed) for seed in self.seeds)

    with pytest.raises(DataError, match=r"changed while the rule was learned.*got 1 scans, expected 2"):
        tune(untrained(), Shrinking(), rule="weighted", device="cpu")


def test_thresholds_lie_on_the_scale_of_the_rule() -> None:
    assert (thresholds_of("sum>t")[0], thresholds_of("sum>t")[-1]) == (0.0, 3.0)
    assert 2.0 in thresholds_of("sum>t")
    assert (thresholds_of("svm")[-1], usual_threshold("svm")) == (1.0, 0.5)


@pytest.mark.parametrize("rule", ["sum>t", "logistic"])
def test_nothing_to_tune_on_is_an_error(rule: str) -> None:
    scan = toy_scan()
    assert scan.infection is not None
    healthy = replace(scan, infection=np.zeros_like(scan.infection))
    for validation in ([], [toy_scan(annotated=False)], [healthy]):
        with pytest.raises(DataError, match="no validation scan"):
            tune(untrained(), validation, rule=rule, device="cpu")


def test_unknown_rules_and_other_grids_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown aggregation rule"):
        tune(untrained(), [toy_scan()], rule="vote", device="cpu")
    with pytest.raises(DataError, match="different grids"):
        tune(untrained(), [toy_scan(size=48)], device="cpu")
