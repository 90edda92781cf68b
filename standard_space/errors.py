"""Every error lungcast raises for a user's mistake: what, where, got, expected, remedy.

Exit codes of the command line: 0 done, 1 failed or partly failed (`DataError`), 2 usage (`UsageError`).
`simulator.dynamics` is free of the project and raises its own `ValueError` subclasses.
"""

from __future__ import annotations

from pathlib import Path


class LungcastError(Exception):
    """A mistake in input or use, told in one sentence.

    Parameters
    ----------
    what : str
        What is wrong, without a full stop.
    where : str or Path, optional
        The file, series, row or option it concerns.
    got, expected : object, optional
        The offending value and what would have been right.
    remedy : str, optional
        What to do about it.
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        where: str | Path | None = None,
        got: object = None,
        expected: object = None,
        remedy: str | None = None,
    ) -> None:
        self.what, self.where, self.got, self.expected, self.remedy = what, where, got, expected, remedy
        text = f"{where}: {what}" if where is not None else what
        details = []
        if got is not None:
            details.append(f"got {got}")
        if expected is not None:
            details.append(f"expected {expected}")
        if details:
            text += f" ({', '.join(details)})"
        if remedy:
            text += f"; {remedy}"
        super().__init__(text)

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions with keyword-only arguments do not pickle by default; worker processes need them to.
        return (_rebuild, (type(self), self.what, self.where, self.got, self.expected, self.remedy))


def _rebuild(
    kind: type[LungcastError], what: str, where: object, got: object, expected: object, remedy: str | None
) -> LungcastError:
    return kind(what, where=where, got=got, expected=expected, remedy=remedy)  # type: ignore[arg-type]


class UsageError(LungcastError):
    """The command, an option, or the manifest is wrong (exit code 2)."""

    exit_code = 2


class ManifestError(UsageError):
    """The manifest CSV is wrong: a missing file, an unknown column, a duplicate scan, days going backwards."""


class DataError(LungcastError):
    """A scan or a stored file cannot be used (exit code 1)."""


class ReadError(DataError):
    """An image, mask or stored file cannot be read."""


class GeometryError(DataError):
    """A mask does not lie on its image, or a geometry cannot be used."""


class NoLungsError(DataError):
    """No lungs were found where lungs are needed."""


class ScanFileError(DataError):
    """A scan file is truncated, foreign, of another schema version, or its source is missing or altered."""


class OutOfSpaceError(DataError):
    """The disk is full: what was written is whole, and nothing more can be written for now."""
