"""Small cohorts shared by the tests of this package."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from simulator.phantom import CohortSummary, make_cohort
from standard_space.geometry import Geometry
from standard_space.image import read_image, read_mask


@dataclass
class Written:
    """A cohort on disk with everything a test asks about it."""

    summary: CohortSummary
    rows: list[dict[str, str]]
    truth: dict[str, Any]

    def load(self, row: dict[str, str]) -> tuple[NDArray[Any], Geometry, NDArray[Any], NDArray[Any]]:
        """HU, geometry, lungs, infection of one row."""
        folder = self.summary.folder
        image = read_image(folder / row["image"])
        lungs = read_mask(folder / row["lungs"], image.geometry)
        infection = read_mask(folder / row["infection"], image.geometry)
        return image.array, image.geometry, np.array(lungs), np.array(infection)


def written(summary: CohortSummary) -> Written:
    with open(summary.manifest, newline="") as handle:
        rows = list(csv.DictReader(handle))
    return Written(summary, rows, json.loads(summary.truth.read_text()))


@pytest.fixture(scope="session")
def fields_cohort(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder: Path = tmp_path_factory.mktemp("fields")
    return written(make_cohort(folder, patients=8, scans=2, grid=64, seed=21, lesions="fields"))


@pytest.fixture(scope="session")
def dynamics_cohort(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder: Path = tmp_path_factory.mktemp("dynamics")
    return written(make_cohort(folder, patients=6, scans=3, grid=64, seed=22))


@pytest.fixture(params=["fields", "dynamics"])
def cohort(request: pytest.FixtureRequest) -> Written:
    found: Written = request.getfixturevalue(f"{request.param}_cohort")
    return found
