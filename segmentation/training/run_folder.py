"""The folder of a run: what was asked for, where each view stands, and who may write.

::

    MODEL/training/run.json             options, steps (now, and when it was begun), fingerprints of the data and
                                        of the encoder's weights, the command's arguments
    MODEL/training/<view>/checkpoint.pt
    MODEL/training/<view>/history.csv
    MODEL/history.csv                   of all views, made anew with every checkpoint
    MODEL/curves.png                    at the end, with the model itself
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from segmentation.methods import recipe_of
from segmentation.segmenter import MODEL_FILE
from segmentation.training.checkpoint import CHECKPOINT, ViewState, read_state, write_state
from segmentation.training.history import HISTORY, read_rows, write_rows
from segmentation.training.options import TrainingOptions
from segmentation.training.same_run import Data, check_same
from standard_space.errors import DataError, UsageError
from standard_space.files import (
    LOCK,
    clear_temporaries,
    prepare_output_folder,
    read_mark,
    read_own_json,
    sha256_of,
    write_json,
)
from standard_space.folders import folder_lock
from standard_space.version import lungcast_version

TRAINING = "training"
RUN_FILE = "run.json"
SCHEMA = 2
WAIT_SECONDS = 600.0
"""For another process to prepare the folder or to finish the model, before giving up."""


def stored_run(folder: str | Path) -> dict[str, Any] | None:
    """What a model folder's run is known by; None when no run was begun there.

    Raises
    ------
    ReadError
        The file is damaged, or of another schema version.
    """
    path = Path(folder) / TRAINING / RUN_FILE
    if not path.is_file():
        return None
    return read_own_json(path, "training", SCHEMA, "lungcast train --force")


class RunFolder:
    """A model folder in which a run keeps its state; made by `RunFolder.opened`.

    Attributes
    ----------
    folder : Path
    options : TrainingOptions
        Of the run, as it was begun.
    steps : int
        Per view.
    begun_with : int
        The steps when it was begun; what is drawn depends on them, and not on an extension.
    encoder_sha256 : str or None
        Of the encoder weights that it was begun with.
    """

    def __init__(
        self,
        folder: Path,
        options: TrainingOptions,
        steps: int,
        begun_with: int | None = None,
        encoder_sha256: str | None = None,
    ) -> None:
        self.folder, self.options, self.steps = folder, options, steps
        self.encoder_sha256 = encoder_sha256
        self.begun_with = steps if begun_with is None else begun_with

    @classmethod
    def opened(
        cls,
        folder: str | Path,
        options: TrainingOptions,
        steps: int,
        data: Data,
        *,
        resume: bool = False,
        force: bool = False,
        arguments: dict[str, Any] | None = None,
    ) -> RunFolder:
        """Begin a run, or take it up.

        Parameters
        ----------
        options : TrainingOptions
        steps : int
            Another number than the stored one extends the run, or shortens it.
        data : dict
            See `Data`.
        resume, force : bool
            Continue what is there, or replace it.
        arguments : dict, optional
            Of the command, kept with a run that is begun.

        Raises
        ------
        UsageError
            The folder holds something else, another run or other data, or fewer steps than are done.
        DataError
            The folder cannot be written to, or what it holds is damaged.
        """
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise UsageError("the output path is a file", where=folder, remedy="name a folder")
        try:
            with preparing(folder):
                return cls._prepared(folder, options, steps, data, resume, force, arguments)
        except OSError as error:
            raise unwritable(folder, error) from error

    @contextmanager
    def holding(self, views: Sequence[str]) -> Iterator[None]:
        """Hold views for this process.

        Raises
        ------
        UsageError
            Another process trains one of them.
        DataError
            The folder cannot be written to.
        """
        with ExitStack() as stack:
            for view in views:
                place = self.view_folder(view)
                try:
                    stack.enter_context(folder_lock(place))
                    clear_temporaries(place)
                except OSError as error:
                    raise unwritable(place, error) from error
            yield

    @classmethod
    def _prepared(
        cls,
        folder: Path,
        options: TrainingOptions,
        steps: int,
        data: Data,
        resume: bool,
        force: bool,
        arguments: dict[str, Any] | None,
    ) -> RunFolder:
        stored = stored_run(folder) if resume and not force else None
        if stored is None:
            if force:
                _refuse_while_training(folder)
                (folder / TRAINING / RUN_FILE).unlink(missing_ok=True)
            prepare_output_folder(folder, "model", force=force or (resume and _barely_begun(folder)))
            encoder = encoder_sha256_of(options.encoder_weights)
            run = cls(folder, options, steps, encoder_sha256=encoder)
            run._write(data, arguments)
            return run
        began = TrainingOptions.from_json(stored["options"])
        check_same(folder, began, options, stored["data"], data)
        encoder = stored.get("encoder_sha256")
        if not is_begun(folder, options):
            _check_encoder(folder, encoder, encoder_sha256_of(options.encoder_weights))
        run = cls(folder, options, steps, int(stored["begun_with"]), encoder)
        if steps != int(stored["steps"]):
            reached = max((state.step for state in run.states().values()), default=0)
            if steps < reached:
                raise UsageError(
                    "the run has gone further already",
                    where=folder,
                    got=f"{steps} steps",
                    expected=f"{reached} or more",
                )
            _refuse_while_training(folder)
            run._write(stored["data"], stored["arguments"])
        return run

    def _write(self, data: Data, arguments: dict[str, Any] | None) -> None:
        (self.folder / TRAINING).mkdir(exist_ok=True)
        content = {
            "lungcast": "training",
            "schema": SCHEMA,
            "lungcast_version": lungcast_version(),
            "steps": self.steps,
            "begun_with": self.begun_with,
            "options": self.options.without_paths(),
            "encoder_sha256": self.encoder_sha256,
            "data": data,
            "arguments": arguments,
        }
        write_json(self.folder / TRAINING / RUN_FILE, content)

    @property
    def views(self) -> tuple[str, ...]:
        """The method's networks: the three views, or a rival's parts."""
        return recipe_of(self.options.method).parts

    def view_folder(self, view: str) -> Path:
        """Where a view's state lies."""
        return self.folder / TRAINING / view

    def state(self, view: str) -> ViewState:
        """Where a view stands; at no step when it was not begun.

        Raises
        ------
        DataError
            See `read_state`.
        """
        return read_state(self.view_folder(view) / CHECKPOINT) or ViewState(view)

    def states(self) -> dict[str, ViewState]:
        """Where the views stand that were begun."""
        found = {view: self.state(view) for view in self.views}
        return {view: state for view, state in found.items() if state.weights}

    def keep(self, state: ViewState) -> None:
        """Write a view's checkpoint, and the histories."""
        write_state(self.view_folder(state.view) / CHECKPOINT, state)
        self.write_history([state])

    def write_history(self, states: Iterable[ViewState]) -> None:
        """Write the histories of views, and that of all views, of whatever process."""
        for state in states:
            write_rows(self.view_folder(state.view) / HISTORY, {state.view: state.rows})
        write_rows(
            self.folder / HISTORY,
            {view: read_rows(self.view_folder(view) / HISTORY) for view in self.views},
        )


@contextmanager
def preparing(folder: Path) -> Iterator[None]:
    """Hold a folder for the moment in which it is prepared or the model is written.

    Raises
    ------
    UsageError
        Another process holds it for too long.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=WAIT_SECONDS)
    except Timeout:
        raise UsageError("another run is writing into this folder", where=folder) from None
    try:
        yield
    finally:
        lock.release()


def unwritable(folder: Path, error: OSError) -> DataError:
    """The error for a folder that cannot be written to."""
    return DataError(
        "the model folder cannot be written to",
        where=folder,
        got=error.strerror,
        remedy="choose another folder",
    )


def is_begun(folder: str | Path | None, options: TrainingOptions) -> bool:
    """Whether every network of a run has a checkpoint: what it starts from is then no longer needed."""
    parts = recipe_of(options.method).parts
    return folder is not None and all(
        (Path(folder) / TRAINING / part / CHECKPOINT).is_file() for part in parts
    )


def encoder_sha256_of(path: str | None) -> str | None:
    """Return the SHA-256 of a file of encoder weights, None of none.

    Raises
    ------
    DataError
        The file cannot be read.
    """
    if path is None:
        return None
    try:
        return sha256_of(path)
    except OSError as error:
        raise DataError("the encoder weights cannot be read", where=path, got=error.strerror) from error


def _check_encoder(folder: Path, known: str | None, given: str | None) -> None:
    if known != given:
        raise UsageError(
            "the run in this folder was begun with other encoder weights",
            where=folder,
            got="none" if given is None else f"SHA-256 {given}",
            expected="none" if known is None else f"SHA-256 {known}",
            remedy="name the same file, or begin anew with --force",
        )


def _barely_begun(folder: Path) -> bool:
    """Whether a run was killed here before it could say what it is, or while it replaced another."""
    mark = read_mark(folder)
    return (
        mark is not None
        and mark["lungcast"] == "model"
        and mark["provenance"].get("complete") is False
        and not (folder / TRAINING / RUN_FILE).exists()
        and not (folder / MODEL_FILE).exists()
    )


def _refuse_while_training(folder: Path) -> None:
    for lock in sorted((folder / TRAINING).glob(f"*/{LOCK}")):
        with folder_lock(lock.parent):
            pass
