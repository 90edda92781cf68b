"""The scan file's compression: gzip and hdf5plugin's codecs on one signal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from benchmarks.resampling import clock
from standard_space.scanfile import CHUNK, COMPRESSION

CODECS: dict[str, dict[str, Any]] = {
    "none": {},
    "gzip 1 + shuffle": {"compression": "gzip", "compression_opts": 1, "shuffle": True},
    "gzip 4 + shuffle": {"compression": "gzip", "compression_opts": 4, "shuffle": True},
    "lzf + shuffle": {"compression": "lzf", "shuffle": True},
    "bitshuffle + LZ4": dict(hdf5plugin.Bitshuffle(cname="lz4")),
    "bitshuffle + Zstandard 3": dict(hdf5plugin.Bitshuffle(cname="zstd", clevel=3)),
    "Blosc Zstandard 3, shuffle": dict(hdf5plugin.Blosc(cname="zstd", clevel=3, shuffle=1)),
    "Blosc LZ4, bitshuffle": dict(hdf5plugin.Blosc(cname="lz4", clevel=5, shuffle=2)),
    "Blosc2 Zstandard 1, bitshuffle": dict(
        hdf5plugin.Blosc2(cname="zstd", clevel=1, filters=hdf5plugin.Blosc2.BITSHUFFLE)
    ),
    "Zstandard 3 + shuffle (chosen)": COMPRESSION,
}


def compare_codecs(signal: NDArray[np.float16], folder: Path) -> list[dict[str, Any]]:
    """Write and read speed, ratio, and time of one axial slice for every codec."""
    rows = []
    path = folder / "codec.h5"
    for name, options in CODECS.items():

        def write(options: dict[str, Any] = options) -> None:
            with h5py.File(path, "w") as file:
                file.create_dataset("signal", data=signal, chunks=CHUNK, **options)

        def read() -> NDArray[np.float16]:
            with h5py.File(path, "r") as file:
                return file["signal"][...]

        def one_slice() -> NDArray[np.float16]:
            with h5py.File(path, "r") as file:
                return file["signal"][200]

        writing, _ = clock(write, 2)
        reading, back = clock(read, 2)
        slicing, _ = clock(one_slice, 5)
        if not np.array_equal(back, signal):
            raise SystemExit(f"{name} is not lossless")
        megabytes = signal.nbytes / 1e6
        rows.append(
            {
                "codec": name,
                "write_mb_s": round(megabytes / writing),
                "read_mb_s": round(megabytes / reading),
                "ratio": round(signal.nbytes / path.stat().st_size, 2),
                "slice_ms": round(slicing * 1000, 1),
            }
        )
    return rows
