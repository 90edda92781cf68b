"""Any two scans as source and difference, the slow and obvious way."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from standard_space.difference import Difference, write_synthetic_scan
from standard_space.scan import Scan
from standard_space.scanfile import head_of


def write_as_difference(path: Path, scan: Scan, source: Scan, source_sha256: str) -> str:
    """Write a scan as what differs from a source of the same grid."""
    signal = scan.signal.astype(np.float16)
    before = np.zeros_like(scan.infection) if source.infection is None else source.infection
    index = np.flatnonzero((signal != source.signal.astype(np.float16)) | (scan.infection != before))
    return write_synthetic_scan(
        path,
        {**head_of(source), "content_sha256": source_sha256},
        Difference(index, signal.ravel()[index], scan.infection.ravel()[index]),
        scan=scan.scan,
        day=scan.day,
        infected_voxels=int(scan.infection.sum()),
        provenance=scan.provenance,
    )
