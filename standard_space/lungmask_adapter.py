"""Lungs by lungmask (Hofmanninger et al., Eur. Radiol. Exp. 2020), with weights from a file the user has.

An extra (`pip install "lungcast[lungmask]"`); nothing is ever downloaded.
"""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from standard_space.errors import DataError, ReadError, UsageError
from standard_space.image import CTImage


def lungmask_lungs(image: CTImage, weights: str | Path) -> NDArray[np.bool_]:
    """Lungs of a CT by a lungmask network.

    Parameters
    ----------
    image : CTImage
        HU on the native grid.
    weights : str or Path
        A lungmask state dict, for example `unet_r231-d5d2fc3d.pth`; every label above 0 is lung.

    Returns
    -------
    bool array of the image's shape (z, y, x).

    Raises
    ------
    UsageError
        When lungmask is not installed.
    ReadError
        When the weights are missing or are no lungmask weights.
    DataError
        When the network finds no lung.
    """
    inferer = _inferer(Path(weights))
    labels = inferer.apply(image.geometry.apply(image.array))
    if not labels.any():
        raise DataError(
            "lungmask found no lung in the image",
            where=weights,
            remedy="check the image, or leave the lungs to the classical method",
        )
    return np.asarray(labels != 0)


@functools.lru_cache(maxsize=1)
def _inferer(weights: Path) -> Any:
    if not weights.is_file():
        raise ReadError("no such weights for lungmask", where=weights)
    try:
        with warnings.catch_warnings():  # lungmask silences warnings of the whole process
            from lungmask import LMInferer
    except ImportError:
        raise UsageError(
            "lungmask is not installed", remedy='install it with `pip install "lungcast[lungmask]"`'
        ) from None
    import torch

    try:
        # Before lungmask, whose own torch.load may run code from a pickle on older PyTorch.
        torch.load(weights, map_location="cpu", weights_only=True)
        with warnings.catch_warnings():
            return LMInferer(modelpath=str(weights), tqdm_disable=True)
    except Exception as error:  # torch raises many kinds for a foreign file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ReadError(
            f"not weights of a lungmask network ({reason})",
            where=weights,
            remedy="use a .pth file from lungmask's releases",
        ) from None
