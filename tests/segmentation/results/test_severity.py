from __future__ import annotations

import pytest

from segmentation.results.severity import lobe_score, severity


@pytest.mark.parametrize(
    ("share", "score"),
    [
        (0.0, 0),
        (1e-9, 1),
        (0.0499, 1),
        (0.05, 2),
        (0.25, 2),
        (0.2501, 3),
        (0.26, 3),
        (0.495, 3),
        (0.5, 4),
        (0.75, 4),
        (0.7501, 5),
        (1.0, 5),
    ],
)
def test_every_share_has_one_score(share: float, score: int) -> None:
    assert lobe_score(share) == score


def test_the_total_is_of_five_lobes_only() -> None:
    shares = {"1": 0.0, "2": 0.01, "3": 0.2, "4": 0.6, "5": 0.9}
    found = severity(shares)
    assert found["scores"] == {"1": 0, "2": 1, "3": 2, "4": 4, "5": 5}
    assert found["total"] == 12
    assert "radiol.2020200370" in found["source"]
    assert len(found["intervals"]) == 6
    assert severity({**shares, "6": 0.1})["total"] is None
    assert severity({})["total"] is None
