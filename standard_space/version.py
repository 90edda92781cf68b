"""The version, from one place: pyproject.toml by way of the installed distribution."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def lungcast_version() -> str:
    """Version of the installed distribution; "0+source" when run from a source tree without installing."""
    try:
        return version("lungcast")
    except PackageNotFoundError:
        return "0+source"
