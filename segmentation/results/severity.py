"""The CT severity score of the lobes.

Pan et al., Time Course of Lung Changes at Chest CT during Recovery from Coronavirus Disease 2019, Radiology 2020,
DOI 10.1148/radiol.2020200370: each of five lobes scores 0 (no involvement), 1 (< 5 %), 2 (5-25 %), 3 (26-49 %),
4 (50-75 %) or 5 (> 75 %); the total is their sum, 0 to 25. That score was read by eye. Measured shares also fall
between 25 % and 26 %, and between 49 % and 50 %: `INTERVALS` leaves no gap. (Chung et al., DOI
10.1148/radiol.2020200230, score 0 to 4 a lobe and 0 to 20 in all: another score.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SOURCE = "Pan et al., Radiology 2020, DOI 10.1148/radiol.2020200370"
INTERVALS = {
    "0": "share = 0",
    "1": "0 < share < 0.05",
    "2": "0.05 <= share <= 0.25",
    "3": "0.25 < share < 0.5",
    "4": "0.5 <= share <= 0.75",
    "5": "share > 0.75",
}
"""Infected share of a lobe for each score; no share lies between two of them."""

LOBES = 5


def lobe_score(share: float) -> int:
    """Score of a lobe, 0 to 5, by its infected share, 0 to 1."""
    if share <= 0.0:
        return 0
    if share < 0.05:
        return 1
    if share <= 0.25:
        return 2
    if share < 0.5:
        return 3
    return 4 if share <= 0.75 else 5


def severity(shares: Mapping[str, float]) -> dict[str, Any]:
    """Score every lobe.

    Parameters
    ----------
    shares : mapping of str to float
        Infected share of each lobe by its label, 0 to 1.

    Returns
    -------
    dict
        ``scores`` by label; ``total``, 0 to 25, or None when there are not exactly five lobes; ``intervals`` and
        ``source``.
    """
    scores = {label: lobe_score(share) for label, share in shares.items()}
    return {
        "scores": scores,
        "total": sum(scores.values()) if len(scores) == LOBES else None,
        "intervals": INTERVALS,
        "source": SOURCE,
    }
