from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from segmentation.evaluation.scan_scores import METRICS
from segmentation.evaluation.summary import bootstrap_interval, by_patient, describe, mean, median, summarise


def row(patient: str, scan: str, dice: float, stage: str | None = None, **more: Any) -> dict[str, Any]:
    volumes = {"true_ml": 10.0, "predicted_ml": 10.0 * dice, "true_share": 0.1, "predicted_share": 0.1 * dice}
    return {
        "patient": patient,
        "scan": scan,
        "stage": stage,
        "group": "held_out",
        "reason": None,
        **dict.fromkeys(METRICS, dice),
        **volumes,
        **more,
    }


def test_describe() -> None:
    assert describe([0.2, 0.9, 0.4]) == pytest.approx(
        {"n": 3, "median": 0.4, "mean": 0.5, "sd": np.std([0.2, 0.9, 0.4], ddof=1), "worst": 0.2}
    )
    assert describe([])["median"] is None
    assert describe([0.5])["sd"] is None


def test_a_summary_counts_scans_patients_stages_and_failures() -> None:
    rows = [row("A", "1", 0.1, "early"), row("A", "2", 0.9, "late"), row("B", "1", 0.5, precision=None)]
    summary = summarise(rows, intervals=True)
    assert (summary["scans"], summary["patients"], summary["without_truth"]) == (3, 2, 0)
    assert summary["failures"]["scans"] == ["A/1"]
    assert summary["metrics"]["dice"]["mean"] == pytest.approx(0.5)
    assert summary["metrics"]["precision"]["n"] == 2
    assert summary["metrics"]["precision"]["median_interval"] is None  # of one patient only
    assert {stage: found["dice"]["worst"] for stage, found in summary["per_stage"].items()} == {
        "early": 0.1,
        "late": 0.9,
    }
    errors = np.array([-9.0, -1.0, -5.0])
    assert summary["volume_ml"]["rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)))
    assert summary["volume_ml"]["worst_error"] == pytest.approx(9.0)
    low, high = summary["volume_ml"]["rmse_interval"]
    assert low <= summary["volume_ml"]["rmse"] <= high
    assert "mean_interval" not in summarise(rows)["metrics"]["dice"]


def test_patients_are_drawn_and_not_scans() -> None:
    """Ten scans of a patient that say the same are one observation: the interval is that of the patients alone."""
    values = np.random.default_rng(1).random(8)
    single = bootstrap_interval([values[k : k + 1] for k in range(8)], mean)
    repeated = bootstrap_interval([np.repeat(values[k], 10) for k in range(8)], mean)
    assert single is not None
    assert repeated == pytest.approx(single)
    as_if_apart = bootstrap_interval([values[k : k + 1] for k in range(8)] * 10, mean)
    assert as_if_apart is not None
    assert as_if_apart[1] - as_if_apart[0] < 0.5 * (single[1] - single[0])


def test_the_interval_is_that_of_a_plain_bootstrap() -> None:
    rng = np.random.default_rng(3)
    groups = [rng.random(int(size)) for size in rng.integers(1, 4, 12)]
    found = bootstrap_interval(groups, mean)
    twin = []
    for _ in range(4000):
        drawn = rng.integers(0, len(groups), len(groups))
        twin.append(np.concatenate([groups[k] for k in drawn]).mean())
    assert found == pytest.approx(np.percentile(twin, [2.5, 97.5]), abs=0.015)
    middle = [np.median(np.concatenate([groups[k] for k in rng.integers(0, 12, 12)])) for _ in range(4000)]
    assert bootstrap_interval(groups, median) == pytest.approx(np.percentile(middle, [2.5, 97.5]), abs=0.04)
    assert found == bootstrap_interval(groups, mean)


def test_one_patient_has_no_interval() -> None:
    assert bootstrap_interval([np.array([0.1, 0.9])], mean) is None
    assert [
        values.tolist()
        for values in by_patient([row("B", "1", 0.2), row("A", "1", 0.3)], lambda r: r["dice"])
    ] == [
        [0.3],
        [0.2],
    ]
