"""What every trained segmenter is, whatever its method: networks by name, and what is needed to use them."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segmentation.aggregation import Aggregation
from segmentation.signal import REFERENCE_WINDOW
from segmentation.tensor_file import read_tensors, write_tensors
from standard_space.errors import DataError
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


class Segmenter(ABC):
    """A trained model; `segmentation.methods.load_segmenter` reads one, `predictor_for` makes it ready.

    Attributes
    ----------
    method : str
        One of `segmentation.methods.METHODS`.
    grid_size : int
        Voxels along each axis of the standard grid the networks were trained on.
    aggregation : Aggregation
        How the probabilities of the method's views become a mask.
    target : str
        One of `TARGETS`.
    input_window : Window or None
        The networks see (HU - level) / width at this window; None is the scan's own window [paper III-B].
    training : dict
        Provenance: arguments, seed, steps and losses per network, and under ``patients`` the hashes of the
        training patients, ``[{"patient_sha256": str, "image_sha256": [str, ...]}, ...]``, and likewise under
        ``validation_patients``. JSON-serialisable.
    scores : dict
        What was measured on validation scans, empty when nothing was. JSON-serialisable.
    """

    grid_size: int
    aggregation: Aggregation
    target: str
    input_window: Window | None
    training: dict[str, Any]
    scores: dict[str, Any]

    weights_key = "networks"
    """Of the JSON: where the weight files are listed."""

    @property
    @abstractmethod
    def method(self) -> str:
        """The method's name."""

    @property
    @abstractmethod
    def parts(self) -> Mapping[str, nn.Module]:
        """The networks by name, in the method's order."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Channels of the networks' first level."""

    @abstractmethod
    def described(self) -> dict[str, Any]:
        """What the JSON says beside what it says of every segmenter."""

    @property
    @abstractmethod
    def model_id(self) -> str:
        """First 16 hexadecimal digits of a SHA-256 over all that a prediction depends on but the rule."""

    @property
    def grid(self) -> StandardGrid:
        """The standard grid the networks were trained on."""
        return StandardGrid(self.grid_size)

    @property
    def parameters(self) -> int:
        """Number of trained values in all networks."""
        return sum(value.numel() for network in self.parts.values() for value in network.parameters())

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
        """Write the model folder: a weight file for each network, and ``model.json``; each atomically.

        The JSON is written last and holds the weights' hashes, so that an interrupted save is noticed.

        Raises
        ------
        DataError
            The weights hold NaN or infinity, or the folder cannot be written.
        """
        folder = Path(folder)
        for name, network in self.parts.items():
            check_finite(network.state_dict(), folder / f"{name}.pt")
        try:
            for name, network in self.parts.items():
                weights = {key: value.detach().cpu() for key, value in network.state_dict().items()}
                write_tensors(folder / f"{name}.pt", weights)
            write_json(folder / MODEL_FILE, self._description(folder))
            write_mark(folder, "model", {"model_id": self.model_id, "version": lungcast_version()})
        except OSError as error:
            raise DataError("the model cannot be written", where=folder, got=error.strerror) from error

    def _description(self, folder: Path) -> dict[str, Any]:
        window = self.input_window
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "lungcast_version": lungcast_version(),
            "method": self.method,
            "model_id": self.model_id,
            "target": self.target,
            "aggregation": self.aggregation.to_json(),
            "grid_size": self.grid_size,
            "width": self.width,
            **self.described(),
            "input_window": None
            if window is None
            else {"level_hu": window.level_hu, "width_hu": window.width_hu},
            "beyond_the_volume": "air, -1000 HU",
            self.weights_key: {
                name: {"weights": f"{name}.pt", "sha256": sha256_of(folder / f"{name}.pt")}
                for name in self.parts
            },
            "training": self.training,
            "scores": self.scores,
        }


def digest_of(about: object, networks: Mapping[str, nn.Module]) -> str:
    """Return 16 hexadecimal digits for some plain values and the weights of networks."""
    digest = hashlib.sha256(repr(about).encode())
    for part, network in networks.items():
        for name, tensor in network.state_dict().items():
            digest.update(f"{part}.{name}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def read_description(folder: Path) -> dict[str, Any]:
    """Read the JSON of a model folder.

    Raises
    ------
    DataError
        No model folder, or its JSON is foreign, damaged or of another schema version.
    """
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


def window_in(description: dict[str, Any]) -> Window | None:
    """Return the input window that a model's JSON names.

    Raises
    ------
    KeyError, TypeError, ValueError
        The JSON is damaged.
    """
    window = description["input_window"]
    if window is None:
        return None
    return Window(float(window["level_hu"]), float(window["width_hu"]), REFERENCE_WINDOW.source)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a weight file, with ``weights_only=True``.

    Raises
    ------
    DataError
        Missing, damaged, not a network's weights, or not finite.
    """
    if not path.is_file():
        raise DataError("the model's weights are missing", where=path)
    weights = read_tensors(path, "the model's weights are damaged")
    if not (isinstance(weights, Mapping) and all(isinstance(t, Tensor) for t in weights.values())):
        raise DataError("the file holds no network weights", where=path)
    check_finite(weights, path)
    return dict(weights)


def load_weights(network: nn.Module, weights: dict[str, Tensor], path: Path, sha256: str, kind: str) -> None:
    """Put weights into a network, which is set to evaluate.

    Raises
    ------
    DataError
        They are another network's, or not those that the model was saved with.
    """
    check_shapes(network, weights, path, kind)
    if sha256_of(path) != sha256:
        raise DataError("the weights are not the ones the model was saved with", where=path)
    network.load_state_dict(weights)
    network.eval()


def check_shapes(network: nn.Module, weights: Mapping[str, Tensor], path: Path, kind: str) -> None:
    """Refuse weights of another network than this, which may lie on torch's meta device.

    Raises
    ------
    DataError
    """
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    if {key: tuple(value.shape) for key, value in weights.items()} != expected:
        raise DataError("the weights belong to another network", where=path, expected=kind)


def check_finite(weights: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights that are not numbers.

    Raises
    ------
    DataError
    """
    if not all(bool(torch.isfinite(value).all()) for value in weights.values() if value.is_floating_point()):
        raise DataError("the weights hold NaN or infinity", where=path)


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
