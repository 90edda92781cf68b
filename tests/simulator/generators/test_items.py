"""Generated scans by ratio: how many, from whom, and made only when asked."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from simulator.augmentation_plan import plan_volumes
from simulator.generators.items import KINDS, generated
from standard_space.errors import DataError, UsageError
from tests.simulator.generators.scans import Reads

TARGETS = [Reads("p1", lesion=True), Reads("p2"), Reads("p3", lesion=True)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0, 2.5])
def test_there_are_as_many_as_the_simulator_would_make(kind: str, ratio: float) -> None:
    items = generated(kind, TARGETS, TARGETS, ratio, seed=4)
    wanted = [
        (index, plan.number)
        for index, target in enumerate(TARGETS)
        for plan in plan_volumes(target.patient, "a", ratio, 4)
    ]
    assert [(item.target, item.number) for item in items] == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_each_is_the_same_every_time_and_unlike_the_others(kind: str) -> None:
    items = generated(kind, TARGETS, TARGETS, 2.0, seed=4)
    made = [item.make() for item in items]
    again = [pickle.loads(pickle.dumps(item)).make() for item in items]
    for first, second in zip(made, again, strict=True):
        np.testing.assert_array_equal(first.signal, second.signal)
        np.testing.assert_array_equal(first.infection, second.infection)
        assert first.provenance == second.provenance
    assert len({scan.signal.tobytes() for scan in made}) > len(TARGETS), "numbers of one target differ"
    other = generated(kind, TARGETS, TARGETS, 2.0, seed=5)[0].make()
    assert other.signal.tobytes() != made[0].signal.tobytes()


def test_donors_are_other_patients_with_lesions() -> None:
    items = generated("copy-paste", TARGETS, TARGETS, 4.0, seed=4)
    found: dict[str, set[str]] = {}
    for item in items:
        scan = item.make()
        found.setdefault(scan.patient, set()).add(scan.provenance["draw"]["donor"])
    assert found == {"p1": {"p3/a"}, "p2": {"p1/a", "p3/a"}, "p3": {"p1/a"}}


def test_the_own_patient_lends_only_when_there_is_no_other_and_never_the_scan_itself() -> None:
    with pytest.raises(UsageError, match="p1/a: no other scan has lesions to paste"):
        generated("copy-paste", TARGETS[:1], TARGETS[:2], 1.0, seed=4)
    assert len(generated("copy-paste", TARGETS[:1], [], 0.0, seed=4)) == 0


def test_a_donor_that_misses_the_lungs_is_passed_over() -> None:
    high = Reads("p9", lesion=True, rows=(36, 48))
    items = generated("copy-paste", TARGETS[:1], [high, TARGETS[2]], 6.0, seed=4)
    assert {item.make().provenance["draw"]["donor"] for item in items} == {"p3/a"}
    (lost,) = generated("copy-paste", TARGETS[:1], [high], 1.0, seed=4)
    with pytest.raises(DataError, match="no donor's lesion lies within the lungs"):
        lost.make()


def test_what_cannot_be_asked_for_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown generator"):
        generated("diffusion", TARGETS, TARGETS, 1.0, seed=4)
    with pytest.raises(UsageError, match="ratio"):
        generated("ellipsoids", TARGETS, TARGETS, -1.0, seed=4)
