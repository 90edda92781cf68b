"""Errors of the dynamics: one sentence saying what is wrong, what came, what was expected, and what to do."""

from __future__ import annotations


class DynamicsError(ValueError):
    """Input that the dynamics cannot work with.

    Parameters
    ----------
    what : str
        What is wrong, as a short clause.
    got, expected : object, optional
        The offending value and the acceptable one.
    remedy : str, optional
        What the caller can do about it.
    """

    def __init__(
        self, what: str, *, got: object = None, expected: object = None, remedy: str | None = None
    ) -> None:
        self.what = what
        self.got = got
        self.expected = expected
        self.remedy = remedy
        sentence = what
        if got is not None:
            sentence += f": got {got}"
        if expected is not None:
            sentence += f"{',' if got is not None else ':'} expected {expected}"
        if remedy is not None:
            sentence += f"; {remedy}"
        super().__init__(sentence)


class ParameterError(DynamicsError):
    """Transition parameters or controls outside their constraints (DESIGN 3)."""
