"""Each library that the demo needs, tried once on something tiny: an import that works says little."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Trial:
    """A library, what it was asked to do, and how that went."""

    name: str
    value: str
    failed: bool = False
    remedy: str = ""


def trials(folder: Path) -> list[Trial]:
    """Try everything; files go to a folder of their own in `folder`, which is removed again."""
    return [_tried(name, remedy, attempt, folder) for name, remedy, attempt in _ATTEMPTS]


def _tried(name: str, remedy: str, attempt: Callable[[Path], str], folder: Path) -> Trial:
    begun = time.perf_counter()
    try:
        value = attempt(folder)
    # A broken installation can raise anything, and all of it is what a user wants to read here.
    except Exception as error:
        said = " ".join(str(error).split()) or "no reason given"
        return Trial(name, f"{type(error).__name__}: {said}", True, remedy)
    return Trial(name, f"{value}, {time.perf_counter() - begun:.1f} s")


def _folder(folder: Path) -> str:
    with tempfile.TemporaryDirectory(dir=folder) as made:
        (Path(made) / "trial").write_bytes(b"lungcast")
    return "can be written to"


def _numba(folder: Path) -> str:
    import numba
    import numpy as np
    from numba import prange

    def sum_of(values):  # type: ignore[no-untyped-def]
        total = 0.0
        for index in prange(values.size):
            total += values[index]
        return total

    total = numba.njit(parallel=True)(sum_of)(np.arange(1000.0))
    if total != 499500.0:
        raise ArithmeticError(f"a compiled sum is {total}, not 499500")
    return f"compiles, {numba.get_num_threads()} threads ({numba.threading_layer()})"


def _torch(folder: Path) -> str:
    import torch

    from segmentation.unet import UNet

    with torch.inference_mode():
        logits = UNet(width=4).eval()(torch.zeros(1, 5, 32, 32))
    if logits.shape != (1, 1, 32, 32) or not bool(torch.isfinite(logits).all()):
        raise ArithmeticError("a network gives no numbers")
    return f"a network runs, {torch.get_num_threads()} threads"


def _scan_file(folder: Path) -> str:
    import h5py
    import numpy as np

    from standard_space.scanfile import COMPRESSION

    stored = np.arange(1000, dtype=np.int16)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        path = Path(made) / "trial.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("signal", data=stored, **COMPRESSION)
        with h5py.File(path, "r") as file:
            if not np.array_equal(file["signal"][:], stored):
                raise ArithmeticError("a scan file gives other numbers than were stored")
    return "Zstandard written and read"


def _image(folder: Path) -> str:
    import numpy as np

    from standard_space.geometry import Geometry
    from standard_space.image import write_volume
    from standard_space.image_file import read_geometry

    placed = Geometry((6, 5, 4), (0.7, 0.8, 5.0), (-10.0, 20.0, -300.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    with tempfile.TemporaryDirectory(dir=folder) as made:
        path = Path(made) / "trial.nii.gz"
        write_volume(path, np.zeros(placed.shape, np.int16), placed)
        read = read_geometry(path)
    if read.size != placed.size or not np.allclose(read.origin_mm, placed.origin_mm, atol=1e-3):
        raise ArithmeticError(f"a NIfTI file comes back elsewhere: {read}")
    return "NIfTI written and read"


def _matplotlib(folder: Path) -> str:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1, 1))
    figure.add_subplot().set_title("days")
    FigureCanvasAgg(figure).print_png(io.BytesIO())
    return "a figure drawn"


def _film(folder: Path) -> str:
    from simulator.film import INSTALL_ENCODER, video_encoder

    encoder = video_encoder()
    return f"GIF only; for MP4, {INSTALL_ENCODER}" if encoder is None else f"GIF, and MP4 by {encoder}"


_ATTEMPTS: tuple[tuple[str, str, Callable[[Path], str]], ...] = (
    ("folder", "choose a folder that you may write to", _folder),
    ("Numba", "reinstall numba and numpy together: `pip install --force-reinstall numba`", _numba),
    ("PyTorch", "reinstall it: https://pytorch.org/get-started", _torch),
    ("h5py", "reinstall both: `pip install --force-reinstall h5py hdf5plugin`", _scan_file),
    ("SimpleITK", "reinstall it: `pip install --force-reinstall SimpleITK`", _image),
    ("matplotlib", "reinstall it: `pip install --force-reinstall matplotlib`", _matplotlib),
    ("films", "", _film),
)
