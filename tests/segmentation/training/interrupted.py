"""What test_interruption runs in processes of its own, forked from one that has imported everything."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from segmentation.training import TrainingOptions, train
from standard_space.errors import OutOfSpaceError
from tests.segmentation.toys import toy_items

OPTIONS = TrainingOptions(
    steps=4, batch_size=2, width=2, patch=16, validate_every=2, validation_slices=4, checkpoint_minutes=0.0
)
FULL = 9  # exit code of `with_a_full_disk`


def run(folder: Path, **given: Any) -> None:
    """Begin a run, or continue it."""
    torch.set_num_threads(1)
    items = toy_items(3)
    options = given.pop("options", OPTIONS)
    train(items[:2], validation=items[2:], options=options, device="cpu", folder=folder, resume=True, **given)


def dies_before(folder: Path, operation: int) -> None:
    """Train, and be killed before the N-th time that something is made visible, removed or flushed."""
    left = [operation]

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapped

    for name in ("replace", "unlink", "fsync", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))
    run(folder)


def with_a_full_disk(folder: Path, largest_bytes: int) -> None:
    """Train where no file can grow beyond a size, which the system says like a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_bytes, resource.RLIM_INFINITY))
    try:
        run(folder)
    except OutOfSpaceError:
        os._exit(FULL)
