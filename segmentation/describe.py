"""What any file or folder written by lungcast is, with its provenance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from segmentation.methods import load_segmenter
from segmentation.segmenter import MODEL_FILE
from simulator.fits import CohortFits
from simulator.population_file import load_population
from simulator.trajectory_file import read_keyframes
from standard_space.cohort import MANIFEST, Cohort
from standard_space.errors import UsageError
from standard_space.files import read_mark
from standard_space.scanfile import read_meta


def describe(path: str | Path) -> tuple[str, dict[str, Any]]:
    """Say in a line what a path is, and give the details as plain values.

    Raises
    ------
    UsageError
        When there is no such path, or lungcast did not write it.
    LungcastError
        When it is lungcast's but damaged.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError("no such file or folder", where=path)
    if path.is_dir():
        return _folder(path)
    if path.suffix == ".h5":
        if path.name.endswith("-trajectory.h5"):
            _, meta, keyframes = read_keyframes(path)
            source = meta["source"]
            what = f"a trajectory of {source['patient']}/{source['scan']} with {len(keyframes)} keyframes"
            return what, {**meta, "keyframes": [keyframe.transition for keyframe in keyframes]}
        meta = read_meta(path)
        return f"a {meta['kind']}, {meta['patient']}/{meta['scan']} on day {meta['day']:g}", meta
    if path.suffix == ".json":
        return _json(path)
    raise UsageError("nothing that lungcast wrote", where=path)


def _folder(path: Path) -> tuple[str, dict[str, Any]]:
    mark = read_mark(path)
    if (path / MODEL_FILE).is_file():
        model = load_segmenter(path)
        details = json.loads((path / MODEL_FILE).read_text(encoding="utf-8"))
        what = f"a {model.method} segmenter for the {model.grid_size}^3 grid, which finds the {model.target}"
        return what, details
    if mark is None:
        raise UsageError("nothing that lungcast wrote", where=path)
    kind = str(mark["lungcast"])
    if kind in ("cohort", "augmented") and (path / MANIFEST).is_file():
        cohort = Cohort.open(path)
        rows = [
            {
                "scan": e.name,
                "day": e.day,
                "kind": e.kind,
                "lungs_ml": e.lungs_ml,
                "infected_ml": e.infected_ml,
            }
            for e in cohort.entries
        ]
        return f"{_a(kind)} folder with {len(rows)} scans", {**mark, "scans": rows}
    return f"{_a(kind)} folder", mark


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _json(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"not readable JSON ({error})", where=path) from None
    if not isinstance(content, dict):
        raise UsageError("nothing that lungcast wrote", where=path)
    if content.get("lungcast") == "fits":
        fits = CohortFits.load(path)
        pairs = {stored.name: stored.fit.parameters.to_json() for stored in fits.fits}
        return f"fits of {len(pairs)} pairs, loss {fits.loss}", {
            "lungcast_version": content["lungcast_version"],
            "pairs": pairs,
            "failures": fits.failures,
            "skipped": fits.skipped,
        }
    if content.get("lungcast") == "population":
        population = load_population(path)
        return f"the dynamics of a population of {population.patients} patients", content
    if content.get("lungcast") == "forecast":
        return f"the scores of {len(content['forecasts'])} forecasts", content
    if "lungcast" in content:
        return f"the mark of a {content['lungcast']} folder", content
    raise UsageError("nothing that lungcast wrote", where=path)
