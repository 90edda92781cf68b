"""The viewer's files: a page that is the same whether it is served or opened from a disk, and its data.

Data are scripts that hand over what they hold, since a page opened from a disk may load scripts but not files.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from segmentation.viewer.cases import Case
from segmentation.viewer.volumes import nifti_layers, reduced
from standard_space.errors import DataError, LungcastError
from standard_space.files import write_bytes, write_text
from standard_space.progress import Progress, silent
from standard_space.version import lungcast_version

ASSETS = ("viewer.css", "viewer.js", "curves.js", "niivue.umd.js", "niivue.LICENSE")
NIIVUE_VERSION = "0.69.0"
NIIVUE_SHA256 = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"
"""Of dist/niivue.umd.js in the npm package @niivue/niivue of that version."""


def asset(name: str) -> bytes:
    """Return one of the viewer's own files.

    Raises
    ------
    DataError
        NiiVue's bundle is not the one that was vendored.
    """
    content = (files("segmentation.viewer") / "assets" / name).read_bytes()
    if name == "niivue.umd.js" and hashlib.sha256(content).hexdigest() != NIIVUE_SHA256:
        raise DataError(
            "the viewer's NiiVue is not the one that came with lungcast",
            where=name,
            expected=f"SHA-256 {NIIVUE_SHA256}",
            remedy="install lungcast again",
        )
    return content


def index_script(
    cases: Sequence[Case],
    *,
    title: str,
    served: bool,
    volumes: Mapping[tuple[int, int], dict[str, float | None]] | None = None,
) -> str:
    """Return the script that names cases and frames.

    Parameters
    ----------
    cases : sequence of Case
    title : str
        Of the page.
    served : bool
        Whether a server waits for the page's sign of life.
    volumes : mapping, optional
        Infected volumes by case and frame, where they have been counted.
    """
    named = [case.to_json() for case in cases]
    for (case, frame), counted in (volumes or {}).items():
        named[case]["frames"][frame]["volumes"] = counted
    content = {"title": title, "version": lungcast_version(), "served": served, "cases": named}
    return f"lungcast.index({json.dumps(content, allow_nan=False)});\n"


def frame_script(
    cases: Sequence[Case], case: int, frame: int, most: int
) -> tuple[str, dict[str, float | None]]:
    """Read one frame; return the script that holds its volumes, and how much of it is infected, ml.

    Parameters
    ----------
    cases : sequence of Case
    case, frame : int
        From 0.
    most : int
        Voxels along each axis; see `reduced`.

    Raises
    ------
    LungcastError
        The frame cannot be read.
    """
    shown = cases[case].frames[frame]
    view = shown.read()
    known = {name: value for name, value in shown.infected_ml.items() if value is not None}
    infected_ml = {**view.infected_ml(), **known}
    content: dict[str, Any] = {
        "volumes": infected_ml,
        "place_mm": view.place_mm(),
        "layers": {
            name: base64.b64encode(held).decode("ascii") for name, held in nifti_layers(reduced(view, most))
        },
    }
    return f"lungcast.frame({case}, {frame}, {json.dumps(content, allow_nan=False)});\n", infected_ml


def error_script(case: int, frame: int, error: LungcastError) -> str:
    """Return the script that says why a frame cannot be shown."""
    return f"lungcast.frame({case}, {frame}, {json.dumps({'error': str(error)})});\n"


def data_name(case: int, frame: int) -> str:
    """Name of a frame's script."""
    return f"data/case{case}-frame{frame}.js"


def write_site(
    folder: str | Path, cases: Sequence[Case], *, title: str, most: int, progress: Progress = silent
) -> dict[str, str]:
    """Write the page with all its data into a folder that opens offline, index.html last.

    Parameters
    ----------
    folder : str or Path
        Exists.
    cases : sequence of Case
    title : str
    most : int
        Voxels along each axis; see `reduced`.
    progress : Progress

    Returns
    -------
    dict of str to str
        Sentence by frame that cannot be read; the page says so there, and the rest is whole.
    """
    folder, failures = Path(folder), {}
    counted: dict[tuple[int, int], dict[str, float | None]] = {}
    total = sum(len(case.frames) for case in cases)
    done = 0
    (folder / "data").mkdir(exist_ok=True)
    (folder / "assets").mkdir(exist_ok=True)
    for number, case in enumerate(cases):
        for index, frame in enumerate(case.frames):
            name = f"{case.title} {frame.label}"
            progress(name, done, total)
            try:
                script, counted[number, index] = frame_script(cases, number, index, most)
            except LungcastError as error:
                failures[name] = str(error)
                script = error_script(number, index, error)
            write_text(folder / data_name(number, index), script)
            done += 1
    for name in ASSETS:
        write_bytes(folder / "assets" / name, asset(name))
    write_text(folder / "data" / "index.js", index_script(cases, title=title, served=False, volumes=counted))
    write_bytes(folder / "index.html", asset("index.html"))
    progress("", total, total)
    return failures
