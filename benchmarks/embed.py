"""Embedding at full size beside its peers, in one run.

    python benchmarks/embed.py --json embed.json [--docs]

Three parts: one 512 x 512 x 300 volume resampled to 512^3 by lungcast, SimpleITK, SciPy and OpenCV; `lungcast
embed` of one such CT, as a process; the scan file's compression among gzip and hdf5plugin's codecs. OpenCV comes
with `pip install -e .[bench]`; without it, its row says so. `--docs` puts the tables into docs/embedding.md.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run by its path, not as a module
    sys.path.insert(0, str(ROOT))

from benchmarks.codecs import compare_codecs  # noqa: E402
from benchmarks.machine import into_docs, machine, markdown, rows_markdown, target, versions  # noqa: E402
from benchmarks.resampling import Method, compare_resampling  # noqa: E402
from simulator.phantom.lesion_fields import FieldLesionSource  # noqa: E402
from simulator.phantom.patient import acquisition_of, make_patient, scan_patient  # noqa: E402
from standard_space.image import write_volume  # noqa: E402
from standard_space.scanfile import read_scan  # noqa: E402


def write_ct(folder: Path, slices: int = 300) -> Path:
    """A phantom CT of 512 x 512 x 300 (or so many slices) with its infection mask, and a manifest of it."""
    patient = make_patient(7, 0)
    covered = patient.shape.apex_z + patient.protocol.below_mm + patient.protocol.above_mm
    protocol = replace(
        patient.protocol,
        field_of_view_mm=(358.4, 358.4),
        matrix_share=(1.0, 1.0),
        slice_mm_at_512=(covered + acquisition_of(patient, 1).start_mm) / slices,
        orientation="LPS",
    )
    patient = replace(patient, protocol=protocol)
    lesion = next(iter(FieldLesionSource(patient).over([5.0])))
    scan = scan_patient(patient, 1, 512, lesion.map)
    write_volume(folder / "ct.nii.gz", scan.image, scan.geometry)
    write_volume(folder / "infection.nii.gz", scan.infection, scan.geometry)
    manifest = folder / "manifest.csv"
    manifest.write_text("patient,scan,day,image,infection\np,a,0,ct.nii.gz,infection.nii.gz\n")
    return manifest


RUNNER = """
import sys
from cli.main import main
from standard_space.jobs import peak_memory_gb
try:
    main(sys.argv[2:])
finally:
    open(sys.argv[1], "w").write(str(peak_memory_gb()))
"""


def run_measured(arguments: list[str], folder: Path) -> tuple[float, float]:
    """Wall seconds and peak memory (GB) of a lungcast command as a process of its own."""
    peak = folder / "peak.txt"
    begun = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-c", RUNNER, str(peak), *arguments],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    seconds = time.perf_counter() - begun
    if process.returncode != 0:
        raise SystemExit(f"lungcast {' '.join(arguments)} failed")
    return seconds, float(peak.read_text())


@click.command()
@click.option("--json", "json_path", type=click.Path(path_type=Path), required=True)
@click.option("--docs", is_flag=True, help="Update docs/embedding.md.")
def main(json_path: Path, docs: bool) -> None:
    """Measure everything; some three minutes."""
    click.echo("resampling: lungcast, SimpleITK, SciPy, OpenCV ...")
    methods, cold = compare_resampling()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        click.echo("a phantom CT of 512 x 512 x 300 ...")
        manifest = write_ct(folder)
        click.echo("lungcast embed ...")
        runs = [
            run_measured(["embed", str(manifest), str(folder / f"cohort{run}")], folder) for run in range(2)
        ]
        scan_file = folder / "cohort1" / "p_a.h5"
        scan_mb = scan_file.stat().st_size / 1e6
        signal = read_scan(scan_file).signal.astype(np.float16)
        click.echo("compression ...")
        codecs = compare_codecs(signal, folder)
    by_name = {method.name: method for method in methods}
    ours, rival = by_name["lungcast lanczos"], by_name["SimpleITK LanczosWindowedSinc"]
    seconds, memory = runs[1]
    targets = [
        target("Lanczos to 512^3, warm (peer: SimpleITK's)", ours.seconds, "s", 0.5, "at most", rival.seconds),
        target("times faster than SimpleITK's Lanczos", rival.seconds / ours.seconds, "", 800, "at least"),
        target("`lungcast embed` of one NIfTI, whole command", seconds, "s", 12, "at most"),
        target("`lungcast embed` of one NIfTI, peak memory", memory, "GB", 3, "at most"),
    ]  # fmt: skip
    content = {
        "benchmark": "embed",
        "machine": machine(),
        "versions": versions("hdf5plugin", "pydicom", "opencv-python-headless"),
        "targets": targets,
        "lanczos_first_call_seconds": round(cold, 3),
        "embed_first_run_seconds": round(runs[0][0], 2),
        "scan_file_mb": round(scan_mb, 1),
        "resampling": [
            {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in vars(m).items()}
            for m in methods
        ],
        "codecs": codecs,
    }
    json_path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    text = tables(content, methods, ours)
    click.echo(text)
    if docs:
        into_docs(ROOT / "docs" / "embedding.md", "benchmarks/embed.py", text)


def tables(content: dict[str, Any], methods: list[Method], ours: Method) -> str:
    """The Markdown of everything measured."""
    rows = []
    for method in methods:
        measured = not math.isnan(method.seconds)
        cells = [
            f"{method.seconds:.2f}",
            f"{method.seconds / ours.seconds:.1f}",
            "-" if math.isnan(method.extra_gb) else f"{method.extra_gb:.2f}",
            f"{method.max_error:.1f}",
            f"{method.rms_error:.2f}",
        ]
        rows.append([method.name, *(cells if measured else ["-"] * 5), method.note])
    codecs = [
        [row["codec"], *(str(row[key]) for key in ("write_mb_s", "read_mb_s", "ratio", "slice_ms"))]
        for row in content["codecs"]
    ]
    header = ["resampling", "s", "times lungcast's", "extra memory GB", "max error", "rms error", "note"]
    peers = ", ".join(f"{k} {v}" for k, v in content["versions"].items())
    return "\n\n".join(
        [
            markdown(content["targets"], content["machine"]),
            f"Versions: {peers}.",
            f"First call of the resampling in a process (read from Numba's cache, or compiled): "
            f"{content['lanczos_first_call_seconds']:.2f} s. First run of the command: "
            f"{content['embed_first_run_seconds']:.1f} s. Scan file: {content['scan_file_mb']:.0f} MB.",
            "512 x 512 x 300 voxels of 0.7 x 0.7 x 1.7 mm to 512^3. Errors in HU against the waves (4 and 23 "
            "voxels long, 100 HU and more) that the volume samples, inside the volume:",
            rows_markdown(header, rows),
            "Signal of that scan (float16), chunks of 32 x 64 x 64:",
            rows_markdown(["codec", "write MB/s", "read MB/s", "ratio", "axial slice ms"], codecs),
        ]
    )


if __name__ == "__main__":
    main()
