"""The lungmask adapter; what needs lungmask itself is skipped where the extra is not installed."""

from __future__ import annotations

import builtins
from pathlib import Path

import numpy as np
import pytest

from standard_space.errors import DataError, ReadError, UsageError
from standard_space.lungmask_adapter import _inferer, lungmask_lungs
from tests.standard_space.bodies import body, geometry


def test_missing_weights(tmp_path: Path) -> None:
    image, _, _ = body(geometry())
    with pytest.raises(ReadError, match="no such weights"):
        lungmask_lungs(image, tmp_path / "absent.pth")


def test_without_the_extra_the_remedy_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *args, **kwargs):
        if name.split(".")[0] == "lungmask":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    (tmp_path / "w.pth").write_bytes(b"x")
    image, _, _ = body(geometry())
    with pytest.raises(UsageError, match="pip install"):
        lungmask_lungs(image, tmp_path / "w.pth")


def test_foreign_weights(tmp_path: Path) -> None:
    pytest.importorskip("lungmask", reason="the extra lungmask is not installed")
    (tmp_path / "w.pth").write_bytes(b"not a checkpoint")
    image, _, _ = body(geometry())
    with pytest.raises(ReadError, match="not weights of a lungmask network"):
        lungmask_lungs(image, tmp_path / "w.pth")


def test_weights_from_a_file_are_used(tmp_path: Path) -> None:
    """A network whose last bias always votes for one class: all lung, or none."""
    pytest.importorskip("lungmask", reason="the extra lungmask is not installed")
    import torch
    from lungmask.resunet import UNet

    _inferer.cache_clear()
    model = UNet(
        n_classes=3, padding=True, depth=5, up_mode="upsample", batch_norm=True, residual=False
    ).eval()
    image, _, _ = body(geometry(size=(40, 40, 6), spacing=(8.0, 8.0, 30.0)))
    found = {}
    for label in (0, 1):
        with torch.no_grad():
            model.last.weight.zero_()
            model.last.bias.copy_(torch.nn.functional.one_hot(torch.tensor(label), 3).float())
        path = tmp_path / f"{label}.pth"
        torch.save(model.state_dict(), path)
        try:
            found[label] = lungmask_lungs(image, path)
        except DataError as error:
            found[label] = str(error)
    assert "found no lung" in found[0]
    assert isinstance(found[1], np.ndarray)
    assert found[1].shape == image.array.shape
    assert found[1].any()
