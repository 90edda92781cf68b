"""The trained three-way segmenter and its folder: three weight files and one JSON."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from segmentation.aggregation import Aggregation
from segmentation.signal import REFERENCE_WINDOW
from segmentation.tensor_file import read_tensors, write_tensors
from segmentation.unet import UNet
from segmentation.views import OFFSETS_MM, VIEWS
from standard_space.errors import DataError, UsageError
from standard_space.files import sha256_of, write_json, write_mark
from standard_space.grid import StandardGrid
from standard_space.scan import Scan
from standard_space.version import lungcast_version
from standard_space.window import Window

SCHEMA = "lungcast-model"
SCHEMA_VERSION = 2
MODEL_FILE = "model.json"

TARGETS = ("infection", "lungs")
"""What a segmenter can be trained to find."""


@dataclass
class ThreeWaySegmenter:
    """Three independent 2D U-Nets, one per plane, and what is needed to use them [paper III-D].

    Parameters
    ----------
    networks : dict of str to UNet
        One network for each of ``VIEWS``, each with weights of its own.
    grid_size : int
        Voxels along each axis of the standard grid the networks were trained on.
    offsets_mm : dict of str to tuple of float
        For each view, distances of a stack's slices from the central one, in mm.
    aggregation : Aggregation
        How the three probabilities become a mask.
    target : str
        One of `TARGETS`.
    input_window : Window or None
        The networks see (HU - level) / width at this window; None is the scan's own window [paper III-B].
    training : dict
        Provenance: arguments, seed, steps and losses per view, and under ``patients`` the hashes of the
        training patients, ``[{"patient_sha256": str, "image_sha256": [str, ...]}, ...]``, and likewise under
        ``validation_patients``. JSON-serialisable.
    scores : dict
        What was measured on validation scans, empty when nothing was. JSON-serialisable.

    Raises
    ------
    UsageError
        A view lacks its network or offsets, networks of different shapes, or an unknown target.
    """

    networks: dict[str, UNet]
    grid_size: int
    offsets_mm: dict[str, tuple[float, ...]] = field(default_factory=lambda: dict.fromkeys(VIEWS, OFFSETS_MM))
    aggregation: Aggregation = field(default_factory=Aggregation)
    target: str = "infection"
    input_window: Window | None = REFERENCE_WINDOW
    training: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for held in (self.networks, self.offsets_mm):
            if set(held) != set(VIEWS):
                raise UsageError("a segmenter needs one network per view, and its offsets", got=sorted(held))
        if len({network.width for network in self.networks.values()}) != 1:
            raise UsageError("the three networks differ in width")
        for view, network in self.networks.items():
            if len(self.offsets_mm[view]) != network.in_channels:
                raise UsageError(
                    f"the network of view {view} takes another number of slices than there are offsets",
                    got=len(self.offsets_mm[view]),
                    expected=network.in_channels,
                )
        if self.target not in TARGETS:
            raise UsageError("unknown target", got=self.target, expected=", ".join(TARGETS))

    @classmethod
    def untrained(
        cls, grid_size: int, *, width: int = 16, seed: int = 0, target: str = "infection"
    ) -> ThreeWaySegmenter:
        """Return a segmenter with random weights, each view's from a seed of its own."""
        return cls({view: new_network(view, width, seed) for view in VIEWS}, grid_size, target=target)

    @property
    def grid(self) -> StandardGrid:
        """The standard grid the networks were trained on."""
        return StandardGrid(self.grid_size)

    @property
    def width(self) -> int:
        """Channels of the networks' first level."""
        return self.networks[VIEWS[0]].width

    @property
    def model_id(self) -> str:
        """First 16 hexadecimal digits of a SHA-256 over weights, grid, offsets, window and target."""
        window = self.input_window
        levels = None if window is None else (window.level_hu, window.width_hu)
        offsets = [self.offsets_mm[view] for view in VIEWS]
        digest = hashlib.sha256(repr((self.grid_size, offsets, levels, self.target)).encode())
        for view in VIEWS:
            for name, tensor in self.networks[view].state_dict().items():
                digest.update(f"{view}.{name}".encode())
                digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def check_scan_grid(self, scan: Scan) -> None:
        """Refuse a scan that lies on another grid.

        Raises
        ------
        DataError
            Names both grids.
        """
        if scan.grid.size != self.grid_size:
            raise DataError(
                "the scan and the model lie on different grids",
                where=f"{scan.patient}/{scan.scan}",
                got=f"scan grid {scan.grid.size}",
                expected=f"model grid {self.grid_size}",
                remedy="embed the scan on the model's grid",
            )

    @property
    def knows_its_patients(self) -> bool:
        """Whether the model keeps the hashes of the patients it was trained on; an imported one does not."""
        return "patients" in self.training

    def trained_on(self, patient_sha256: str, image_sha256: str | None) -> str | None:
        """Say why a scan is not held out, or None when it is.

        Returns
        -------
        str or None
            "patient" or "image": what the model's list of training patients holds; "validation patient" or
            "validation image": its list of patients that training was stopped or a threshold tuned by.
        """
        for key, kind in (("patients", ""), ("validation_patients", "validation ")):
            for known in self.training.get(key, []):
                if known["patient_sha256"] == patient_sha256:
                    return f"{kind}patient"
                if image_sha256 is not None and image_sha256 in known["image_sha256"]:
                    return f"{kind}image"
        return None

    def save(self, folder: str | Path) -> None:
        """Write the model folder: ``xy.pt``, ``yz.pt``, ``xz.pt``, ``model.json``; each file atomically.

        The JSON is written last and holds the weights' hashes, so that an interrupted save is noticed.

        Raises
        ------
        DataError
            The weights hold NaN or infinity, or the folder cannot be written.
        """
        folder = Path(folder)
        for view in VIEWS:
            _check_finite(self.networks[view].state_dict(), folder / f"{view}.pt")
        try:
            for view in VIEWS:
                state = self.networks[view].state_dict()
                weights = {key: value.detach().cpu() for key, value in state.items()}
                write_tensors(folder / f"{view}.pt", weights)
            write_json(folder / MODEL_FILE, self._description(folder))
            write_mark(folder, "model", {"model_id": self.model_id, "version": lungcast_version()})
        except OSError as error:
            raise DataError("the model cannot be written", where=folder, got=error.strerror) from error

    def _description(self, folder: Path) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "lungcast_version": lungcast_version(),
            "model_id": self.model_id,
            "target": self.target,
            "aggregation": self.aggregation.to_json(),
            "grid_size": self.grid_size,
            "offsets_mm": {view: list(self.offsets_mm[view]) for view in VIEWS},
            "width": self.width,
            "input_window": None
            if self.input_window is None
            else {"level_hu": self.input_window.level_hu, "width_hu": self.input_window.width_hu},
            "beyond_the_volume": "air, -1000 HU",
            "views": {
                view: {"weights": f"{view}.pt", "sha256": sha256_of(folder / f"{view}.pt")} for view in VIEWS
            },
            "training": self.training,
            "scores": self.scores,
        }

    @classmethod
    def load(cls, folder: str | Path) -> ThreeWaySegmenter:
        """Read a model folder; weights are read with ``weights_only=True``.

        Raises
        ------
        DataError
            No model folder, foreign or damaged JSON, weights missing, damaged, not finite or of another
            network.
        """
        folder = Path(folder)
        description = _read_description(folder)
        try:
            offsets_mm = {
                view: tuple(float(offset) for offset in description["offsets_mm"][view]) for view in VIEWS
            }
            if not all(math.isfinite(offset) for view in VIEWS for offset in offsets_mm[view]):
                raise ValueError("offsets that are not finite")
            grid_size, width = int(description["grid_size"]), int(description["width"])
            files = {view: description["views"][view] for view in VIEWS}
            StandardGrid(grid_size)
            networks = {
                view: _read_network(
                    folder / f"{view}.pt", files[view]["sha256"], len(offsets_mm[view]), width
                )
                for view in VIEWS
            }
            window = description["input_window"]
            if window is not None:
                window = Window(float(window["level_hu"]), float(window["width_hu"]), REFERENCE_WINDOW.source)
            return cls(
                networks,
                grid_size,
                offsets_mm,
                Aggregation.from_json(description["aggregation"]),
                str(description["target"]),
                window,
                dict(description["training"]),
                dict(description["scores"]),
            )
        except (KeyError, TypeError, ValueError, UsageError) as error:
            where = folder / MODEL_FILE
            raise DataError(f"the model's description is damaged ({error!r})", where=where) from error


def new_network(view: str, width: int, seed: int, in_channels: int = len(OFFSETS_MM)) -> UNet:
    """Return a network with random weights that depend on the seed and the view alone."""
    with seeded_torch(seed, view, "weights"):
        return UNet(in_channels, width)


@contextmanager
def seeded_torch(seed: int, *purpose: str) -> Iterator[None]:
    """Seed torch's own CPU generator for a purpose, and give it back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, *purpose))
        yield


def seed_for(seed: int, *purpose: str) -> int:
    """Return a 63-bit seed for a purpose, from the user's seed."""
    digest = hashlib.sha256("/".join([str(seed), *purpose]).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def patient_sha256(patient: str) -> str:
    """Return the hash a model keeps of a patient: SHA-256 of ``"patient:" + patient``."""
    return hashlib.sha256(f"patient:{patient}".encode()).hexdigest()


def image_sha256(scan: Scan) -> str | None:
    """Return the SHA-256 of the image file(s) a scan was made from; a synthetic scan carries its source's."""
    value = scan.provenance.get("image_sha256")
    return None if value is None else str(value)


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / MODEL_FILE
    if not folder.is_dir():
        raise DataError("there is no such model folder", where=folder)
    if not path.is_file():
        raise DataError(f"this folder is not a lungcast model: it has no {MODEL_FILE}", where=folder)
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError("the model's description is not JSON", where=path) from error
    except OSError as error:
        raise DataError("the model's description cannot be read", where=path, got=error.strerror) from error
    if not isinstance(description, dict) or description.get("schema") != SCHEMA:
        raise DataError("this is not a lungcast model", where=path)
    if description.get("schema_version") != SCHEMA_VERSION:
        raise DataError(
            "the model is of another schema version",
            where=path,
            got=description.get("schema_version"),
            expected=SCHEMA_VERSION,
            remedy="train it again with `lungcast train`",
        )
    return description


def _read_network(path: Path, sha256: str, in_channels: int, width: int) -> UNet:
    if not path.is_file():
        raise DataError("the model's weights are missing", where=path)
    weights = read_tensors(path, "the model's weights are damaged")
    if not (isinstance(weights, Mapping) and all(isinstance(t, torch.Tensor) for t in weights.values())):
        raise DataError("the file holds no network weights", where=path)
    _check_finite(weights, path)
    first = weights.get("down.0.conv1.weight")
    if first is None or tuple(first.shape) != (width, in_channels, 3, 3):
        raise DataError(
            "the weights belong to another network", where=path, expected=f"a U-Net of width {width}"
        )
    network = UNet(in_channels, width)
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    if {key: tuple(value.shape) for key, value in weights.items()} != expected:
        raise DataError(
            "the weights belong to another network", where=path, expected=f"a U-Net of width {width}"
        )
    if sha256_of(path) != sha256:
        raise DataError("the weights are not the ones the model was saved with", where=path)
    network.load_state_dict(weights)
    return network.eval()


def _check_finite(weights: Mapping[str, torch.Tensor], path: Path) -> None:
    if not all(bool(torch.isfinite(value).all()) for value in weights.values() if value.is_floating_point()):
        raise DataError("the weights hold NaN or infinity", where=path)
