"""The README's table of measured numbers, taken from the tables of the pages in docs/: nothing is typed.

    python -m benchmarks.headlines

Run it after any benchmark that writes into docs/.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from benchmarks.machine import into_docs

ROOT = Path(__file__).parents[1]
NAME = "benchmarks/headlines.py"

HEADLINES = (
    (
        "a scan into the standard space, 512^3, whole command",
        "embedding",
        "`lungcast embed` of one NIfTI, whole",
    ),
    ("of it resampling (peer: SimpleITK's Lanczos)", "embedding", "Lanczos to 512^3, warm"),
    ("Dice of the lungs found, phantoms", "embedding", "lungs Dice, phantoms, median"),
    ("the same, 30 % of the lungs solid", "embedding", "lungs Dice, 30 % of the lungs solid, median"),
    ("a fit of one pair (peer: SciPy from one start, no errors)", "dynamics", "fit of one pair, L2"),
    (
        "a day played on, 512^3 (peer: the fastest other method)",
        "dynamics",
        "engine at 512^3, set-up included: one jump",
    ),
    ("402 synthetic scans of 201, 512^3 (peer: whole volumes)", "augmentation", "201 scans at 200 %"),
    ("peak memory of that", "augmentation", "peak memory of all processes, two workers"),
    ("size of one, share of its source's file", "augmentation", "size of a volume with"),
    (
        "fresh volumes in a training loop, 512^3, one core",
        "augmentation",
        "sampler: volumes of 512^3 a second",
    ),
    (
        "a scan segmented, 512^3, whole command",
        "segmentation",
        "`lungcast segment` of the file, whole command",
    ),
    ("of it from memory (peer: the released recipe)", "segmentation", "image in memory to mask"),
    ("Dice of a forecast (peer: nothing changes)", "forecast", "Dice against persistence, dynamics lesions"),
    (
        "Dice of a forecast (peer: a dilation told the volume)",
        "forecast",
        "Dice against dilation, dynamics lesions",
    ),
)
"""What the README calls it, the page it stands on, and how its row begins there."""


def headlines(docs: Path) -> str:
    """The table.

    Parameters
    ----------
    docs : Path
        The folder of the pages.

    Returns
    -------
    str
        Markdown; machines are named below, by letter.

    Raises
    ------
    ValueError
        A row is missing, or there are several.
    """
    machines: list[str] = []
    lines = ["| measured | value | target | peer | ratio | where |", "|---|---|---|---|---|---|"]
    for label, page, begin in HEADLINES:
        row, machine = _row(docs / f"{page}.md", begin)
        if machine not in machines:
            machines.append(machine)
        letter = "ABCDEFG"[machines.index(machine)]
        cells = " | ".join((label, row["value"], row["target"], row["peer"], row["ratio"]))
        lines.append(f"| {cells} | [{page}](docs/{page}.md), {letter} |")
    named = [f"{'ABCDEFG'[place]}: {machine}." for place, machine in enumerate(machines)]
    return "\n".join([*lines, "", "Machines. " + " ".join(named)])


def _row(page: Path, begin: str) -> tuple[Mapping[str, str], str]:
    found, machine = [], ""
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 5 and cells[0].startswith(begin):
            found.append(dict(zip(("measured", "value", "target", "peer", "ratio"), cells, strict=True)))
            machine = ""
        if line.startswith("Machine: ") and found and not machine:
            machine = line.removeprefix("Machine: ").rstrip(".")
    if len(found) != 1 or not machine:
        raise ValueError(f"{page}: {len(found)} rows begin with {begin!r}, machine {machine!r}")
    return found[0], machine


if __name__ == "__main__":
    into_docs(ROOT / "README.md", NAME, headlines(ROOT / "docs"))
