"""Lungs found in chests with known lungs: phantoms, phantoms with a third of the lungs solid, a real CT.

    python benchmarks/masks.py --json masks.json [--docs]

The chests are those of the tests. `--docs` puts the table into docs/embedding.md.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run by its path, not as a module
    sys.path.insert(0, str(ROOT))

from benchmarks.machine import into_docs, machine, markdown, rows_markdown, target, versions  # noqa: E402
from tests.standard_space.anatomy.chests import (  # noqa: E402
    Chest,
    consolidated,
    dice,
    find,
    phantom,
    shipped_ct,
    swapped,
)

GRID = 128


def chests() -> Iterator[tuple[str, Chest, np.ndarray | None]]:
    """Kind, chest, and what is sick in it."""
    for index in range(12):
        for lesions in ("fields", "dynamics"):
            chest = phantom(3, index, GRID, lesions)
            yield f"phantoms, lesions from {lesions}", chest, chest.infection
    for index in range(12):
        solid_chest, solid = consolidated(phantom(4, index, GRID), 400 + index)
        yield "phantoms, 30 % of the lungs solid", solid_chest, solid
    yield "CTChest4 (real, 10 mm slices)", shipped_ct(), None


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), required=True)
@click.option("--docs", is_flag=True, help="Update docs/embedding.md.")
def main(json_path: Path, docs: bool) -> None:
    """Find the lungs of every chest and score them on its own grid; some two minutes."""
    scores: dict[str, list[dict[str, float]]] = {}
    for kind, chest, sick in chests():
        begun = time.perf_counter()
        found = find(chest)
        seconds = time.perf_counter() - begun
        if found is None:
            raise SystemExit(f"no lungs found in {kind}")
        row = {"dice": dice(found.lungs, chest.lungs), "swapped": swapped(found, chest), "seconds": seconds}
        if sick is not None:
            row["sick_inside"] = float((found.lungs & sick).sum()) / max(1.0, float(sick.sum()))
        scores.setdefault(kind, []).append(row)
    rows = []
    for kind, found_rows in scores.items():
        values = np.array([row["dice"] for row in found_rows])
        inside = [row["sick_inside"] for row in found_rows if "sick_inside" in row]
        swap = max(row["swapped"] for row in found_rows)
        cells = [str(len(values)), f"{np.median(values):.3f}", f"{values.min():.3f}"]
        rows.append([kind, *cells, f"{np.median(inside):.2f}" if inside else "-", f"{swap:.4f}"])
    sick_values = [row["dice"] for row in scores["phantoms, 30 % of the lungs solid"]]
    plain = [row["dice"] for kind, found in scores.items() if "lesions" in kind for row in found]
    targets = [
        target("lungs Dice, phantoms, lowest", min(plain), "", 0.97, "at least"),
        target("lungs Dice, phantoms, median", float(np.median(plain)), "", 0.97, "at least"),
        target(
            "lungs Dice, 30 % of the lungs solid, median", float(np.median(sick_values)), "", 0.97, "at least"
        ),
    ]
    content = {
        "benchmark": "masks", "machine": machine(), "versions": versions(), "targets": targets, "scores": scores,
    }  # fmt: skip
    json_path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    header = [
        "chests",
        "number",
        "median Dice",
        "lowest",
        "median share of the sick tissue inside",
        "wrong side",
    ]
    text = "\n\n".join([markdown(targets, machine()), rows_markdown(header, rows)])
    click.echo(text)
    if docs:
        into_docs(ROOT / "docs" / "embedding.md", "benchmarks/masks.py", text)


if __name__ == "__main__":
    main()
