"""The demo: the whole road on a small phantom cohort, with a report at its end.

Training, validation and test patients come from different seeds. All carry lesions from random fields, which
share nothing with the dynamics that make the synthetic training scans.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segmentation.evaluation.cohort_scores import evaluate, score_cohort
from segmentation.evaluation.figures import scores_figure
from segmentation.evaluation.tables import format_scores
from segmentation.figures import segmentation_figure, training_figure
from segmentation.methods import predictor_for
from segmentation.report import Section, write_report
from segmentation.results.segment_image import segment_image
from segmentation.segmenter import Segmenter
from segmentation.threshold_baseline import ThresholdBaseline, tune_threshold_baseline
from segmentation.training import TrainingOptions, items_of, train
from segmentation.tuning import tune
from simulator.augmentation import AugmentationSettings
from simulator.augmentation_figure import chosen_for_sheet, sheet_figure
from simulator.augmentation_plan import Ratios
from simulator.augmentation_run import augment_cohort, prepare_folder
from simulator.cohort_fit import fit_cohort
from simulator.figure_style import save_figure
from simulator.figures import scan_figure
from simulator.fit_figure import fit_figure
from simulator.fits import CohortFits, StoredFit
from simulator.phantom import make_cohort
from simulator.simulation import simulate_scan
from standard_space.cohort import Cohort
from standard_space.errors import DataError
from standard_space.files import write_json, write_mark
from standard_space.grid import StandardGrid
from standard_space.ingest import EmbedSettings, embed_cohort
from standard_space.manifest import read_manifest
from standard_space.progress import Progress, silent
from standard_space.version import lungcast_version


@dataclass(frozen=True)
class DemoSize:
    """How large the demo is; the same code runs at any size.

    Patients and scans of each for training, validation (of the threshold) and test; ratio of the augmentation;
    optimiser steps per view; width of the networks.
    """

    grid: int = 128
    training: tuple[int, int] = (12, 2)
    validation: tuple[int, int] = (3, 2)
    test: tuple[int, int] = (8, 2)
    ratio: float = 0.5
    steps: int = 750
    width: int = 8
    film_days: float = 3.0
    film_every: float = 0.25


@dataclass(frozen=True)
class DemoResult:
    """Median Dice on unseen patients of the trained model and of the best HU threshold."""

    model_dice: float
    threshold_dice: float
    report: Path


def run_demo(
    out: str | Path,
    *,
    seed: int = 0,
    size: DemoSize | None = None,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda text: None,
) -> DemoResult:
    """Walk the whole road and leave `out/report/index.html`.

    Parameters
    ----------
    out : str or Path
        Folder for the cohorts, fits, simulation, model, segmentation, scores and the report.
    seed : int
        Of everything random.
    size : DemoSize, optional
        How large.
    progress, say : callable
        Told what is at work; `say` gets a line at the beginning of each step.

    Raises
    ------
    LungcastError
        When a step fails.
    """
    out, size = Path(out), size or DemoSize()
    figures = out / "report"
    grid = StandardGrid(size.grid)

    patients = (
        f"{size.training[0]} training, {size.validation[0]} validation and {size.test[0]} test patients"
    )
    say(f"1/7  phantom: {patients}")
    options: dict[str, Any] = {"grid": size.grid, "lesions": "fields", "progress": progress}
    sets = {"": size.training, "validation_": size.validation, "test_": size.test}
    for number, (name, (count, scans)) in enumerate(sets.items()):
        make_cohort(out / f"{name}data", patients=count, scans=scans, seed=3 * seed + number, **options)

    say("2/7  embed: every scan into the standard space")
    cohort, validation, test = (
        _embed(out / f"{name}data", out / f"{name}cohort", grid, progress) for name in sets
    )

    say("3/7  fit: eight parameters per pair of scans")
    fits = fit_cohort(cohort, progress=progress)
    fits.save(out / "fits.json")
    shown = _best_pair(fits)
    save_figure(fit_figure(shown), figures / "fit.png")

    say("4/7  simulate and augment: the infections played on")
    source = cohort.find(shown.patient, shown.to_scan)
    simulate_scan(
        cohort,
        source,
        out / "simulation",
        days=size.film_days,
        every=size.film_every,
        seed=seed,
        fits_path=out / "fits.json",
        progress_to=progress,
    )
    for name in ("progression.gif", "volumes.png"):
        (figures / name).write_bytes((out / "simulation" / name).read_bytes())
    settings = AugmentationSettings(Ratios(size.ratio), seed)
    prepare_folder(out / "augmented", cohort, settings)
    outcome = augment_cohort(cohort, out / "augmented", fits, settings, progress=progress)
    if outcome.failures:
        raise DataError("augmentation failed", got="; ".join(outcome.failures.values()))
    augmented = Cohort.open(out / "augmented", sources=cohort)

    say(f"5/7  train: three networks, {size.steps} steps each")
    model = train(
        items_of(cohort),
        items_of(augmented),
        options=TrainingOptions(steps=size.steps, width=size.width, seed=seed),
        progress=progress,
    )
    model.aggregation = tune(model, (validation.read(entry) for entry in validation.entries)).aggregation
    model.save(out / "model")
    write_mark(out / "model", "model", {"lungcast_version": lungcast_version(), "model_id": model.model_id})
    save_figure(training_figure(model.training["history"]), figures / "training.png")

    say("6/7  segment and evaluate: patients the networks never saw")
    baseline = tune_threshold_baseline(cohort.read(entry) for entry in cohort.entries)
    scores = evaluate(model, test, progress=progress)
    rival = score_cohort(model, test, baseline.native_mask, progress=progress)
    write_json(out / "scores.json", scores)
    write_json(out / "scores_threshold.json", rival)
    say(format_scores(scores))
    segment_image(model, read_manifest(out / "test_data" / "manifest.csv")[0].image, out / "segmentation")

    say("7/7  report")
    report = _report(figures, size, cohort, augmented, test, model, scores, rival, baseline, shown)
    write_mark(out, "demo", {"lungcast_version": lungcast_version(), "seed": seed, "grid": size.grid})
    return DemoResult(_median(scores), _median(rival), report)


def _embed(data: Path, folder: Path, grid: StandardGrid, progress: Progress) -> Cohort:
    outcome = embed_cohort(data / "manifest.csv", folder, EmbedSettings(grid), progress=progress)
    if outcome.failures:
        raise DataError("embedding failed", got="; ".join(outcome.failures.values()))
    return Cohort.open(folder)


def _best_pair(fits: CohortFits) -> StoredFit:
    """The pair of two real scans with most infected voxels on both sides of 0: it shows both peaks best."""
    real = [stored for stored in fits.fits if stored.from_scan != "t0"] or fits.fits
    if not real:
        raise DataError("no pair could be fitted", got="; ".join(fits.failures.values()))
    return max(real, key=lambda stored: min(stored.fit.observed[:30].sum(), stored.fit.observed[30:].sum()))


def _median(scores: dict[str, Any]) -> float:
    return float(scores["groups"]["held_out"]["metrics"]["dice"]["median"])


def _report(
    figures: Path,
    size: DemoSize,
    cohort: Cohort,
    augmented: Cohort,
    test: Cohort,
    model: Segmenter,
    scores: dict[str, Any],
    rival: dict[str, Any],
    baseline: ThresholdBaseline,
    shown: StoredFit,
) -> Path:
    source = cohort.read(cohort.find(shown.patient, shown.to_scan))
    save_figure(scan_figure(source), figures / "scan.png")
    synthetic = chosen_for_sheet(augmented.entries, 3)
    beside = "Sources (left), synthetic scans (middle), their annotation (right)"
    augmented_figures = [("augmented.png", beside)] if synthetic else []
    if synthetic:
        save_figure(sheet_figure(cohort, augmented, synthetic), figures / "augmented.png")
    save_figure(scores_figure({"three-way": scores, "HU threshold": rival}), figures / "scores.png")
    predictor = predictor_for(model)
    dice = [row["dice"] for row in scores["scans"]]
    typical = int(np.argsort(dice)[len(dice) // 2])
    names = []
    for place, label in ((typical, "a typical case"), (int(np.argmin(dice)), "the worst case")):
        row = scores["scans"][place]
        scan = test.read(test.find(row["patient"], row["scan"]))
        name = f"segmentation_{label.split()[-2]}.png"
        save_figure(segmentation_figure(scan, predictor.predict(scan).mask, row["dice"]), figures / name)
        names.append((name, f"{label}: {row['patient']}/{row['scan']}, found (orange) and truth (green)"))
    table = [["unseen scan", "Dice", "recall", "precision", "true ml", "found ml", "Dice of HU threshold"]]
    for row, other in zip(scores["scans"], rival["scans"], strict=True):
        cells = ["-" if row[key] is None else f"{row[key]:.2f}" for key in ("dice", "recall", "precision")]
        volumes = [f"{row[key]:.1f}" for key in ("true_ml", "predicted_ml")]
        table.append([f"{row['patient']}/{row['scan']}", *cells, *volumes, f"{other['dice']:.2f}"])
    table.append(["median", f"{_median(scores):.2f}", "", "", "", "", f"{_median(rival):.2f}"])
    sections = [
        Section(
            "A scan in the standard space",
            f"{source.name} on the {size.grid}^3 grid, centred on the lungs; lungs outlined, infection tinted.",
            [("scan.png", "Axial, coronal and sagittal slices through the infection")],
        ),
        Section(
            "Fit",
            f"How the signal distribution of {shown.patient} moved from {shown.from_scan} to {shown.to_scan}, and "
            "the eight transition parameters that explain it. 0 is the window level.",
            [("fit.png", "Signal distribution before, observed and fitted")],
        ),
        Section(
            "Simulation",
            f"The fitted dynamics played on for {size.film_days:g} days.",
            [("progression.gif", "Film of the progression"), ("volumes.png", "Volumes over days")],
        ),
        Section(
            "Augmentation",
            f"{len(augmented.entries)} synthetic scans, each with its annotation, beside their sources.",
            augmented_figures,
        ),
        Section(
            "Segmentation",
            f"Three networks trained for {size.steps} steps each, scored on {len(dice)} scans of patients they "
            f"never saw, on the native grid; threshold {model.aggregation.threshold:g} on the sum, tuned on "
            f"validation patients. Rival: the best band of HU inside the lungs ({baseline.low_hu:g} to "
            f"{baseline.high_hu:g} HU), tuned on the same training patients.",
            [
                *names,
                ("scores.png", "Dice of every unseen scan"),
                ("training.png", "Loss of the three views"),
            ],
            table,
        ),
    ]
    return write_report(
        figures,
        "lungcast demo",
        "Phantom patients whose lesions come from random fields that share nothing with the dynamics: scans in, "
        "fitted dynamics, new annotated scans, a trained three-way segmenter and its scores out.",
        sections,
    )
