"""An annotated image of any geometry is played on as it lies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from simulator.adapters.subject import (
    SubjectDraw,
    SubjectRanges,
    SubjectUnits,
    parameters_of,
    progress_subject,
)
from simulator.dynamics.engine import Controls, advance, start_state
from simulator.fits import CohortFits
from simulator.play import Play, PlayRanges
from simulator.progression import with_reference
from standard_space.errors import DataError, UsageError
from standard_space.window import Window
from tests.simulator.adapters.subjects import LIVELY, SPACING_MM, subject_arrays

DRAW = SubjectDraw(Play(transitions=120, seed=5, jump=40), LIVELY)


def test_a_subject_is_played_on_by_the_engine() -> None:
    image, infection, lungs = subject_arrays()
    new, mask = progress_subject(image, infection, lungs, SPACING_MM, DRAW, SubjectUnits())
    assert (new.shape, new.dtype, mask.dtype) == (image.shape, image.dtype, infection.dtype)
    inside = np.argwhere((infection != 0) | (lungs != 0))
    box = tuple(slice(a, b + 1) for a, b in zip(inside.min(0), inside.max(0), strict=True))
    window = Window()
    infected = infection[box] != 0
    state = start_state(window.to_signal(image[box]), infected, (lungs[box] != 0) | infected, SPACING_MM)
    advance(state, with_reference(LIVELY, state), 120, jump=40, seed=5)
    np.testing.assert_array_equal(mask[box] != 0, state.mask())
    index, values = state.changed()
    np.testing.assert_array_equal(new[box].reshape(-1)[index], window.to_hu(values))
    untouched = np.ones(image.shape, bool)
    untouched[box].reshape(-1)[:] = True
    played = np.zeros(infected.shape, bool)
    played.reshape(-1)[index] = True
    untouched[box] = ~played
    np.testing.assert_array_equal(new[untouched], image[untouched])
    np.testing.assert_array_equal(mask[untouched], infection[untouched])
    assert state.report.births > 50


def test_nothing_grows_outside_lungs_or_into_closed_tissue() -> None:
    image, infection, lungs = subject_arrays()
    lungs[infection != 0] = 0  # a consolidation that the lung mask leaves out
    closed = np.zeros_like(lungs)
    closed[:, :, ::2] = 1
    _, mask = progress_subject(image, infection, lungs, SPACING_MM, DRAW, SubjectUnits(), closed=closed)
    grown = (mask != 0) & (infection == 0)
    assert grown.sum() > 50
    assert not (grown & (lungs == 0)).any()
    assert not (grown & (closed != 0)).any()
    assert ((mask != 0) & (infection != 0)).sum() > 50


def test_signals_play_as_their_hu() -> None:
    image, infection, lungs = subject_arrays()
    window = Window(-500.0, 1400.0)
    units = SubjectUnits.of("hu", (-500.0, 1400.0), (1,))
    hu, mask = progress_subject(image, infection, lungs, SPACING_MM, DRAW, units)
    signal, same = progress_subject(
        window.to_signal(image), infection, lungs, SPACING_MM, DRAW, SubjectUnits(window=None)
    )
    np.testing.assert_array_equal(mask, same)
    changed = hu != image
    assert changed.sum() > 100
    np.testing.assert_array_equal(window.to_hu(signal[changed]), hu[changed])
    other, _ = progress_subject(image, infection, lungs, SPACING_MM, DRAW, SubjectUnits())
    assert (other != hu).any()


@pytest.mark.parametrize("kind", [np.int16, np.float16, np.float64])
def test_types_stay(kind: type) -> None:
    image, infection, lungs = subject_arrays()
    typed = image.astype(kind)
    new, mask = progress_subject(
        typed, infection.astype(bool), lungs.astype(np.int64), SPACING_MM, DRAW, SubjectUnits()
    )
    assert (new.dtype, mask.dtype) == (np.dtype(kind), np.dtype(bool))
    reference, _ = progress_subject(
        typed.astype(np.float32), infection, lungs, SPACING_MM, DRAW, SubjectUnits()
    )
    np.testing.assert_allclose(new.astype(float), reference, atol=0.51)


def test_two_labels_are_told_apart_by_the_clinical_cut() -> None:
    image, infection, lungs = subject_arrays()
    dense = (infection != 0) & (image > -520.0)
    image[dense] = -100.0
    infection[dense] = 2
    units = SubjectUnits(labels=(1, 2))
    new, mask = progress_subject(image, infection, lungs, SPACING_MM, DRAW, units)
    assert set(np.unique(mask)) == {0, 1, 2}
    np.testing.assert_array_equal(mask[mask != 0] == 2, new[mask != 0] >= -200.0)
    with pytest.raises(DataError, match="other labels"):
        progress_subject(image, infection, lungs, SPACING_MM, DRAW, SubjectUnits())
    with pytest.raises(UsageError, match="told apart in HU"):
        SubjectUnits(window=None, labels=(1, 2))
    with pytest.raises(UsageError, match="labels"):
        SubjectUnits(labels=(1, 1))


def test_what_cannot_be_played_on_is_told() -> None:
    image, infection, lungs = subject_arrays()
    units = SubjectUnits()
    with pytest.raises(DataError, match="no infection to play on"):
        progress_subject(image, infection * 0, lungs, SPACING_MM, DRAW, units, where="subject 3")
    with pytest.raises(DataError, match="same three axes"):
        progress_subject(image, infection[1:], lungs, SPACING_MM, DRAW, units)
    with pytest.raises(DataError, match="same three axes"):
        progress_subject(image[0], infection[0], lungs[0], SPACING_MM, DRAW, units)
    with pytest.raises(DataError, match="spacing"):
        progress_subject(image, infection, lungs, (1.0, 1.0, 0.0), DRAW, units)
    image[infection != 0] = np.nan
    with pytest.raises(DataError, match="NaN"):
        progress_subject(image, infection, lungs, SPACING_MM, DRAW, units)
    with pytest.raises(UsageError, match="no such units"):
        SubjectUnits.of("mm", None, (1,))


def test_draws_choose_among_the_dynamics_and_are_recorded() -> None:
    slow = replace(LIVELY, birth_rate=0.001)
    ranges = SubjectRanges(parameters_of([LIVELY, slow]), PlayRanges(controls=Controls(gamma=1.0)))
    rng = np.random.default_rng(0)
    drawn = [ranges.draw(rng.random) for _ in range(100)]
    assert 30 < sum(draw.parameters == slow for draw in drawn) < 70
    assert all(SubjectDraw.from_json(draw.to_json()) == draw for draw in drawn)
    with pytest.raises(UsageError, match="not the record"):
        SubjectDraw.from_json({"play": {}})


@pytest.mark.parametrize("dynamics", [[], CohortFits(grid=64, loss="l2"), ["W"]])
def test_dynamics_that_are_none(dynamics: Any) -> None:
    with pytest.raises(UsageError, match="dynamics"):
        parameters_of(dynamics)
