"""Taking flagged volumes out of an augmented folder, for good."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from simulator.audit_record import VolumeRow
from standard_space.cohort import Cohort
from standard_space.errors import UsageError
from standard_space.files import read_mark, write_mark
from standard_space.folders import folder_lock


def drop_volumes(folder: str | Path, rows: Sequence[VolumeRow]) -> list[str]:
    """Remove volumes, with a record of why in the folder's mark (provenance key `dropped`).

    The record comes first, then the manifest, then the files go: whenever the run is killed, what the manifest
    lists is there, and `augment` never brings back what the record names. A run that was killed is completed by
    the next one.

    Parameters
    ----------
    folder : str or Path
        Augmented folder.
    rows : sequence of VolumeRow
        What to remove; their flags are the reasons.

    Returns
    -------
    list of str
        Names of the volumes that were removed.

    Raises
    ------
    UsageError
        When the folder is no finished augmentation, another run holds it, or a volume is no longer the one that
        was audited. Nothing is removed then.
    """
    folder = Path(folder)
    with folder_lock(folder):
        mark = read_mark(folder)
        if mark is None or mark["lungcast"] != "augmented":
            raise UsageError(
                "volumes are only dropped from a folder that `lungcast augment` made", where=folder
            )
        cohort = Cohort.open(folder)
        present = {entry.name: entry for entry in cohort.entries}
        reasons = {
            row.name: sorted({flag.reason for flag in row.flags}) for row in rows if row.name in present
        }
        for row in rows:
            if row.name in present and present[row.name].content_sha256 != row.content_sha256:
                raise UsageError(
                    "the volume is no longer the one that was audited",
                    where=row.name,
                    remedy="run the audit again",
                )
        provenance = dict(mark["provenance"])
        dropped = {**provenance.get("dropped", {}), **reasons}
        if not dropped:
            return []
        write_mark(folder, mark["lungcast"], {**provenance, "dropped": dict(sorted(dropped.items()))})
        kept = [entry for entry in cohort.entries if entry.name not in dropped]
        Cohort.write_manifest(folder, kept)
        listed = {entry.file for entry in kept}
        for name in dropped:
            file = present[name].file if name in present else f"{name.replace('/', '_', 1)}.h5"
            if file not in listed:
                (folder / file).unlink(missing_ok=True)
        return sorted(set(dropped) & set(present))
