"""Dense cellular automata that play the rule of DESIGN 3, one transition at a time: NumPy/SciPy, torch, Numba.

They are what one writes without a sparse engine: whole-volume arrays, a convolution for the neighbours, random
numbers from the library. One transition of each:

1. births: their mean from G(t); every normal susceptible voxel is infected with probability
   mean * w^gamma / sum(w^gamma), w the distance-weighted number of its infected neighbours, those above 0 half;
2. moves: every voxel infected before falls one bin with probability a, rises with the probability of its bin;
3. newborns take a bin from the entry distribution and do not move.

Signals within bins, texture and repeatability across machines are left out, in the peers' favour. A test holds
their mean histogram against the chain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.dynamics_scan import SPACING_MM, Chest
from simulator.dynamics.bins import N_BELOW, N_BINS, histogram, to_state
from simulator.dynamics.parameters import TransitionParameters
from simulator.dynamics.rates import entry_distribution, rise_probabilities

GAMMA = 2.0
ABOVE = 0.5
"""Weight of a neighbour above 0, relative to one below."""


@dataclass(frozen=True)
class Rates:
    """W as the automata use it."""

    w: TransitionParameters
    rise: NDArray[np.float64]
    entry: NDArray[np.float64]
    kernel: NDArray[np.float32]

    @classmethod
    def of(cls, w: TransitionParameters) -> Rates:
        rise, entry = np.empty(N_BINS), np.empty(N_BELOW)
        rise_probabilities(w.as_array(), rise, np.empty(N_BINS))
        entry_distribution(w.entry_signal, entry, np.empty(N_BELOW))
        offsets = np.indices((3, 3, 3)) - 1
        distance = np.sqrt(sum((o * s) ** 2 for o, s in zip(offsets, SPACING_MM, strict=True)))
        distance[1, 1, 1] = np.inf
        return cls(w, rise, np.cumsum(entry), (1.0 / distance).astype(np.float32))

    def mean_births(self, below: float) -> float:
        """Expected births of one transition."""
        w = self.w
        return w.birth_rate * ((1 - w.linked_share) * w.reference_ggo_voxels + w.linked_share * below)


def start_bins(chest: Chest) -> NDArray[np.int16]:
    """Bin of every infected voxel, -1 elsewhere."""
    bins = np.full(chest.signal.shape, -1, np.int16)
    bins[chest.infection] = to_state(chest.signal[chest.infection])[0]
    return bins


class NumpyAutomaton:
    """scipy.ndimage.convolve, boolean masks, np.random."""

    name = "NumPy + scipy.ndimage, dense"

    def __init__(self, chest: Chest, w: TransitionParameters, seed: int) -> None:
        self.bins = start_bins(chest)
        self.susceptible = chest.susceptible
        self.rates = Rates.of(w)
        self.rng = np.random.default_rng(seed)

    def step(self) -> None:
        """One transition."""
        bins, rates, rng = self.bins, self.rates, self.rng
        infected = bins >= 0
        ggo = infected & (bins < N_BELOW)
        source = np.where(ggo, np.float32(1), np.where(infected, np.float32(ABOVE), np.float32(0)))
        weight = ndimage.convolve(source, rates.kernel, mode="constant")
        weight **= np.float32(GAMMA)
        weight[infected | ~self.susceptible] = 0
        mean = rates.mean_births(float(ggo.sum()))
        edge = weight > 0
        chance = weight[edge] * (mean / weight.sum(dtype=np.float64))
        newborn = np.zeros(bins.shape, np.bool_)
        newborn[edge] = rng.random(chance.size) < chance
        old = bins[infected]
        draw = rng.random(old.size)
        fall = rates.w.absorption_rate
        bins[infected] = old + (draw > 1 - rates.rise[old]).astype(np.int16) - (draw < fall)
        bins[newborn] = np.searchsorted(rates.entry, rng.random(int(newborn.sum())) * rates.entry[-1])

    def counts(self) -> NDArray[np.float64]:
        """Voxels per bin."""
        return histogram(self.bins[self.bins >= 0])


class TorchAutomaton:
    """conv3d over the whole volume; everything stays dense, as on a GPU."""

    name = "torch conv3d, dense, CPU"

    def __init__(self, chest: Chest, w: TransitionParameters, seed: int) -> None:
        rates = Rates.of(w)
        self.rates = rates
        self.bins = torch.from_numpy(start_bins(chest))
        self.susceptible = torch.from_numpy(chest.susceptible)
        self.kernel = torch.from_numpy(rates.kernel)[None, None]
        # one more entry, so that bin -1 looks up a chance of 0
        self.rise = torch.from_numpy(np.append(rates.rise, 0.0).astype(np.float32))
        self.entry = torch.from_numpy((rates.entry / rates.entry[-1]).astype(np.float32))
        self.random = torch.Generator().manual_seed(seed)

    @torch.inference_mode()
    def step(self) -> None:
        """One transition."""
        bins, rates = self.bins, self.rates
        infected = bins >= 0
        ggo = infected & (bins < N_BELOW)
        source = infected.float() * ABOVE + ggo.float() * (1 - ABOVE)
        weight = torch.nn.functional.conv3d(source[None, None], self.kernel, padding=1)[0, 0]
        weight = torch.where(self.susceptible & ~infected, weight**GAMMA, 0.0)
        mean = rates.mean_births(float(ggo.sum()))
        chance = weight * (mean / float(weight.sum(dtype=torch.float64)))
        draw = torch.rand(bins.shape, generator=self.random)
        newborn = draw < chance
        up = infected & (draw > 1 - self.rise[bins.long()])
        down = infected & (draw < rates.w.absorption_rate)
        bins = bins + up.short() - down.short()
        number = int(newborn.sum())
        height = torch.searchsorted(self.entry, torch.rand(number, generator=self.random))
        bins[newborn] = height.clamp(max=N_BELOW - 1).short()
        self.bins = bins

    def counts(self) -> NDArray[np.float64]:
        """Voxels per bin."""
        bins = self.bins.numpy()
        return histogram(bins[bins >= 0])


@njit(cache=True)
def _dense_transition(bins, susceptible, weight, kernel, rise, entry, fall, nu_constant, nu_linked, gamma):  # type: ignore[no-untyped-def]
    nz, ny, nx = bins.shape
    total, below = 0.0, 0
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                b = bins[z, y, x]
                if 0 <= b < N_BELOW:
                    below += 1
                near = 0.0
                if b < 0 and susceptible[z, y, x]:
                    for dz in range(max(z - 1, 0), min(z + 2, nz)):
                        for dy in range(max(y - 1, 0), min(y + 2, ny)):
                            for dx in range(max(x - 1, 0), min(x + 2, nx)):
                                c = bins[dz, dy, dx]
                                if c >= 0:
                                    share = 1.0 if c < N_BELOW else ABOVE
                                    near += share * kernel[dz - z + 1, dy - y + 1, dx - x + 1]
                    if near > 0.0:
                        near = near**gamma
                        total += near
                weight[z, y, x] = near
    scale = (nu_constant + nu_linked * below) / total if total > 0.0 else 0.0
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                b = bins[z, y, x]
                if b >= 0:
                    draw = np.random.random()
                    if draw < fall:
                        bins[z, y, x] = b - 1
                    elif draw > 1.0 - rise[b]:
                        bins[z, y, x] = b + 1
                elif weight[z, y, x] > 0.0 and np.random.random() < weight[z, y, x] * scale:
                    draw = np.random.random() * entry[N_BELOW - 1]
                    k = 0
                    while entry[k] < draw:
                        k += 1
                    bins[z, y, x] = k


@njit(cache=True)
def _seed_numba(seed):  # type: ignore[no-untyped-def]
    np.random.seed(seed)


class NumbaAutomaton:
    """Plain loops over the whole volume."""

    name = "plain Numba, dense"

    def __init__(self, chest: Chest, w: TransitionParameters, seed: int) -> None:
        self.rates = Rates.of(w)
        self.bins = start_bins(chest)
        self.susceptible = chest.susceptible
        self.weight = np.zeros(self.bins.shape, np.float32)
        _seed_numba(seed)

    def step(self) -> None:
        """One transition."""
        w, rates = self.rates.w, self.rates
        _dense_transition(
            self.bins,
            self.susceptible,
            self.weight,
            rates.kernel,
            rates.rise,
            rates.entry,
            w.absorption_rate,
            rates.mean_births(0.0),
            w.birth_rate * w.linked_share,
            GAMMA,
        )

    def counts(self) -> NDArray[np.float64]:
        """Voxels per bin."""
        return histogram(self.bins[self.bins >= 0])


PEERS = (NumpyAutomaton, TorchAutomaton, NumbaAutomaton)


def dense_matrix(w: TransitionParameters) -> NDArray[np.float64]:
    """T as a dense matrix, column j is where bin j goes."""
    rise = Rates.of(w).rise
    fall = np.full(N_BINS, w.absorption_rate)
    return np.diag(1 - fall - rise) + np.diag(rise[:-1], -1) + np.diag(fall[1:], 1)


def numpy_chain(
    counts: NDArray[np.float64], w: TransitionParameters, steps: int, *, banded: bool
) -> NDArray[np.float64]:
    """The chain in NumPy: a dense product T @ p a transition, or three shifted products."""
    cumulative = Rates.of(w).entry
    entry = np.zeros(N_BINS)
    entry[:N_BELOW] = np.diff(cumulative, prepend=0.0)
    constant = w.birth_rate * (1 - w.linked_share) * w.reference_ggo_voxels
    linked = w.birth_rate * w.linked_share
    matrix = dense_matrix(w)
    stay, up, down = (np.ascontiguousarray(np.diag(matrix, k)) for k in (0, -1, 1))
    p = np.array(counts, np.float64)
    for _ in range(steps):
        births = constant + linked * p[:N_BELOW].sum()
        if banded:
            moved = stay * p
            moved[1:] += up * p[:-1]
            moved[:-1] += down * p[1:]
        else:
            moved = matrix @ p
        p = moved + births * entry
    return p


def numpy_matrix_power(
    counts: NDArray[np.float64], w: TransitionParameters, steps: int
) -> NDArray[np.float64]:
    """The chain by `np.linalg.matrix_power` of T with its births, one dimension more for the constant ones."""
    entry = np.zeros(N_BINS)
    entry[:N_BELOW] = np.diff(Rates.of(w).entry, prepend=0.0)
    whole = np.zeros((N_BINS + 1, N_BINS + 1))
    whole[:N_BINS, :N_BINS] = dense_matrix(w)
    whole[:N_BINS, :N_BELOW] += w.birth_rate * w.linked_share * entry[:, None]
    whole[:N_BINS, N_BINS] = w.birth_rate * (1 - w.linked_share) * w.reference_ggo_voxels * entry
    whole[N_BINS, N_BINS] = 1.0
    return np.asarray((np.linalg.matrix_power(whole, steps) @ np.append(counts, 1.0))[:N_BINS])


def cost_share(chest: Chest, crop: Chest) -> float:
    """How many times a dense automaton's work on the crop goes into its work on the whole scan."""
    return math.prod(chest.signal.shape) / math.prod(crop.signal.shape)
