from __future__ import annotations

import numpy as np
import pytest

from segmentation.results.quantification import quantify
from standard_space.errors import UsageError


def test_quantification_by_hand() -> None:
    hu = np.full((2, 5, 5), -850.0)
    lungs, infection = np.zeros((2, 2, 5, 5), np.bool_)
    lungs[0, :4] = True
    infection[0, 3:] = True  # five voxels inside, five outside
    hu[0, 3] = [-600.0, -200.0, -201.0, 0.0, -500.0]
    found = quantify(infection, lungs, hu, 0.5)
    expected = {
        "space": "native",
        "lungs_ml": 10.0,
        "infection_ml": 2.5,
        "infected_share": 0.25,
        "ggo_ml": 1.5,
        "consolidation_ml": 1.0,
        "consolidation_hu": -200.0,
        "mean_lesion_hu": pytest.approx(-300.2),
        "mean_healthy_lung_hu": -850.0,
    }
    assert {key: found[key] for key in expected} == expected
    empty = quantify(np.zeros_like(lungs), np.zeros_like(lungs), hu, 0.5)
    assert (empty["infected_share"], empty["mean_lesion_hu"]) == (None, None)
    with pytest.raises(UsageError, match="differ in shape"):
        quantify(infection[:1], lungs, hu, 0.5)
