"""Compile every kernel once, before processes are started.

Numba's on-disk cache can crash when several processes write it at the same moment (numba issue 4807), so a
parent calls `warm_up` before it starts workers.
"""

from __future__ import annotations

import numpy as np

from simulator.dynamics.chain import propagate, propagate_covariance, propagate_tangents
from simulator.dynamics.engine import Controls, advance, start_state
from simulator.dynamics.fit import fit_pair
from simulator.dynamics.parameters import TransitionParameters


def warm_up() -> None:
    """Run the smallest chain, fit and lesion there are; about 20 s the first time, then well under one."""
    w = TransitionParameters(0.05, 0.5, 0.05, 0.3, 0.5, 0.5, 0.4, 0.07, 20.0)
    counts = np.zeros(130)
    counts[20:40] = 5.0
    propagate(counts, w, 2)
    propagate_tangents(counts, w, 2)
    propagate_covariance(counts, w, 2)
    fit_pair(counts, propagate(counts, w, 20), 20, starts=1)
    signal = np.linspace(-0.2, 0.2, 512, dtype=np.float32).reshape(8, 8, 8)
    infection = np.zeros((8, 8, 8), bool)
    infection[2:5, 2:5, 2:5] = True
    state = start_state(signal, infection, np.ones((8, 8, 8), bool), (1.0, 1.0, 1.0))
    advance(state, w, 30, jump=10, seed=0, controls=Controls(seeded_share=0.5)).signal_volume()
