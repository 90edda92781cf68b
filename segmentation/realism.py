"""How well a small classifier tells real from synthetic lesion patches (docs/audit.md).

Folds by patient, so that nothing of a patient is known beforehand; AUC within each patient, so that anatomy
cannot help; beside it a baseline that sees only the mean and the spread of a patch. The same patches and seed
give the same numbers on one processor type: everything runs on one core.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import rankdata, t
from torch import Tensor, nn
from torch.nn import functional

from simulator.audit_patches import PATCH_MM, SLICES, Patches
from standard_space.progress import Progress, silent

FOLDS = 5
STEPS, STEPS_LARGE, LARGE_VOXELS = 240, 120, 20
"""Optimiser steps a fold, of small patches and of those with so many voxels a side: they, not the number of
volumes, bound the time."""

BATCH = 64
LEARNING_RATE = 1e-2
WIDTH = 8
LEVEL = 0.95
FEWEST_PATIENTS = 2
FEW_PATIENTS = 5
RIDGE = 1e-3
SMALLEST_MAP = 5
EVALUATED_AT_ONCE = 512

Scores = NDArray[np.float64]


@dataclass
class Auc:
    """Mean over patients of the AUC within each, and its 95 % interval by Student's t over patients.

    0.5: patches cannot be told apart. The interval is None below three patients. `per_patient` goes by name.
    """

    mean: float
    low: float | None
    high: float | None
    per_patient: dict[str, float]


@dataclass
class Realism:
    """What a classifier found out, or in `notes` why there is none.

    Attributes
    ----------
    network, baseline : Auc or None
        Of the network, and of a logistic regression on mean and standard deviation of a patch.
    patients, folds, patches_per_kind : int
    patch_mm : float
    patch_shape : list of int
        Slices, rows, columns.
    steps, seed : int
    notes : list of str
    """

    network: Auc | None
    baseline: Auc | None
    patients: int
    folds: int
    patches_per_kind: int
    patch_mm: float
    patch_shape: list[int]
    steps: int
    seed: int
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain values for a file."""
        return asdict(self)


class PatchNetwork(nn.Module):
    """Three convolutions, mean and maximum over the patch: (n, slices, y, x) to (n,) logits.

    Beside the slices it is given their deviation from the mean of 3x3 voxels: against the contrast of lung and
    chest wall, fine structure is too faint to be found in few steps. The maximum keeps what is rare: a lone voxel.

    Parameters
    ----------
    smaller_side : int
        Of a patch, in voxels; says how often it is halved.
    generator : torch.Generator
        Draws the weights.
    """

    def __init__(self, smaller_side: int, generator: torch.Generator) -> None:
        super().__init__()
        widths = [2 * SLICES, WIDTH, 2 * WIDTH, 4 * WIDTH]
        halvings = max(0, int(np.log2(smaller_side / SMALLEST_MAP)))
        large = halvings > 1
        # Halved by its step rather than by pooling: the first layer costs more than all others together.
        first = nn.Conv2d(widths[0], widths[1], 5, stride=2 if large else 1, padding=2)
        self.convolutions = nn.ModuleList(
            [first, *(nn.Conv2d(widths[k], widths[k + 1], 3, padding=1) for k in (1, 2))]
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])
        self.inputs = nn.BatchNorm2d(widths[0], affine=False)
        self.head = nn.Linear(2 * widths[-1], 1)
        self.poolings = halvings - 1 if large else halvings
        for layer in (*self.convolutions, self.head):
            nn.init.kaiming_normal_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        coarse = functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        x = self.inputs(torch.cat([x, x - coarse], 1))
        for level, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = functional.relu(norm(convolution(x)), inplace=True)
            if level < self.poolings:
                x = functional.max_pool2d(x, 2)
        return self.head(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)).squeeze(1)


def tell_apart(patches: Sequence[Patches], *, seed: int = 0, progress: Progress = silent) -> Realism:
    """Cross-validate the network and the baseline, folds by patient.

    Parameters
    ----------
    patches : sequence of Patches
        Of all volumes, in any order of theirs that is always the same.
    seed : int
        Of folds, weights and batches.
    progress : Progress
        Told of every optimiser step.

    Returns
    -------
    Realism
        Without AUC, and with the reason among its notes, where there are fewer than two patients.
    """
    shape = list(patches[0].real.shape[1:]) if patches else [SLICES, 0, 0]
    names = sorted({item.patient for item in patches})
    result = Realism(
        network=None,
        baseline=None,
        patients=len(names),
        folds=min(FOLDS, len(names)),
        patches_per_kind=sum(len(item.real) for item in patches),
        patch_mm=PATCH_MM,
        patch_shape=shape,
        steps=STEPS if min(shape[1:]) < LARGE_VOXELS else STEPS_LARGE,
        seed=seed,
    )
    if len(names) < FEWEST_PATIENTS:
        result.notes.append(
            f"real and synthetic patches of {len(names)} patient{'s' * (len(names) != 1)} cannot be compared: a "
            f"classifier has to be tried on patients that it has not seen, which takes {FEWEST_PATIENTS} at least"
        )
        return result
    x, synthetic, patient = _gather(patches, names)
    fold = _folds(len(names), result.folds, seed)[patient]
    by_network, by_baseline = np.zeros(len(x)), np.zeros(len(x))
    total = result.folds * result.steps
    with _one_core():
        for number in range(result.folds):
            known, held_out = fold != number, fold == number
            by_baseline[held_out] = _baseline(x[known], synthetic[known], x[held_out])
            generator = torch.Generator().manual_seed(seed * 1000 + number)
            network = _train(
                x[known],
                synthetic[known],
                result.steps,
                generator,
                _part(progress, number * result.steps, total, number),
            )
            by_network[held_out] = _evaluate(network, x[held_out])
    progress("done", total, total)
    result.network = _auc_over_patients(by_network, synthetic, patient, names)
    result.baseline = _auc_over_patients(by_baseline, synthetic, patient, names)
    if len(names) < FEW_PATIENTS:
        result.notes.append(
            f"{len(names)} patients are few: the classifier learns from {len(names) - 1} at most, and an AUC near "
            "0.5 may only say that it learnt nothing"
        )
    return result


def auc(scores: Scores, positive: NDArray[np.bool_]) -> float:
    """Probability that a positive scores higher than a negative; ties count half."""
    ranks = rankdata(scores)
    n, m = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))


def _auc_over_patients(
    scores: Scores, positive: NDArray[np.bool_], patient: NDArray[np.intp], names: list[str]
) -> Auc:
    found = [auc(scores[patient == k], positive[patient == k]) for k in range(len(names))]
    mean, low, high = float(np.mean(found)), None, None
    if len(found) > 2:
        wide = float(t.ppf(0.5 + LEVEL / 2, len(found) - 1) * np.std(found, ddof=1) / np.sqrt(len(found)))
        low, high = max(0.0, mean - wide), min(1.0, mean + wide)
    return Auc(mean, low, high, dict(zip(names, found, strict=True)))


def _gather(
    patches: Sequence[Patches], names: list[str]
) -> tuple[Tensor, NDArray[np.bool_], NDArray[np.intp]]:
    """All patches (n, slices, y, x), which are synthetic, and the number of each one's patient."""
    number = {name: k for k, name in enumerate(names)}
    kinds = [array for item in patches for array in (item.real, item.synthetic)]
    synthetic = np.concatenate([np.full(len(array), k % 2 == 1) for k, array in enumerate(kinds)])
    patient = np.concatenate([np.full(2 * len(item.real), number[item.patient]) for item in patches])
    return torch.from_numpy(np.concatenate(kinds).astype(np.float32)), synthetic, patient


def _folds(patients: int, folds: int, seed: int) -> NDArray[np.intp]:
    """The fold of every patient; folds differ by one patient at most."""
    order = np.random.default_rng([seed, 0x66_6F]).permutation(patients)
    result = np.zeros(patients, np.intp)
    result[order] = np.arange(patients) % folds
    return result


def _part(progress: Progress, before: int, total: int, fold: int) -> Progress:
    return lambda _, done, __: progress(f"fold {fold + 1}", before + done, total)


def _train(
    x: Tensor, synthetic: NDArray[np.bool_], steps: int, generator: torch.Generator, progress: Progress
) -> PatchNetwork:
    """A network trained on batches drawn at random, turned and mirrored."""
    target = torch.from_numpy(synthetic.astype(np.float32))
    square = x.shape[-1] == x.shape[-2]
    network = PatchNetwork(min(x.shape[-2:]), generator).train()
    optimiser = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps)
    for step in range(steps):
        if step % 10 == 0:
            progress("", step, steps)
        batch = torch.randint(len(x), (BATCH,), generator=generator)
        flips = torch.randint(8, (1,), generator=generator).item()
        stack = x[batch]
        axes = [axis for bit, axis in ((1, 2), (2, 3)) if int(flips) & bit]
        stack = stack.flip(axes) if axes else stack
        stack = stack.transpose(2, 3) if square and int(flips) & 4 else stack
        optimiser.zero_grad()
        functional.binary_cross_entropy_with_logits(network(stack), target[batch]).backward()
        optimiser.step()
        schedule.step()
    return network.eval()


def _evaluate(network: PatchNetwork, x: Tensor) -> Scores:
    with torch.no_grad():
        return torch.cat([network(part) for part in x.split(EVALUATED_AT_ONCE)]).double().numpy()


def _baseline(x: Tensor, synthetic: NDArray[np.bool_], held_out: Tensor) -> Scores:
    """Scores of a ridge logistic regression on mean and standard deviation of a patch."""
    seen, asked = (_mean_and_spread(stack) for stack in (x, held_out))
    centre, scale = seen.mean(0), seen.std(0) + 1e-12
    design = np.c_[np.ones(len(seen)), (seen - centre) / scale]
    sign = np.where(synthetic, 1.0, -1.0)

    def loss(w: Scores) -> tuple[float, Scores]:
        margin = sign * (design @ w)
        gradient = -(design.T @ (sign / (1.0 + np.exp(np.clip(margin, -500, 500))))) / len(design)
        return float(np.logaddexp(0.0, -margin).mean() + RIDGE * w @ w), gradient + 2.0 * RIDGE * w

    found = minimize(loss, np.zeros(design.shape[1]), jac=True, method="L-BFGS-B").x
    scores: Scores = np.c_[np.ones(len(asked)), (asked - centre) / scale] @ found
    return scores


def _mean_and_spread(x: Tensor) -> Scores:
    flat = x.flatten(1).double().numpy()
    return np.c_[flat.mean(1), flat.std(1)]


@contextmanager
def _one_core() -> Iterator[None]:
    """Sums depend on how many threads share them; one core gives the same on every machine of a kind."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
