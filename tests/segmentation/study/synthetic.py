"""Results of studies with known effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from segmentation.study.records import CostRow, Row

STAGES = ("early", "progressive", "severe")
SCANNERS = ("A", "A", "B")


def row(**values: Any) -> Row:
    """A row with everything filled in; Dice 0.7 unless told otherwise."""
    dice = values.get("dice", 0.7)
    given: dict[str, Any] = {
        "method": "three-way",
        "generator": "none",
        "ratio": 0.0,
        "variant": "",
        "folds": 2,
        "fold": 1,
        "seed": 0,
        "cohort": "own",
        "patient": "p0",
        "scan": "t1",
        "stage": "early",
        "scanner": "A",
        "dice": dice,
        "recall": dice,
        "precision": 0.8,
        "specificity": 0.99,
        "iou": 0.6,
        "dice_2voxel": None if dice is None else min(1.0, dice + 0.1),
        "nsd": 0.75,
        "true_ml": 50.0,
        "predicted_ml": 55.0,
        "true_share": 0.02,
        "predicted_share": 0.022,
    }
    return Row(**{**given, **values})


def arm(**values: Any) -> dict[str, Any]:
    """A configuration by its columns, the three-way method as it is unless told otherwise."""
    return {"method": "three-way", "generator": "none", "ratio": 0.0, "variant": "", "folds": 3, **values}


def results(
    effects: Sequence[tuple[Mapping[str, Any], float]],
    *,
    patients: int = 16,
    scans: int = 2,
    seeds: Sequence[int] = (0,),
    external: Sequence[str] = (),
    spread: float = 0.02,
    seed: int = 1,
) -> list[Row]:
    """Rows of arms whose Dice lies by a known effect above what patient and scan make of it.

    Parameters
    ----------
    effects : sequence of (dict, float)
        Columns of an arm, see `arm`, and its effect on Dice.
    patients, scans : int
        Of each cohort; scans of each patient.
    seeds : sequence of int
    external : sequence of str
        Cohorts that every fold's model scores.
    spread : float
        SD of a model's luck on a scan.
    seed : int
    """
    rng = np.random.default_rng(seed)
    level = {
        (cohort, patient, scan): 0.6 + 0.06 * (patient % 3) + float(rng.normal(0.0, 0.04))
        for cohort in ("own", *external)
        for patient in range(patients)
        for scan in range(scans)
    }
    rows = []
    for columns, effect in effects:
        for (cohort, patient, scan), base in level.items():
            own = patient % columns["folds"] + 1
            for fold in [own] if cohort == "own" else range(1, columns["folds"] + 1):
                for training in seeds:
                    dice = float(np.clip(base + effect + rng.normal(0.0, spread), 0.01, 0.99))
                    true_ml = 20.0 + 5.0 * patient
                    rows.append(
                        row(
                            **columns,
                            fold=fold,
                            seed=training,
                            cohort=cohort,
                            patient=f"p{patient:02d}",
                            scan=f"t{scan}",
                            stage=STAGES[patient % 3],
                            scanner=SCANNERS[patient % 3],
                            dice=dice,
                            true_ml=true_ml,
                            predicted_ml=true_ml * (0.5 + dice),
                            true_share=true_ml / 3000,
                            predicted_share=true_ml * (0.5 + dice) / 3000,
                        )
                    )
    return rows


def without_infection(rows: Sequence[Row], found_ml: float) -> list[Row]:
    """The same rows on a cohort "healthy", where nothing is to be found."""
    nothing: dict[str, Any] = dict.fromkeys(
        ("dice", "recall", "precision", "iou", "dice_2voxel", "nsd", "stage", "scanner")
    )
    return [
        replace(
            one,
            **nothing,
            cohort="healthy",
            patient=f"h{one.patient}",
            true_ml=0.0,
            predicted_ml=found_ml,
            true_share=0.0,
            predicted_share=found_ml / 3000,
        )
        for one in rows
    ]


def costs(effects: Sequence[tuple[Mapping[str, Any], float]]) -> list[CostRow]:
    """What every model of these arms cost."""
    return [
        CostRow(
            **columns,
            fold=fold,
            seed=0,
            parameters=1_940_000,
            steps=500,
            train_s=60.0 * fold,
            predict_s=1.5,
            peak_memory_mb=900.0,
        )
        for columns, _ in effects
        for fold in range(1, columns["folds"] + 1)
    ]


OFFLINE = {"generator": "offline"}
WHOLE_STUDY: list[tuple[dict[str, Any], float]] = [
    (arm(), 0.0),
    *(
        (arm(**OFFLINE, ratio=ratio), effect)
        for ratio, effect in ((50.0, 0.03), (200.0, 0.06), (400.0, 0.05))
    ),
    (arm(generator="copy-paste", ratio=200.0), 0.02),
    (arm(generator="ellipsoids", ratio=200.0), 0.0),
    (arm(generator="on-the-fly", ratio=200.0), 0.06),
    (arm(variant="vary=off"), -0.05),
    (arm(method="unet2d"), -0.08),
    (arm(method="unet2d", **OFFLINE, ratio=200.0), -0.08),
    (arm(method="mueller"), -0.03),
    (arm(method="mueller", **OFFLINE, ratio=200.0), 0.0),
    (arm(method="mueller", variant="preprocess=off"), -0.09),
    (arm(method="mueller", variant="vary=off"), -0.06),
    (arm(method="mueller", folds=2), -0.04),
    *(
        (arm(**OFFLINE, ratio=200.0, variant=f"view={view}"), effect)
        for view, effect in (("xy", 0.02), ("yz", -0.01), ("xz", -0.02))
    ),
    (arm(**OFFLINE, ratio=200.0, variant="normalise=off"), -0.06),
    (arm(**OFFLINE, ratio=200.0, variant="rule=majority"), 0.058),
    (arm(**OFFLINE, ratio=200.0, variant="offsets=single"), 0.02),
]
"""A study with something to show in every table, and its effects."""
