"""What happened in a run of the voxel engine, and whether the chain still is its exact mean."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass
class RunReport:
    """Counts over the life of a state.

    Attributes
    ----------
    transitions, jumps : int
    births : int
        Voxels newly infected and placed.
    born_and_recovered : int
        Births that entered and recovered within one jump; they are counted, not placed.
    recovered : int
        Voxels that fell out of bin 0.
    seeded : int
        Births placed away from lesions because `seeded_share` asked for it.
    seeded_without_frontier : int
        Births placed anywhere because no normal voxel lay beside an infected one.
    unplaced : int
        Births that found no susceptible voxel: space is exhausted and the chain no longer is the mean. A
        lower bound when a jump expects far more births than there are places.
    saturated : int
        Voxels in the top bin now, where signals cannot rise further.
    clamped_below, clamped_above : int
        Annotated voxels that started below -0.15 or at 0.5 and more, moved to the nearest bin.
    """

    transitions: int = 0
    jumps: int = 0
    births: int = 0
    born_and_recovered: int = 0
    recovered: int = 0
    seeded: int = 0
    seeded_without_frontier: int = 0
    unplaced: int = 0
    saturated: int = 0
    clamped_below: int = 0
    clamped_above: int = 0

    @property
    def exact(self) -> bool:
        """Whether the chain is the exact mean of this run (no birth was clipped)."""
        return self.unplaced == 0

    def notes(self) -> list[str]:
        """What a reader should know, problems first; empty when nothing happened."""
        lines = []
        if self.unplaced:
            lines.append(
                f"{self.unplaced} births found no susceptible voxel: space is exhausted, "
                "so the histogram lies below the chain's prediction"
            )
        if self.seeded_without_frontier:
            lines.append(
                f"{self.seeded_without_frontier} births were seeded at random places "
                "because no normal voxel lay beside an infected one"
            )
        if self.saturated:
            lines.append(f"{self.saturated} voxels are in the top bin and cannot rise further")
        if self.clamped_below or self.clamped_above:
            lines.append(
                f"annotated voxels moved into the model's range at the start: {self.clamped_below} "
                f"below -0.15, {self.clamped_above} at 0.5 or more"
            )
        return lines

    def to_json(self) -> dict[str, int]:
        """Plain dictionary."""
        return asdict(self)
