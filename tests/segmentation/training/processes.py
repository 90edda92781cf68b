"""What test_distributed runs in processes of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from segmentation.training import TrainingOptions, loop, train
from tests.segmentation.toys import toy_items

OPTIONS = TrainingOptions(
    steps=3, batch_size=4, width=2, patch=16, validate_every=2, validation_slices=4, learning_rate=1e-2
)


def rank_of_two(rank: int, port: int, folder: Path, fixed: bool) -> None:
    """One process of two, as `torchrun` starts it."""
    os.environ.update(
        RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    trained(folder, fixed)


def trained(folder: Path, fixed: bool, **given: Any) -> None:
    """Train, with the statistics of batch normalisation fixed from the beginning or not."""
    torch.set_num_threads(1)
    if fixed:
        loop.SETTLING_SHARE = 1.0
    items = toy_items(3)
    try:
        train(
            items[:2],
            validation=items[2:],
            options=OPTIONS,
            device="cpu",
            folder=folder,
            resume=True,
            **given,
        )
    finally:
        loop.SETTLING_SHARE = 0.3
