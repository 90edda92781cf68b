"""The same patient through four scanners: parenchyma and lesions keep their signal (paper III-B)."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from simulator.phantom.lesion_fields import FieldLesionSource
from simulator.phantom.patient import Patient, make_patient, scan_patient
from simulator.phantom.scanner import Scanner
from standard_space.embedding import embed
from standard_space.grid import StandardGrid
from standard_space.image import CTImage
from standard_space.window import Window

GRID = StandardGrid(96)

# name, noise, correlation, blur, sharpening, offset, level, width; field of view, matrix share, slice mm at 512
MACHINES = [
    (Scanner("a", 12.0, 0.7, 0.5, 0.0, 0.0, -600.0, 1600.0), 350.0, 1.0, 1.25),
    (Scanner("b", 25.0, 0.8, 0.5, 0.0, 40.0, -560.0, 1600.0), 380.0, 0.9, 2.0),
    (Scanner("c", 18.0, 0.5, 0.3, 0.35, -30.0, -630.0, 1600.0), 340.0, 1.0, 1.0),
    (Scanner("d", 35.0, 0.8, 0.5, 0.0, 15.0, -585.0, 1600.0), 400.0, 0.85, 1.5),
]
PARENCHYMA_WITHIN = 0.02
LESIONS_WITHIN = 0.03
"""Largest Wasserstein distance between two lesion histograms, in signal (0.03 is 48 HU at a width of 1600)."""


@pytest.fixture(scope="module")
def patient() -> Patient:
    return make_patient(11, 1)


def signals(
    patient: Patient, windows: Literal["tags", "taste", "auto"]
) -> tuple[list[float], list[np.ndarray]]:
    """Median parenchyma signal and lesion signals on every machine.

    "tags": each window follows its machine's calibration, as the paper has it; "taste": display presets that do
    not; "auto": `--window auto`, whatever the presets.
    """
    lesion = next(iter(FieldLesionSource(patient).over([5.0])))
    parenchyma, lesions = [], []
    for machine, view_mm, share, slice_mm in MACHINES:
        protocol = replace(
            patient.protocol,
            scanner=machine,
            field_of_view_mm=(view_mm, view_mm),
            matrix_share=(share, share),
            slice_mm_at_512=slice_mm,
        )
        scan = scan_patient(replace(patient, protocol=protocol), 1, 112, lesion.map)
        window: Window | Literal["auto"] = Window(machine.level_hu, machine.width_hu, "dicom")
        if windows == "taste":
            window = Window(-500.0, 1400.0, "dicom") if machine.name in "bd" else Window()
        if windows == "auto":
            window = "auto"
        image = CTImage(scan.image.astype(np.float32), scan.geometry)
        result = embed(image, GRID, infection=scan.infection, lungs=scan.lungs, window=window)
        assert result.infection is not None
        healthy = result.lungs & ~result.infection & ~result.vessels & ~result.airways
        parenchyma.append(float(np.median(result.signal[healthy])))
        lesions.append(result.signal[result.infection])
    return parenchyma, lesions


def farthest(lesions: list[np.ndarray]) -> float:
    return max(wasserstein_distance(a, b) for a in lesions for b in lesions)


@pytest.mark.parametrize("windows", ["tags", "auto"])
def test_the_machine_does_not_show(patient: Patient, windows: Literal["tags", "auto"]) -> None:
    parenchyma, lesions = signals(patient, windows)
    assert np.ptp(parenchyma) <= PARENCHYMA_WITHIN
    assert farthest(lesions) <= LESIONS_WITHIN
    if windows == "auto":
        assert np.median(parenchyma) == pytest.approx(-250 / 1600, abs=0.02)


def test_display_presets_do_show(patient: Patient) -> None:
    """Why `check` notes windows that differ within a patient: presets are taste, not calibration."""
    parenchyma, _ = signals(patient, "taste")
    assert np.ptp(parenchyma) > 2 * PARENCHYMA_WITHIN
