"""The scan file: one HDF5 file per scan, chunked, compressed, written atomically (DESIGN 2).

Layout, schema 2: attributes `lungcast` ("scan"), `schema`, `meta` (JSON: names, grid, window, placement,
provenance), `content_sha256`; datasets `signal` (float16), `masks` (uint8, one bit per layer of `LAYERS`), `lobes`
(uint8, where given) and, packed to bits, `native_infection` and `native_lungs`. Synthetic scans are stored as what
differs from their source (`difference`); readers lay it over the source.

Compression is Zstandard after HDF5's shuffle, chosen by measurement (docs/embedding.md): gzip's ratio at several
times its speed. Other programs open the files after `import hdf5plugin`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numba import get_num_threads
from numpy.typing import NDArray

from standard_space.difference import SYNTHETIC_SCHEMA, read_difference
from standard_space.errors import ScanFileError
from standard_space.files import atomic_path
from standard_space.geometry import Placement
from standard_space.grid import StandardGrid
from standard_space.scan import Scan
from standard_space.window import Window

SCHEMA = 2
LAYERS = ("lungs", "airways", "vessels", "infection", "left_lung")
CHUNK = (32, 64, 64)
COMPRESSION: dict[str, Any] = {"shuffle": True, "fletcher32": True, **hdf5plugin.Zstd(clevel=3)}

SourceFinder = Callable[[str, str, str], Scan]
"""Gives the source scan of (patient, scan, content_sha256)."""


def pack_masks(scan: Scan) -> NDArray[np.uint8]:
    """The masks of a scan as bits of one uint8 volume, in the order of `LAYERS`."""
    packed = np.zeros(scan.grid.shape, np.uint8)

    def pack(rows: slice) -> None:
        for bit, layer in enumerate(LAYERS):
            mask = getattr(scan, layer)
            if mask is not None:
                packed[rows] |= mask[rows].view(np.uint8) << np.uint8(bit)

    _in_slabs(pack, len(packed))
    return packed


def half_signal(scan: Scan) -> NDArray[np.float16]:
    """The signal as it is stored."""
    stored = np.empty(scan.grid.shape, np.float16)

    def convert(rows: slice) -> None:
        stored[rows] = scan.signal[rows]

    _in_slabs(convert, len(stored))
    return stored


def _in_slabs(work: Callable[[slice], None], count: int) -> None:
    """Work on slabs along z in as many threads as kernels may use: NumPy lets go of the lock meanwhile."""
    slabs = [slice(z, z + CHUNK[0]) for z in range(0, count, CHUNK[0])]
    with ThreadPoolExecutor(get_num_threads()) as pool:
        list(pool.map(work, slabs))


def content_sha256(signal: NDArray[np.float16], masks: NDArray[np.uint8]) -> str:
    """Hash of what a scan holds, free of compression and library versions."""
    digest = hashlib.sha256(np.ascontiguousarray(signal).view(np.uint8).data)
    digest.update(np.ascontiguousarray(masks).data)
    return digest.hexdigest()


def write_scan(path: str | Path, scan: Scan) -> str:
    """Write a scan in full; returns its content hash."""
    signal, masks = half_signal(scan), pack_masks(scan)
    digest = content_sha256(signal, masks)
    n = scan.grid.size
    chunks = (min(n, CHUNK[0]), min(n, CHUNK[1]), min(n, CHUNK[2]))
    volumes = {"signal": signal, "masks": masks}
    if scan.lobes is not None:
        volumes["lobes"] = scan.lobes
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["lungcast"] = "scan"
        file.attrs["schema"] = SCHEMA
        file.attrs["content_sha256"] = digest
        file.attrs["meta"] = json.dumps(head_of(scan), allow_nan=False)
        for name, volume in volumes.items():
            file.create_dataset(name, data=volume, chunks=chunks, track_times=False, **COMPRESSION)
            file.flush()  # where data lies would else depend on when Python lets go of the dataset
        for name, mask in (("native_infection", scan.native_infection), ("native_lungs", scan.native_lungs)):
            if mask is not None:
                packed = np.packbits(mask)
                dataset = file.create_dataset(
                    name, data=packed, track_times=False, **hdf5plugin.Zstd(clevel=3)
                )
                dataset.attrs["shape"] = mask.shape
                file.flush()
    return digest


def read_meta(path: str | Path) -> dict[str, Any]:
    """Kind, content hash and metadata of a scan file, without its volumes.

    Raises
    ------
    ScanFileError
        When the file is missing, truncated, foreign, or of another schema version.
    """
    return _guarded(Path(path), _read_head)


def read_scan(path: str | Path, find_source: SourceFinder | None = None) -> Scan:
    """Read a scan; a synthetic one is laid over its source, which `find_source` gives.

    Raises
    ------
    ScanFileError
        When the file is missing, truncated, foreign, of another schema version, or its source is missing or
        altered.
    """
    path = Path(path)
    head = read_meta(path)
    if head["kind"] == "scan":
        return _guarded(path, lambda file: _read_full(file, head))
    if find_source is None:
        raise ScanFileError(
            "a synthetic scan is stored as differences from its source",
            where=path,
            remedy="open it together with the cohort that it was made from (`restore --sources COHORT`)",
        )
    origin = head["source"]
    source = find_source(origin["patient"], origin["scan"], origin["content_sha256"])
    return _guarded(path, lambda file: _read_synthetic(file, head, source))


def is_whole(path: str | Path) -> bool:
    """Whether a scan file still holds what its content hash says; of a synthetic one, its own part."""
    path = Path(path)
    try:
        head = read_meta(path)
        found = _guarded(path, _content_of if head["kind"] == "scan" else _synthetic_content_of(head))
    except ScanFileError:
        return False
    return bool(found == head["content_sha256"])


def _content_of(file: h5py.File) -> str:
    """`content_sha256` of an open file, a slab at a time."""
    digest = hashlib.sha256()
    for name in ("signal", "masks"):
        volume = file[name]
        for z in range(0, len(volume), CHUNK[0]):
            digest.update(np.ascontiguousarray(volume[z : z + CHUNK[0]]).view(np.uint8).data)
    return digest.hexdigest()


def _synthetic_content_of(head: dict[str, Any]) -> Callable[[h5py.File], str]:
    return lambda file: read_difference(file).content_sha256(head["source"]["content_sha256"])


def head_of(scan: Scan) -> dict[str, Any]:
    """A scan's metadata as its file holds them."""
    return {
        "patient": scan.patient,
        "scan": scan.scan,
        "day": scan.day,
        "stage": scan.stage,
        "grid": scan.grid.size,
        "annotated": scan.infection is not None,
        "sides": scan.left_lung is not None,
        "window": {
            "level_hu": scan.window.level_hu,
            "width_hu": scan.window.width_hu,
            "source": scan.window.source,
        },
        "placement": scan.placement.to_json(),
        "provenance": scan.provenance,
    }


def _read_head(file: h5py.File) -> dict[str, Any]:
    kind = file.attrs.get("lungcast")
    if kind not in ("scan", "synthetic scan"):
        raise ScanFileError("an HDF5 file, but not a lungcast scan", where=file.filename)
    schema, expected = int(file.attrs["schema"]), SCHEMA if kind == "scan" else SYNTHETIC_SCHEMA
    if schema != expected:
        raise ScanFileError(
            "the scan file has another schema version",
            where=file.filename,
            got=schema,
            expected=expected,
            remedy=f"{'embed' if kind == 'scan' else 'augment'} the cohort again with this version of lungcast",
        )
    meta: dict[str, Any] = json.loads(file.attrs["meta"])
    return {"kind": kind, "content_sha256": str(file.attrs["content_sha256"]), **meta}


def _guarded(path: Path, read: Callable[[h5py.File], Any]) -> Any:
    if not path.is_file():
        raise ScanFileError("no such scan file", where=path)
    try:
        with h5py.File(path, "r") as file:
            return read(file)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ScanFileError(
            f"not a readable scan file ({str(error).splitlines()[0]})",
            where=path,
            remedy="embed or augment this scan again",
        ) from None


def scan_of(head: dict[str, Any], signal: NDArray[np.float32], masks: dict[str, NDArray[np.bool_]]) -> Scan:
    """A scan from its metadata and its layers on the standard grid."""
    return Scan(
        patient=head["patient"],
        scan=head["scan"],
        day=float(head["day"]),
        stage=head["stage"],
        grid=StandardGrid(int(head["grid"])),
        signal=signal,
        lungs=masks["lungs"],
        airways=masks["airways"],
        vessels=masks["vessels"],
        infection=masks["infection"] if head["annotated"] else None,
        left_lung=masks["left_lung"] if head["sides"] else None,
        window=window_of(head),
        placement=Placement.from_json(head["placement"]),
        provenance=head["provenance"],
    )


def window_of(head: dict[str, Any]) -> Window:
    """The window in a scan file's metadata."""
    window = head["window"]
    return Window(window["level_hu"], window["width_hu"], window["source"])


def unpack(packed: NDArray[np.uint8], layer: str) -> NDArray[np.bool_]:
    """One mask from the packed ones."""
    return (packed & np.uint8(1 << LAYERS.index(layer))) != 0


def _read_full(file: h5py.File, head: dict[str, Any]) -> Scan:
    packed = file["masks"][...]
    signal = file["signal"][...].astype(np.float32)
    scan = scan_of(head, signal, {layer: unpack(packed, layer) for layer in LAYERS})
    scan.lobes = file["lobes"][...] if "lobes" in file else None
    scan.native_infection = read_bits(file, "native_infection")
    scan.native_lungs = read_bits(file, "native_lungs")
    return scan


def read_bits(file: h5py.File, name: str) -> NDArray[np.bool_] | None:
    """A native mask of an open scan file, "native_infection" or "native_lungs"; None when it holds none."""
    if name not in file:
        return None
    shape = tuple(int(n) for n in file[name].attrs["shape"])
    return np.unpackbits(file[name][...], count=int(np.prod(shape))).reshape(shape).astype(np.bool_)


def _read_synthetic(file: h5py.File, head: dict[str, Any], source: Scan) -> Scan:
    changed = read_difference(file)
    signal = source.signal.copy()
    signal.ravel()[changed.index] = changed.signal.astype(np.float32)
    infection = np.zeros(source.grid.shape, np.bool_) if source.infection is None else source.infection.copy()
    infection.ravel()[changed.index] = changed.infection
    empty = np.zeros_like(source.lungs) if source.left_lung is None else source.left_lung
    masks = {"lungs": source.lungs, "airways": source.airways, "vessels": source.vessels}
    scan = scan_of(head, signal, {**masks, "infection": infection, "left_lung": empty})
    scan.lobes = source.lobes
    return scan
