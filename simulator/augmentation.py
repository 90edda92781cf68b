"""One synthetic volume: its source played on by its fitted dynamics (DESIGN 4).

`augmentation_plan` draws; what is here is a pure function of a scan, its dynamics and a drawn plan. The plan
stands in each volume's provenance, so that every volume can be made again on its own.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from simulator.augmentation_plan import Ratios, VolumePlan
from simulator.dynamics.engine import RESULTS_REVISION, Controls, advance
from simulator.dynamics.parameters import TransitionParameters
from simulator.lung_crop import LungCrop, read_lung_crop
from simulator.progression import DEFAULT_JUMP
from simulator.series import TRANSITIONS_PER_DAY
from standard_space.cohort import Cohort
from standard_space.difference import Difference, write_synthetic_scan
from standard_space.errors import DataError, ScanFileError, UsageError
from standard_space.scanfile import is_whole, read_meta
from standard_space.version import lungcast_version


@dataclass(frozen=True)
class AugmentationSettings:
    """What was asked for; stored with the result and compared when a run is continued.

    Parameters
    ----------
    ratios : Ratios
    seed : int
    jump : int
        Transitions drawn at once.
    controls : Controls
        Morphology.
    trajectories : bool
        Also store every scan's whole trajectory.
    """

    ratios: Ratios
    seed: int
    jump: int = DEFAULT_JUMP
    controls: Controls = field(default_factory=Controls)
    trajectories: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain values for a file."""
        return {
            **self.ratios.to_json(),
            "seed": self.seed,
            "jump": self.jump,
            "controls": self.controls.to_json(),
            "trajectories": self.trajectories,
        }


@dataclass(frozen=True)
class SyntheticVolume:
    """A synthetic volume before it is stored.

    Parameters
    ----------
    scan : str
        Its name among the patient's scans.
    day : float
        On the patient's own clock, days.
    infected_voxels : int
    difference : Difference
        From its source.
    provenance : dict
        All it takes to make it again from its source.
    """

    scan: str
    day: float
    infected_voxels: int
    difference: Difference
    provenance: dict[str, Any]

    def write(self, path: str | Path, source: dict[str, Any]) -> str:
        """Write it as a synthetic scan file; returns its content hash."""
        return write_synthetic_scan(
            path,
            source,
            self.difference,
            scan=self.scan,
            day=self.day,
            infected_voxels=self.infected_voxels,
            provenance=self.provenance,
        )


def recipe(
    parameters: TransitionParameters, plan: VolumePlan, jump: int, controls: Controls
) -> dict[str, Any]:
    """What, besides its source, decides a volume; a part of its provenance."""
    return {
        "lungcast_version": lungcast_version(),
        "engine": RESULTS_REVISION,
        "operation": "augment",
        "plan": asdict(plan),
        "jump": jump,
        "controls": controls.to_json(),
        "parameters": parameters.to_json(),
    }


def day_of(source: dict[str, Any], plan: VolumePlan) -> float:
    """Day of a volume on the patient's own clock, from its source's metadata."""
    return float(source["day"]) + plan.transitions / TRANSITIONS_PER_DAY


def make_volume(
    source: LungCrop, parameters: TransitionParameters, plan: VolumePlan, *, jump: int, controls: Controls
) -> SyntheticVolume:
    """One synthetic volume: its source played on (pure; nothing is drawn here).

    Raises
    ------
    DataError
        When the source is free of infection.
    """
    state = advance(
        source.start(), parameters, plan.transitions, jump=jump, seed=plan.seed, controls=controls
    )
    return SyntheticVolume(
        scan=f"{source.head['scan']}-sim{plan.number}",
        day=day_of(source.head, plan),
        infected_voxels=state.n,
        difference=source.difference(state),
        provenance={**recipe(parameters, plan, jump, controls), "report": state.report.to_json()},
    )


def replay(path: str | Path, cohort: Cohort, out: str | Path) -> bool:
    """Make a stored volume again from its provenance and its source, and write it to `out`.

    Parameters
    ----------
    path : str or Path
        A synthetic scan file.
    cohort : Cohort
        The cohort that holds its source.
    out : str or Path

    Returns
    -------
    bool
        Whether the bytes of both files are the same. When they are not, their voxels still are: other versions of
        lungcast, HDF5 or Zstandard write the same volume in other bytes.

    Raises
    ------
    UsageError
        When the file is no synthetic scan.
    ScanFileError
        When the file is damaged, or its source is missing or altered.
    DataError
        When other voxels come out.
    """
    path = Path(path)
    head = read_meta(path)
    if head["kind"] != "synthetic scan" or head["provenance"].get("operation") != "augment":
        raise UsageError("not a volume that `lungcast augment` made", where=path)
    if not is_whole(path):
        raise ScanFileError(
            "the volume is damaged", where=path, remedy="run the same `lungcast augment` again"
        )
    made, sources = head["provenance"], cohort.sources or cohort
    entry = sources.source(**head["source"])
    source = read_lung_crop(sources, entry, verify=True)
    volume = make_volume(
        source,
        TransitionParameters.from_json(made["parameters"]),
        VolumePlan(**made["plan"]),
        jump=int(made["jump"]),
        controls=Controls(**made["controls"]),
    )
    digest = volume.write(out, source.head)
    if digest != head["content_sha256"]:
        raise DataError(
            "the replayed volume differs from the stored one",
            where=path,
            got=f"{digest[:12]} with lungcast {lungcast_version()}",
            expected=f"{head['content_sha256'][:12]} made with lungcast {made['lungcast_version']}",
        )
    return Path(out).read_bytes() == path.read_bytes()
