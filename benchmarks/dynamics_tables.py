"""Targets and Markdown of `benchmarks/dynamics.py`."""

from __future__ import annotations

from typing import Any

from benchmarks import jump_length
from benchmarks.dynamics_chain import LONG, SHORT
from benchmarks.dynamics_engine import PEER_CROP, SCALING_RUNS
from benchmarks.machine import markdown, rows_markdown, target

Rows = list[dict[str, Any]]

_PER_VOXEL = "ns per infected voxel and transition"


def make_targets(
    chain: Rows,
    fits: Rows,
    engine: Rows,
    peers: Rows,
    memory: dict[str, float | None],
    threads: dict[str, Any],
) -> list[dict[str, object]]:
    """The measured targets; a peer is the fastest other one of the same run."""

    def ms(what: str, ours: bool) -> float:
        return min(
            row["milliseconds"]
            for row in chain
            if row["what"] == what and row["transitions"] == SHORT and (row["who"] == "lungcast") == ours
        )

    fastest = min(row["scan_seconds_200_transitions"] for row in peers)
    seconds = {row["jump"]: row["seconds"] for row in engine}
    fit = {row["who"]: row["seconds"] for row in fits}
    rival = min(value for who, value in fit.items() if not who.startswith("lungcast, "))
    tangents, most = "with exact tangents", "at most"
    at = "engine at 512^3, set-up included:"
    targets = [
        target(f"chain, {SHORT} transitions", ms("chain", True), "ms", 0.04, most, ms("chain", False)),
        target(f"chain {tangents}", ms(tangents, True), "ms", 0.5, most, ms(tangents, False)),
        target("fit of one pair, L2", fit["lungcast, L2"], "s", 0.2, most, rival),
        target("fit of one pair, Poisson", fit["lungcast, Poisson"], "s", 0.2, most),
        target(f"{at} 200 transitions stepwise", seconds[1], "s", 2.0, most, fastest),
        target(f"{at} 200 transitions in jumps of 10", seconds[10], "s", 0.6, most, fastest),
        target(f"{at} one jump of 100", seconds[100], "s", 0.25, most, fastest / 2),
        target(
            "throughput of two threads over one (peer: pure arithmetic)",
            threads["speedup"],
            "times",
            1.7,
            "at least",
            threads["arithmetic_speedup"],
        ),
    ]
    known = [value for value in memory.values() if value is not None]
    if known:
        targets.append(target("peak memory at 512^3, input included", max(known), "GB", 1.5, most))
    return targets


def tables(content: dict[str, Any]) -> dict[str, str]:
    """The Markdown of everything measured, by section of docs/dynamics.md."""
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    return {
        "targets": f"{markdown(content['targets'], content['machine'])}\n\nVersions: {versions}.",
        "chain": _chain(content),
        "engine": "\n\n".join([*_engine(content), *_peers(content), *_scaling(content)]),
        "jumps": _jumps(content["jump_length"]),
    }


def _chain(content: dict[str, Any]) -> str:
    chain = [
        [f"{row['what']}, {row['transitions']} transitions", row["who"], f"{row['milliseconds']:.3g}"]
        for row in content["chain"]
    ]
    fits = [
        [row["who"], row["starts"], f"{row['seconds']:.3f}", f"{row['relative_l2']:.4f}"]
        for row in content["fit"]
    ]
    return "\n\n".join(
        [
            f"130 bins, one core. {SHORT} transitions are 3 days, {LONG} are 300.",
            rows_markdown(["what", "who", "ms"], chain),
            "One pair 200 transitions apart, 60,000 voxels before, made by the voxel engine:",
            rows_markdown(["fit", "starts", "s", "relative L2 reached"], fits),
        ]
    )


def _engine(content: dict[str, Any]) -> list[str]:
    rows = []
    for row in content["engine"]:
        memory = content["memory_gb"][row["run"]]
        rows.append(
            [
                row["run"],
                str(row["transitions"]),
                f"{row['seconds']:.2f}",
                f"{row['setup_seconds']:.2f}",
                f"{row['infected_before']:,} to {row['infected_after']:,}",
                f"{row['ns_per_voxel_and_transition']:.1f}",
                "-" if memory is None else f"{memory:.2f}",
            ]
        )
    header = ["run", "transitions", "s", "of it set-up", "infected voxels", _PER_VOXEL, "peak GB"]
    return [
        f"Synthetic 512^3 scan, {content['lesions']} lesions, births chosen on the chain; one core, medians of 3:",
        rows_markdown(header, rows),
        "Peak memory is VmHWM of a process of its own that imports the engine, loads signal (float32), infection "
        "and susceptible (bool), 0.81 GB together, and plays them on; making the scan does not count.",
    ]


def _peers(content: dict[str, Any]) -> list[str]:
    ours = {row["jump"]: row["ns_per_voxel_and_transition"] for row in content["engine"]}
    rows = []
    for row in content["peers"]:
        cost, crop = row["ns_per_voxel_and_transition"], row["crop_ns_per_voxel_and_transition"]
        rows.append(
            [
                row["peer"],
                f"{row['scan_seconds_per_transition']:.2f}",
                f"{row['scan_seconds_200_transitions']:.0f}",
                *(f"{value:,.0f}" for value in (cost, cost / ours[1], cost / ours[10], crop / ours[1])),
            ]
        )
    header = [
        "automaton",
        "s per transition, 512^3",
        "s for 200",
        _PER_VOXEL,
        "times lungcast stepwise",
        "times lungcast in jumps of 10",
        "on the crop alone, times stepwise",
    ]
    return [
        "Dense automata that play the same rule at n = 1 (their mean histograms are tested against the chain), "
        f"one core. A transition of the {PEER_CROP}^3 crop ({content['infected_in_crop']:,} infected voxels) is "
        "timed and scaled by volume to 512^3, which is what a dense method costs; the last column takes the crop "
        "as if it were the whole scan:",
        rows_markdown(header, rows),
    ]


def _scaling(content: dict[str, Any]) -> list[str]:
    rows = [
        [f"{row['infected']:,}", *(f"{row[f'jump_{jump}']:.1f}" for jump, _ in SCALING_RUNS)]
        for row in content["scaling"]
    ]
    threads = content["threads"]
    return [
        f"{_PER_VOXEL} at a constant number of infected voxels (512^3, one core, without set-up):",
        rows_markdown(["infected voxels", *(f"jump {jump}" for jump, _ in SCALING_RUNS)], rows),
        f"Two lesions of {threads['infected']:,} voxels, 200 single transitions each: "
        f"{threads['serial_seconds']:.2f} s after each other, {threads['two_threads_seconds']:.2f} s in two "
        f"threads ({threads['speedup']:.2f} times the throughput; a loop of arithmetic gains "
        f"{threads['arithmetic_speedup']:.2f}), bytes "
        f"{'identical' if threads['identical'] else 'NOT IDENTICAL'}.",
    ]


def _jumps(study: dict[str, Any]) -> str:
    _, low, high = study["baseline_dice"]
    first = study["rows"][0]
    return "\n\n".join(
        [
            f"128^3, one core, default dynamics. Time and outline: {study['infected_before']:,} annotated "
            f"voxels, {first['infected']:,.0f} after 200 transitions, {study['runs_per_length']} runs a length; "
            f"Dice of occurrence maps of n = 1 against n = 1 with other seeds: {low:.3f} to {high:.3f}. Join "
            f"shares: seeds played seven days, {study['runs_per_length'] // 2} runs. In brackets the difference "
            "from n = 1, and the same in standard deviations from seed to seed.",
            rows_markdown(*jump_length.table(study)),
            _where_it_differs(study),
        ]
    )


def _where_it_differs(study: dict[str, Any]) -> str:
    """One sentence on where outline and texture first differ from single transitions."""
    _, low, high = study["baseline_dice"]
    outline, texture = [], []
    for row in study["rows"]:
        shapes = max(abs(row[f"{name}_spreads"]) for name in jump_length.OUTLINE)
        if shapes > 2 or row["dice"] < low - (high - low):
            outline.append(row["jump"])
        if max(abs(row[f"{name}_spreads"]) for name in jump_length.TEXTURE) > 2:
            texture.append(row["jump"])

    def said(found: list[int]) -> str:
        return f"at n = {', '.join(map(str, found))}" if found else "at no n"

    return (
        "By these measures (more than two standard deviations off, or Dice below the range of n = 1 by more "
        f"than its width) the outline differs from that of single transitions {said(outline)}, the texture "
        f"{said(texture)}."
    )
