"""Every hidden number of a cohort is drawn here, from named streams of one seed, and nowhere else.

Streams are keyed by (seed, patient, scan, purpose), so that a patient stays the same whatever the grid, the
number of patients, or the order in which parts are made.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from simulator.phantom.anatomy import Anatomy
from simulator.phantom.scanner import ORIENTATIONS, SCANNERS, Acquisition, Protocol, Scanner, rotation


def stream(seed: int, patient: int, scan: int, purpose: str) -> np.random.Generator:
    """The random stream of one purpose."""
    return np.random.default_rng([seed, patient, scan, zlib.crc32(purpose.encode())])


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """One adult's thorax; total lung volume comes out at about 3 to 5.5 l."""
    size = rng.normal(1.0, 0.035)
    breasts = float(rng.random() < 0.45)
    if breasts:
        size -= 0.03
    apex = 252.0 * size + rng.normal(0, 6)
    lateral = 68.0 * size + rng.normal(0, 2.0)
    axis_x = 55.0 * size
    anterior = 85.0 * size + rng.normal(0, 3)
    posterior = 88.0 * size + rng.normal(0, 3)
    dome_right = 0.355 * apex + rng.normal(0, 6)
    dome_left = dome_right - rng.uniform(6, 18)
    fat = rng.uniform(9, 26)
    carina = 0.655 * apex + rng.normal(0, 3)
    spine_y = posterior - rng.uniform(27, 33)
    body_y = 0.5 * (anterior + posterior) + 20.0 + 0.95 * fat
    heart_scale = size * rng.normal(1.0, 0.05)

    waves = rng.uniform(55.0, 150.0, 7)
    ways = rng.standard_normal((7, 3))
    ways *= (2 * np.pi / waves / np.linalg.norm(ways, axis=1))[:, None]
    wobble = np.column_stack([waves / 110.0 * rng.uniform(0.4, 1.3, 7), ways, rng.uniform(0, 2 * np.pi, 7)])

    h, c, sy = heart_scale, carina, spine_y
    front = -0.30 * anterior
    vessels = np.array(
        [
            [-8, front, c - 38, -14, front - 4, c + 14, 15 * h, 15 * h],  # ascending aorta
            [-14, front - 4, c + 14, -4, front + 18, c + 28, 15 * h, 14 * h],  # arch
            [-4, front + 18, c + 28, 13, 8, c + 28, 14 * h, 13 * h],
            [13, 8, c + 28, 23, sy - 20, c + 12, 13 * h, 12.5 * h],
            [23, sy - 20, c + 12, 20, sy - 17, c - 70, 12.5 * h, 12 * h],  # descending aorta
            [20, sy - 17, c - 70, 8, sy - 26, -40, 12 * h, 10.5 * h],
            [-26, front + 14, c - 34, -24, front + 8, c + 34, 9, 8.5],  # superior caval vein
            [-24, front + 8, c + 34, 26, front, c + 52, 6.5, 6.5],  # left brachiocephalic vein
            [-24, front + 8, c + 34, -36, front + 14, c + 76, 7, 6],
            [4, front + 20, c + 34, 12, front + 24, c + 80, 5.5, 5],  # arteries to the neck
            [-10, front + 10, c + 34, -22, front + 18, c + 80, 6, 5],
            [22, front - 2, c - 34, 20, front + 18, c - 12, 13.5 * h, 12.5 * h],  # pulmonary trunk
            [20, front + 18, c - 12, -36, 8, c - 18, 11 * h, 9.5],  # right pulmonary artery
            [20, front + 18, c - 12, 38, 12, c - 12, 11 * h, 9],  # left pulmonary artery
            [-22, 14, c - 46, -44, 12, c - 40, 9, 6.5],  # pulmonary veins
            [22, 14, c - 46, 44, 12, c - 40, 9, 6.5],
            [-34, 12, c - 18, -46, 16, c - 36, 9, 7.5],  # hila
            [38, 14, c - 14, 47, 18, c - 38, 9, 7.5],
            [-22, 4, c - 72, -20, 14, 30, 11, 11.5],  # inferior caval vein
        ],
        dtype=np.float64,
    )
    bottom = 0.80 * dome_left
    turn = rotation((rng.normal(8, 4), 33 + rng.normal(0, 4), 28 + rng.normal(0, 4)))
    chambers = np.array(
        [
            [26, front + 2, bottom + 40 * h, *turn.T.ravel(), 62 * h, 43 * h, 42 * h],
            [-10, front + 8, bottom + 50 * h, *np.eye(3).ravel(), 31 * h, 38 * h, 44 * h],
            [4, 12, bottom + 62 * h, *np.eye(3).ravel(), 34 * h, 24 * h, 30 * h],
        ]
    )
    return Anatomy(
        apex_z=apex,
        waist_z=0.30 * apex,
        axis_x=axis_x,
        lateral=lateral,
        medial=55.0 * size,
        anterior=anterior,
        posterior=posterior,
        apex_shift=rng.uniform(12, 22),
        dome_right=dome_right,
        dome_left=dome_left,
        body_x=axis_x + lateral + 17.0 + 0.95 * fat,
        body_y=body_y,
        body_centre_y=0.5 * (posterior - anterior) + rng.uniform(5, 9),
        shoulder=rng.uniform(18, 34),
        breast=rng.uniform(16, 29),
        fat=fat,
        spine_y=spine_y,
        kyphosis=rng.uniform(8, 17),
        heart_scale=heart_scale,
        carina_z=carina,
        wobble=wobble,
        vessels=vessels,
        chambers=chambers,
        lung_hu=rng.normal(-862, 14),
        gravity_hu=rng.uniform(18, 48),
        dependent_hu=float(rng.choice([20.0, 45.0, 120.0], p=[0.45, 0.4, 0.15])),
        has_breasts=breasts,
    )


def draw_protocol(
    rng: np.random.Generator, patient: int, shape: Anatomy, scanners: Sequence[Scanner] | None = None
) -> Protocol:
    """How one patient is scanned. Neighbouring patients differ in scanner and axis order by construction.

    With `scanners` patients take these in turn; all else is drawn the same.
    """
    share = float(rng.choice([1.0, 1.0, 0.9375, 0.875]))
    shares = (share, share) if rng.random() < 0.6 else (share, round(share * 0.875, 4))
    view = float(np.clip(2.0 * (shape.body_x + 12.0) + rng.uniform(-8, 24), 330.0, 400.0))
    offset = int(rng.integers(0, 2))
    scanner = scanners[patient % len(scanners)] if scanners else SCANNERS[(patient + offset) % len(SCANNERS)]
    tilt = rng.uniform(0.8, 3.5, 3) * rng.choice([-1.0, 1.0], 3)
    return Protocol(
        scanner=scanner,
        field_of_view_mm=(view, view * shares[1] / shares[0]),
        matrix_share=shares,
        slice_mm_at_512=float(rng.choice([1.0, 1.25, 1.5, 2.0])),
        orientation=ORIENTATIONS[patient % len(ORIENTATIONS)],
        tilt_deg=(float(tilt[0]), float(0.6 * tilt[1]), float(0.6 * tilt[2])),
        below_mm=float(rng.uniform(18, 45)),
        above_mm=float(rng.uniform(18, 34)),
    )


def draw_acquisition(rng: np.random.Generator) -> Acquisition:
    """How one scan of a patient differs from the others."""
    shift = rng.normal(0, [4.0, 4.0, 9.0])
    roll = rng.normal(0, [0.8, 0.6, 1.2])
    return Acquisition(
        shift_mm=(float(shift[0]), float(shift[1]), float(shift[2])),
        roll_deg=(float(roll[0]), float(roll[1]), float(roll[2])),
        inspiration=float(np.clip(rng.normal(0, 0.028), -0.06, 0.06)),
        start_mm=float(rng.uniform(0, 12)),
    )


def draw_days(rng: np.random.Generator, scans: int) -> list[float]:
    """Irregular scan days: the first at 0, then every 2 to 5 days, in tenths."""
    steps = np.round(rng.uniform(2.0, 5.0, scans - 1), 1)
    return [0.0, *np.round(np.cumsum(steps), 1).tolist()]
