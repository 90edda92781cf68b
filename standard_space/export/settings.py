"""What an export was asked for, and where its files go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from standard_space.errors import UsageError
from standard_space.window import CONSOLIDATION_HU

Format = Literal["nifti", "nnunet", "monai"]
GeometryName = Literal["native", "standard"]
Labelling = Literal["infection", "ggo-consolidation"]

SUFFIX = ".nii.gz"
LEAST_HU, MOST_HU = -1024.0, 3071.0


@dataclass(frozen=True)
class ExportSettings:
    """What an export was asked for; stored with the result and compared when a run is continued.

    Parameters
    ----------
    format : {"nifti", "nnunet", "monai"}
    geometry : {"native", "standard"}
        The scan's own grid, or the standard one where it lies in the scan's world.
    labels : {"infection", "ggo-consolidation"}
        One label, or two that the cut tells apart in the exported image.
    consolidation_hu : float
        Infection at or above it is consolidation, below it GGO; HU.
    originals : bool
        Whether observed scans are exported beside synthetic ones.
    folds : int
        Folds of the cross-validation, 2 or more.

    Raises
    ------
    UsageError
        When a value is out of range.
    """

    format: Format = "nifti"
    geometry: GeometryName = "native"
    labels: Labelling = "infection"
    consolidation_hu: float = CONSOLIDATION_HU
    originals: bool = True
    folds: int = 5

    def __post_init__(self) -> None:
        if not LEAST_HU <= self.consolidation_hu <= MOST_HU:  # NaN is neither
            raise UsageError(
                "the cut to consolidation is no HU of tissue",
                got=self.consolidation_hu,
                expected=f"{LEAST_HU:g} to {MOST_HU:g}",
            )
        if self.folds < 2:
            raise UsageError("too few folds", got=self.folds, expected="2 or more")

    @property
    def label_values(self) -> dict[str, int]:
        """Labels by name, background included."""
        if self.labels == "infection":
            return {"background": 0, "infection": 1}
        return {"background": 0, "GGO": 1, "consolidation": 2}

    @property
    def needs_labels(self) -> bool:
        """Whether scans that were never annotated are left out."""
        return self.format != "nifti"

    def image_file(self, case: str) -> str:
        """Where a case's image goes, relative to the output folder."""
        return f"imagesTr/{case}_0000{SUFFIX}" if self.format == "nnunet" else f"images/{case}{SUFFIX}"

    def label_file(self, case: str) -> str:
        """Where a case's labels go, relative to the output folder."""
        return f"labelsTr/{case}{SUFFIX}" if self.format == "nnunet" else f"labels/{case}{SUFFIX}"

    def to_json(self) -> dict[str, Any]:
        """Plain values for a file."""
        return {
            "format": self.format,
            "geometry": self.geometry,
            "labels": self.label_values,
            "consolidation_hu": self.consolidation_hu if self.labels == "ggo-consolidation" else None,
            "originals": self.originals,
            "folds": self.folds,
        }
