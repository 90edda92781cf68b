"""Time and quality of the demo, beside the best HU threshold tuned on the same training patients.

    python -m benchmarks.demo --json demo.json [--docs]

`--docs` puts the table into README.md and the pictures into docs/.
"""

from __future__ import annotations

import json
import resource
import tempfile
import time
from pathlib import Path

import click

from benchmarks.machine import into_docs, machine, markdown, target, versions
from segmentation.demo import run_demo

ROOT = Path(__file__).parents[1]


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), required=True)
@click.option("--docs", is_flag=True, help="Update README.md and docs/.")
def main(json_path: Path, docs: bool) -> None:
    """Run the demo in a temporary folder and measure it."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        result = run_demo(Path(folder) / "demo", say=click.echo)
        seconds = time.perf_counter() - begun
        pictures = {
            name: (result.report.parent / name).read_bytes()
            for name in ("fit.png", "segmentation_typical.png")
        }
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rival = result.threshold_dice
    targets = [
        target("demo, wall time", seconds, "s", 300, "at most"),
        target(
            "median Dice, unseen patients (peer: HU threshold)", result.model_dice, "", 0.6, "at least", rival
        ),
        target("median Dice above the HU threshold's", result.model_dice - rival, "", 0.15, "at least"),
        target("demo, peak memory", peak_gb, "GB", 8, "at most"),
    ]
    content = {"benchmark": "demo", "machine": machine(), "versions": versions(), "targets": targets}
    json_path.write_text(json.dumps(content, indent=2) + "\n")
    text = markdown(targets, machine())
    click.echo(text)
    if docs:
        into_docs(ROOT / "README.md", "benchmarks/demo.py", text)
        (ROOT / "docs").mkdir(exist_ok=True)
        for name, data in pictures.items():
            (ROOT / "docs" / name).write_bytes(data)


if __name__ == "__main__":
    main()
