"""Where a view's training stands, and its file."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from segmentation.tensor_file import read_tensors, write_tensors
from standard_space.errors import DataError

CHECKPOINT = "checkpoint.pt"
SCHEMA = 1

Row = dict[str, Any]
"""Of the history; see `segmentation.training.history`."""


@dataclass
class ViewState:
    """Where a view's training stands after a step; with the options, all that the next step depends on.

    Attributes
    ----------
    view : str
    step : int
        Steps done.
    steps : int
        Steps asked for when it was written.
    weights, optimiser : dict
        State of the network and of the optimiser.
    best : dict or None
        Weights of the best validation.
    best_dice : float
        Below 0 before the first validation.
    best_step, without_gain : int
        When that was; validations since.
    stopped : bool
        Early, by the patience.
    rows : list of dict
        The history.
    sums : list of float
        Loss, soft Dice, steps and seconds since the last row.
    seconds : float
        Of training in all.
    notes : list of str
        About scans left out.
    """

    view: str
    step: int = 0
    steps: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)
    optimiser: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Tensor] | None = None
    best_dice: float = -1.0
    best_step: int = 0
    without_gain: int = 0
    stopped: bool = False
    rows: list[Row] = field(default_factory=list)
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    def is_done(self, steps: int) -> bool:
        """Whether nothing is left to do of a run of so many steps."""
        return self.step >= steps or (self.stopped and self.steps == steps)

    @property
    def final_weights(self) -> dict[str, Tensor]:
        """The best weights where there was validation, else the last ones."""
        return self.weights if self.best is None else self.best


def write_state(path: Path, state: ViewState) -> None:
    """Write a checkpoint atomically.

    Raises
    ------
    OutOfSpaceError
        When the disk is full.
    """
    content = {"lungcast": "checkpoint", "schema": SCHEMA}
    content |= {entry.name: getattr(state, entry.name) for entry in fields(ViewState)}
    write_tensors(path, content)


def read_state(path: Path) -> ViewState | None:
    """Read a checkpoint, with ``weights_only=True``; None when there is none.

    Raises
    ------
    DataError
        It is damaged, foreign or of another schema version.
    """
    if not path.is_file():
        return None
    remedy = "begin anew with --force"
    content = read_tensors(path, "the checkpoint is damaged", remedy=remedy)
    known = {entry.name for entry in fields(ViewState)}
    if (
        not isinstance(content, dict)
        or content.get("lungcast") != "checkpoint"
        or content.get("schema") != SCHEMA
        or not known <= set(content)
    ):
        raise DataError("this is no checkpoint of this version of lungcast", where=path, remedy=remedy)
    return ViewState(**{name: content[name] for name in known})
