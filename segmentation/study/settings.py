"""Training options that a study is given as text: ``width=8``, ``unet3d.batch_size=2``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_origin, get_type_hints

from segmentation.training.options import TrainingOptions
from standard_space.errors import UsageError

DECIDED = ("method", "target", "seed", "synthetic_share", "on_the_fly_share")
"""Training options that no setting changes: the plan decides them."""


def check_settings(settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse settings that are no training option, that the plan decides, or of another kind than the option.

    Raises
    ------
    UsageError
    """
    hints = get_type_hints(TrainingOptions)
    for given in settings.values():
        for name, value in given.items():
            if name not in hints or name in DECIDED:
                known = ", ".join(option for option in hints if option not in DECIDED)
                raise UsageError("a study has no such setting", got=name, expected=known)
            if not _is_of(value, hints[name]):
                raise UsageError(f"the setting {name} takes another kind of value", got=repr(value))


def _is_of(value: object, hint: Any) -> bool:
    """Whether a value is of a field's type."""
    kinds = get_args(hint) if get_origin(hint) is not tuple and get_args(hint) else (hint,)
    if isinstance(value, int) and not isinstance(value, bool):
        return int in kinds or float in kinds
    if isinstance(value, tuple):
        return any(get_origin(kind) is tuple for kind in kinds)
    return type(value) in kinds


def parse_settings(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return settings of texts such as ``width=8`` (all methods) and ``unet3d.batch_size=2``.

    Raises
    ------
    UsageError
        Not a setting's form, or no number where one is needed.
    """
    settings: dict[str, dict[str, Any]] = {}
    for text in texts:
        left, equals, value = text.partition("=")
        method, _, name = left.rpartition(".")
        if not equals or not name:
            raise UsageError("not a setting", got=text, expected="OPTION=VALUE or METHOD.OPTION=VALUE")
        settings.setdefault(method, {})[name.replace("-", "_")] = _plain(value)
    return settings


def _plain(value: str) -> Any:
    if value in ("true", "false"):
        return value == "true"
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value
