"""Lesions: where they lie, how large and how dense they are, how they change; both sources."""

from __future__ import annotations

import ast
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

import simulator.phantom.lesion_fields as lesion_fields
from simulator.dynamics.bins import N_BELOW
from simulator.dynamics.chain import propagate
from simulator.phantom.lesion_dynamics import draw_lesion, solve_births
from simulator.phantom.lesion_fields import (
    FieldLesionSource,
    mixture_quantiles,
    solid_share,
    stage_of,
    volume_ml,
)
from simulator.phantom.patient import make_patient
from tests.simulator.phantom.conftest import Written


def test_lesions_lie_within_the_lungs(cohort: Written) -> None:
    for row in cohort.rows:
        _, _, lungs, infection = cohort.load(row)
        assert infection.any()
        assert not (infection & ~lungs).any()
        assert infection.sum() < 0.5 * lungs.sum()


def test_lesions_are_subpleural_and_denser_than_lung(cohort: Written) -> None:
    nearer = denser = 0
    for row in cohort.rows:
        hu, geometry, lungs, infection = cohort.load(row)
        depth = ndimage.distance_transform_edt(lungs, sampling=geometry.spacing_mm[::-1])
        nearer += depth[infection].mean() < depth[lungs].mean()
        denser += np.median(hu[infection]) > np.median(hu[lungs & ~infection]) + 60
    assert nearer >= 0.7 * len(cohort.rows)
    assert denser >= 0.9 * len(cohort.rows)


def test_lesions_are_basal_and_posterior(cohort: Written) -> None:
    lower, back = [], []
    for row in cohort.rows:
        _, geometry, lungs, infection = cohort.load(row)
        lung_at = geometry.to_world(np.argwhere(lungs)[:, ::-1].astype(float))
        lesion_at = geometry.to_world(np.argwhere(infection)[:, ::-1].astype(float))
        lower.append(lung_at[:, 2].mean() - lesion_at[:, 2].mean())
        back.append(lesion_at[:, 1].mean() - lung_at[:, 1].mean())
    assert np.mean(lower) > 3.0
    assert np.mean(back) > 5.0


def test_sizes_and_components_are_those_of_real_lesions(cohort: Written) -> None:
    # Real ones (50 annotated scans): median 66 ml, 10 % below 17, 10 % above 156; 4 to 34 components.
    totals, components, largest = [], [], []
    for row in cohort.rows:
        _, geometry, _, infection = cohort.load(row)
        labels, _ = ndimage.label(infection, np.ones((3, 3, 3)))
        sizes = np.bincount(labels.ravel())[1:] * geometry.voxel_volume_ml
        sizes = sizes[sizes > 0.1]
        totals.append(sizes.sum())
        components.append(sizes.size)
        largest.append(sizes.max() / sizes.sum())
    assert 30 < np.median(totals) < 150
    assert min(totals) > 3
    assert max(totals) < 900
    assert 2 <= np.median(components) <= 35
    assert 0.2 < np.median(largest) < 0.95


def test_lesions_hold_ggo_and_consolidation(fields_cohort: Written) -> None:
    shares = []
    for row in fields_cohort.rows:
        hu, _, _, infection = fields_cohort.load(row)
        shares.append(float((hu[infection] > -200).mean()))
    assert 0.08 < np.median(shares) < 0.45
    assert max(shares) - min(shares) > 0.15


def test_most_pairs_grow(cohort: Written) -> None:
    ratios = []
    for patient in cohort.truth["patients"]:
        volumes = [scan["infection_ml"] for scan in patient["scans"]]
        ratios += [b / a for a, b in pairwise(volumes)]
    assert np.mean(np.array(ratios) > 1.0) > 0.6


def test_no_threshold_finds_the_lesions(fields_cohort: Written) -> None:
    scores = []
    for row in fields_cohort.rows:
        hu, _, lungs, infection = fields_cohort.load(row)
        best = 0.0
        for threshold in range(-800, -100, 50):
            found = lungs & (hu > threshold)
            best = max(best, 2 * (found & infection).sum() / (found.sum() + infection.sum()))
        scores.append(best)
    # Vessels, walls and partial volume stand in the way, yet lesions are there to be seen.
    assert np.median(scores) < 0.75
    assert np.median(scores) > 0.1


def test_fields_share_nothing_with_the_dynamics() -> None:
    folder = Path(lesion_fields.__file__).parent
    for path in folder.glob("*.py"):
        if path.name == "lesion_dynamics.py":
            continue
        tree = ast.parse(path.read_text())
        top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = [a.name for node in top for a in node.names]
        names += [node.module or "" for node in top if isinstance(node, ast.ImportFrom)]
        assert not any("dynamics" in name for name in names), path.name


def test_field_lesion_reaches_its_volume_and_moves() -> None:
    source = FieldLesionSource(make_patient(9, 1))
    moments = list(source.over([0.0, 3.0]))
    for day, moment in zip([0.0, 3.0], moments, strict=True):
        grown = (
            float((moment.map.extent_mm[source.patient.inner_mm < -0.5] > 0).sum())
            * moment.map.raster.voxel_ml
        )
        assert grown == pytest.approx(volume_ml(source.lesion, day), rel=0.02)
        assert moment.truth["solid_share"] == solid_share(source.lesion, day)
    assert (moments[0].map.extent_mm != moments[1].map.extent_mm).any()


def test_field_lesion_rises_peaks_and_decays() -> None:
    lesion = FieldLesionSource(make_patient(9, 0)).lesion
    peak = lesion.peak_days - lesion.onset_days
    days = np.linspace(0.0, peak, 20)
    volumes = [volume_ml(lesion, float(d)) for d in days]
    assert np.all(np.diff(volumes) > 0)
    assert volumes[-1] == pytest.approx(lesion.peak_ml, rel=1e-6)
    assert volume_ml(lesion, peak + 10) < 0.8 * lesion.peak_ml
    assert stage_of(lesion, peak) == "peak"
    assert stage_of(lesion, peak + 10) == "recovery"


def test_density_mixture_has_the_asked_shares() -> None:
    ranks = np.linspace(0, 1, 4001)
    hu = mixture_quantiles(ranks, 0.3, 0.2)
    assert np.all(np.diff(hu) >= 0)
    assert (hu > -180).mean() == pytest.approx(0.3 + 0.2 * 0.11, abs=0.02)
    assert (hu < -480).mean() == pytest.approx(0.5 + 0.2 * 0.14, abs=0.03)


def test_births_are_solved_for_the_planned_volume() -> None:
    plan = draw_lesion(np.random.default_rng(4), 2)
    counts = np.zeros(130)
    counts[0] = 400
    w = solve_births(plan.intervals[0], counts, 300, 4000.0)
    after = propagate(counts, w, 300)
    assert after.sum() == pytest.approx(4000.0, rel=0.02)
    assert w.reference_ggo_voxels == pytest.approx(0.5 * (400 + after[:N_BELOW].sum()), rel=0.05)
