"""What a progression is drawn from, and its record."""

from __future__ import annotations

import json

import numpy as np
import pytest

from simulator.dynamics.engine import Controls
from simulator.dynamics.errors import ParameterError
from simulator.play import Play, PlayRanges, TextureRange
from standard_space.errors import UsageError


def test_every_transition_of_the_range_comes_up_equally_often() -> None:
    uniform = np.random.default_rng(0).random
    ranges = PlayRanges(days=(0.03, 0.12))
    counts = np.bincount([ranges.draw(uniform).transitions for _ in range(5000)], minlength=14)
    assert counts[:3].sum() == counts[13:].sum() == 0
    assert counts[3:13].min() > 420
    assert counts[3:13].max() < 580


def test_a_progression_is_one_jump_unless_told() -> None:
    uniform = np.random.default_rng(0).random
    drawn = PlayRanges(days=(1.5, 2.0)).draw(uniform)
    assert drawn.jump == drawn.transitions >= 150
    assert PlayRanges(jump=10).draw(uniform).jump == 10


def test_texture_is_drawn_within_its_range() -> None:
    uniform = np.random.default_rng(0).random
    ranges = PlayRanges(controls=TextureRange(gamma=(1.0, 3.0), correlation_mm=(4.0, 8.0)))
    drawn = [ranges.draw(uniform).controls for _ in range(200)]
    gammas = [controls.gamma for controls in drawn]
    assert 1.0 <= min(gammas) < 1.1
    assert 2.9 < max(gammas) <= 3.0
    assert {controls.seeded_share for controls in drawn} == {Controls().seeded_share}
    assert len({controls.correlation_mm for controls in drawn}) == 200


def test_a_record_gives_the_same_play() -> None:
    drawn = PlayRanges(controls=TextureRange(gamma=(1.0, 3.0))).draw(np.random.default_rng(3).random)
    assert Play.from_json(json.loads(json.dumps(drawn.to_json()))) == drawn
    assert drawn.days == drawn.transitions / 100
    with pytest.raises(UsageError, match="not the record of a progression"):
        Play.from_json({"transitions": 3})


@pytest.mark.parametrize("days", [(0.0, 1.0), (2.0, 1.0), (1.0, float("nan")), (1.0, 1e6), (0.011, 0.012)])
def test_days_that_cannot_be_used(days: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="days"):
        PlayRanges(days)


def test_other_ranges_that_cannot_be_used() -> None:
    with pytest.raises(UsageError, match="jump"):
        PlayRanges(jump=0)
    with pytest.raises(UsageError, match="upside down"):
        TextureRange(gamma=(3.0, 1.0))
    with pytest.raises(ParameterError, match="gamma"):
        TextureRange(gamma=(1.0, 30.0))
