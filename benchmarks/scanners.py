"""One phantom patient through four scanners: how far parenchyma and lesions differ in signal.

    python benchmarks/scanners.py --json scanners.json [--docs]

The scanners are those of tests/standard_space/test_machine_agnostic.py. `--docs` puts the table into
docs/embedding.md.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run by its path, not as a module
    sys.path.insert(0, str(ROOT))

from benchmarks.machine import into_docs, machine, rows_markdown, target, versions  # noqa: E402
from simulator.phantom.patient import make_patient  # noqa: E402
from tests.standard_space.test_machine_agnostic import (  # noqa: E402
    LESIONS_WITHIN,
    PARENCHYMA_WITHIN,
    farthest,
    signals,
)

WINDOWS = {
    "tags": "each follows its machine's calibration",
    "auto": "`--window auto`",
    "taste": "display presets",
}


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), required=True)
@click.option("--docs", is_flag=True, help="Update docs/embedding.md.")
def main(json_path: Path, docs: bool) -> None:
    """Scan, embed and compare; some seconds."""
    patient = make_patient(11, 1)
    rows, targets = [], []
    for windows, words in WINDOWS.items():
        parenchyma, lesions = signals(patient, windows)  # type: ignore[arg-type]
        spread, apart = float(np.ptp(parenchyma)), float(farthest(lesions))
        rows.append([words, f"{spread:.3f}", f"{apart:.3f}"])
        if windows != "taste":
            name = f"parenchyma signal, windows: {words}"
            targets.append(target(name, spread, "", PARENCHYMA_WITHIN, "at most"))
            targets.append(target(f"lesions, windows: {words}", apart, "", LESIONS_WITHIN, "at most"))
    content = {"benchmark": "scanners", "machine": machine(), "versions": versions(), "targets": targets}
    json_path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    header = ["windows", "median parenchyma signal differs by", "lesion histograms by (Wasserstein)"]
    text = rows_markdown(header, rows)
    click.echo(text)
    if docs:
        into_docs(ROOT / "docs" / "embedding.md", "benchmarks/scanners.py", text)


if __name__ == "__main__":
    main()
