import json
from dataclasses import replace

import numpy as np
import pytest

from simulator.dynamics.controls import Controls
from simulator.dynamics.errors import DynamicsError, ParameterError
from simulator.dynamics.parameters import PARAMETER_NAMES, SYMBOLS, TransitionParameters
from tests.simulator.dynamics.twins import GROWING


def test_order_is_the_design() -> None:
    assert SYMBOLS == ("nu", "phi", "epsilon", "a", "g", "p_c", "c", "kappa")
    array = GROWING.as_array()
    assert array.shape == (8,)
    assert array.tolist() == [getattr(GROWING, name) for name in PARAMETER_NAMES]
    assert TransitionParameters.from_array(array, GROWING.reference_ggo_voxels) == GROWING


def test_json_round_trip() -> None:
    assert TransitionParameters.from_json(json.loads(json.dumps(GROWING.to_json()))) == GROWING
    with pytest.raises(ParameterError, match="names"):
        TransitionParameters.from_json({"birth_rate": 1.0})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"birth_rate": 0.0}, "birth_rate must be positive: got 0.0, expected > 0; use a tiny value"),
        ({"stiffness": -1.0}, "stiffness must be positive"),
        ({"absorption_rate": float("nan")}, "absorption_rate is not finite"),
        ({"linked_share": 1.1}, "linked_share is a share"),
        ({"linked_share": -0.1}, "linked_share is a share"),
        ({"reference_ggo_voxels": -1.0}, "is a count"),
        ({"entry_signal": 0.0025}, "attainable"),
        ({"entry_signal": 0.1475}, "attainable"),
        ({"ggo_growth_rate": 0.901}, r"absorption_rate \+ ggo_growth_rate exceeds 1"),
        ({"conversion_probability": 0.95}, r"absorption_rate \+ conversion_probability exceeds 1"),
        ({"consolidation_growth_rate": 0.95}, r"absorption_rate \+ consolidation_growth_rate exceeds 1"),
    ],
)
def test_every_constraint_raises(change: dict[str, float], words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        replace(GROWING, **change)


def test_extremes_that_are_allowed() -> None:
    replace(GROWING, linked_share=0.0, reference_ggo_voxels=0.0)
    replace(GROWING, linked_share=1.0, ggo_growth_rate=0.9, entry_signal=0.101)


def test_from_array_of_the_wrong_length() -> None:
    with pytest.raises(ParameterError, match="wrong number"):
        TransitionParameters.from_array(np.ones(7), 1.0)


@pytest.mark.parametrize(
    "change",
    [{"gamma": -1.0}, {"gamma": float("nan")}, {"seeded_share": 1.5}, {"correlation_mm": -2.0},
     {"consolidation_clustering": 2.0}],
)  # fmt: skip
def test_bad_controls(change: dict[str, float]) -> None:
    with pytest.raises(ParameterError, match="out of range"):
        Controls(**change)
    assert issubclass(ParameterError, DynamicsError)
    assert issubclass(DynamicsError, ValueError)
