"""What benchmarks/segment.py measures of the networks alone: precision, margin, instruction sets, throughput."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segmentation.fast_unet import FastUNet
from segmentation.model import ThreeWaySegmenter
from segmentation.predict import Predictor
from segmentation.runs import Projections, plan_runs
from segmentation.signal import input_air, input_signal
from segmentation.views import VIEWS, as_planes, stacks
from standard_space.scan import Scan

WITHIN = 0.01
MARGINS = (16, 32, 48, 64, 96)
SLICE_EVERY = 16
ISAS = {"amx": "AVX512_CORE_AMX", "avx512_bf16": "AVX512_CORE_BF16", "avx512": "AVX512_CORE"}


def agreement(found: Tensor, exact: Tensor, cut: float) -> tuple[float, float]:
    """Share of probabilities within 0.01 of the exact ones, and Dice of the two masks."""
    within = float(((found - exact).abs() <= WITHIN).double().mean())
    a, b = found > cut, exact > cut
    total = int(a.sum()) + int(b.sum())
    return within, 2.0 * int((a & b).sum()) / total if total else 1.0


def compare_precisions(model: ThreeWaySegmenter, scan: Scan, device: str) -> dict[str, float]:
    """The combined probability in reduced precision against float32, in the lungs."""
    # Else the GPU's float32 would be TF32.
    torch.backends.cudnn.allow_tf32 = False
    lungs = None
    combined = {}
    for precision in ("float32", "bfloat16"):
        views, box = Predictor(model, device=device, precision=precision).views(scan)
        lungs = torch.from_numpy(scan.lungs[box].copy()).to(views.device)
        combined[precision] = model.aggregation.combine(views)[lungs].cpu()
    within, dice = agreement(combined["bfloat16"], combined["float32"], model.aggregation.cut)
    return {"within_0.01": within, "mask_dice": dice, "voxels": int(combined["float32"].numel())}


@torch.inference_mode()
def compare_margins(
    model: ThreeWaySegmenter, scan: Scan, progress: Callable[[int, int], None]
) -> list[dict[str, float]]:
    """Crops with several margins against whole slices, float32, every 16th slice that meets the lungs."""
    volume = torch.from_numpy(np.ascontiguousarray(input_signal(scan, model.input_window)))
    lungs = torch.from_numpy(scan.lungs)
    air = input_air(scan, model.input_window)
    where = Projections.of(scan.lungs)
    plans = {
        (view, margin): {
            run.start: run for run in plan_runs(where, view, (1, 1, 1), margin=margin, slices_per_run=1)
        }
        for view in VIEWS
        for margin in MARGINS
    }
    rows: dict[int, list[tuple[Tensor, Tensor, int]]] = {margin: [] for margin in MARGINS}
    slices = [(view, index) for view in VIEWS for index in list(plans[view, MARGINS[0]])[::SLICE_EVERY]]
    networks = {view: FastUNet(model.networks[view], torch.device("cpu"), torch.float32) for view in VIEWS}
    for done, (view, index) in enumerate(slices, 1):
        stack = stacks(
            volume, view, [index], scan.grid.spacing_mm, air, offsets_mm=model.offsets_mm[view]
        ).contiguous(memory_format=torch.channels_last)
        inside = as_planes(lungs, view)[index]
        exact = torch.sigmoid(networks[view](stack))[0, 0]
        for margin in MARGINS:
            run = plans[view, margin][index]
            crop = stack[..., run.rows, run.columns].contiguous(memory_format=torch.channels_last)
            whole = torch.zeros_like(exact)
            whole[run.rows, run.columns] = torch.sigmoid(networks[view](crop))[0, 0]
            rows[margin].append((whole[inside], exact[inside], crop.shape[-1] * crop.shape[-2]))
        progress(done, len(slices))
    found = []
    for margin, parts in rows.items():
        cropped, exact = (torch.cat([part[k] for part in parts]) for k in (0, 1))
        within, dice = agreement(cropped, exact, model.aggregation.cut)
        pixels = float(np.mean([part[2] for part in parts]))
        found.append({"margin": margin, "within_0.01": within, "mask_dice": dice, "mean_pixels": pixels})
    return found


_TIMER = """
import json, sys, time
import torch
from segmentation.fast_unet import FastUNet
from segmentation.unet import UNet
times = {}
for dtype in (torch.float32, torch.bfloat16):
    network = FastUNet(UNet().eval(), torch.device("cpu"), dtype)
    stack = torch.randn(1, 5, 304, 384).to(dtype).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        for _ in range(3):
            network(stack)
        taken = []
        for _ in range(15):
            begun = time.perf_counter()
            network(stack)
            taken.append(time.perf_counter() - begun)
    times[str(dtype).split(".")[1]] = sorted(taken)[len(taken) // 2] * 1000
print(json.dumps(times))
"""


def compare_instruction_sets(instructions: str) -> list[dict[str, Any]]:
    """Milliseconds of a 304 x 384 slice in both precisions, with oneDNN held to each set this processor has."""
    rows = []
    for name, isa in ISAS.items():
        needed = {"amx": "amx_bf16", "avx512_bf16": "avx512_bf16", "avx512": "avx512f"}[name]
        if needed not in instructions.split():
            continue
        answer = subprocess.run(
            [sys.executable, "-c", _TIMER],
            env={**os.environ, "ONEDNN_MAX_CPU_ISA": isa},
            capture_output=True,
            text=True,
            check=True,
        )
        rows.append({"instructions": name, **json.loads(answer.stdout)})
    return rows


def time_on_gpu(model: ThreeWaySegmenter, scan: Scan, *, compiled: bool) -> dict[str, float]:
    """Seconds from the scan in memory to its mask, best of three, and peak memory, on a GPU."""
    predictor = Predictor(model, device="cuda", compiled=compiled)
    taken = []
    torch.cuda.reset_peak_memory_stats()
    for _ in range(4):
        begun = time.perf_counter()
        predictor.predict(scan)
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - begun)
    return {
        "first_seconds": taken[0],
        "seconds": min(taken[1:]),
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9,
        "batch": predictor.largest_batch,
    }
