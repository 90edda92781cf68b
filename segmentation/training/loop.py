"""One view's training, from any step to the last."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from segmentation.device import channels_last, weights_channels_last
from segmentation.methods import recipe_of
from segmentation.segmenter import seeded_torch
from segmentation.training.checkpoint import ViewState
from segmentation.training.distributed import Ranks
from segmentation.training.examples import Batch
from segmentation.training.history import training_row, validation_row
from segmentation.training.mixture import Mixture
from segmentation.training.options import TrainingOptions
from segmentation.training.validation import ValidationSlices
from standard_space.errors import DataError
from standard_space.progress import Progress, silent

SETTLING_SHARE = 0.3
"""Share of the steps, at the end, in which batch normalisation keeps its running statistics."""

PIXELS_PER_THREAD = 20_000
HISTORY_ROWS = 50
SMOOTHING = 0.1
"""Weight of the present step in the loss and Dice that are shown."""


class ViewTrainer:
    """A view's network, its optimiser, and how far they are.

    Parameters
    ----------
    state : ViewState
        To go on from; that of no step begins with random weights.
    options : TrainingOptions
    steps : int
        Of the whole run.
    device : torch.device
    ranks : Ranks
    begun_with : int, optional
        Steps of the run as it was begun, `steps` when absent.
    """

    def __init__(
        self,
        state: ViewState,
        options: TrainingOptions,
        steps: int,
        device: torch.device,
        ranks: Ranks | None = None,
        *,
        begun_with: int | None = None,
    ) -> None:
        self._begun_with = steps if begun_with is None else begun_with
        self.state, self.options, self.steps, self.device = state, options, steps, device
        self.ranks = ranks or Ranks()
        self.recipe = recipe_of(options.method)
        with seeded_torch(options.seed, state.view, "weights"):
            self.network = self.recipe.network(state.view, options).to(device)
        self._channels_last = self.recipe.channels_last and device.type == "cpu"
        if self._channels_last:
            weights_channels_last(self.network)
        if state.weights:
            self.network.load_state_dict(state.weights)
        else:
            said = self.recipe.start(self.network, options)
            state.notes = sorted({*state.notes, *([said] if said else [])})
        self.optimiser = self.recipe.optimiser(self.network, options)
        if state.optimiser:
            self.optimiser.load_state_dict(state.optimiser)
        called = self.ranks.wrapped(self.network, device, freezes=self.recipe.freezes)
        self._called: Callable[[Tensor], Tensor] = torch.compile(called) if options.compiled else called
        self._settled = False
        self.network.train()

    def step(self, batch: Batch) -> tuple[float, float]:
        """Take one step and return its loss and soft Dice.

        Raises
        ------
        DataError
            The loss is not finite.
        """
        state, options = self.state, self.options
        if not self._settled and state.step >= round((1.0 - SETTLING_SHARE) * self.steps):
            self._settled = True
            fix_batch_statistics(self.network)
        self.recipe.prepare(self.network, state.step, self._begun_with)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate(state.step)
        batch = _moved(batch, self.device, self._channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            output = self._called(batch.stack)
        loss, soft_dice = self.recipe.loss(output.float(), batch, options, self.ranks.total)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        found, dice = torch.stack([loss.detach(), soft_dice.detach()]).tolist()
        state.step += 1
        if not math.isfinite(found):
            raise DataError(
                f"training of {state.view} diverged at step {state.step}",
                remedy="use a smaller --learning-rate",
            )
        return found, dice

    def rate(self, step: int) -> float:
        """The learning rate of a step, from 0."""
        return self.recipe.learning_rate(step, self.steps, self.options, self.state.rows)

    def validate(self, slices: ValidationSlices) -> None:
        """Score the network and keep the best weights; the patience may stop the view."""
        state = self.state
        score = slices.score(self.network, self.device)
        if self._settled:
            fix_batch_statistics(self.network)
        state.rows.append(validation_row(state, score.dice, score.soft_dice))
        # While nothing was found no weights are better than others: the newest have learned most.
        if score.dice > state.best_dice or score.dice == 0.0 == state.best_dice:
            state.best_dice, state.best_step, state.without_gain = score.dice, state.step, 0
            state.best = _on_cpu(self.network.state_dict())
            return
        state.without_gain += 1
        patience = self.options.patience
        state.stopped = patience is not None and state.without_gain >= patience

    def record(self) -> ViewState:
        """Return the state with the network's and the optimiser's own put in."""
        self.state.steps = self.steps
        self.state.weights = _on_cpu(self.network.state_dict())
        self.state.optimiser = self.optimiser.state_dict()
        return self.state


def train_view(
    trainer: ViewTrainer,
    mixture: Mixture,
    *,
    slices: ValidationSlices | None = None,
    keep: Callable[[ViewState], None] = lambda state: None,
    progress: Progress = silent,
) -> ViewState:
    """Train a view to its last step, or until the patience ends.

    Parameters
    ----------
    trainer : ViewTrainer
    mixture : Mixture
    slices : ValidationSlices, optional
        In the first process of a distributed run only.
    keep : callable
        Writes the state; called every `checkpoint_minutes` and at the end.
    progress : Progress
        Called with ("xy loss 0.412 Dice 0.63", steps done, steps) after each step.

    Raises
    ------
    DataError
        The loss is not finite.
    """
    state, options, steps, ranks = trainer.state, trainer.options, trainer.steps, trainer.ranks
    if state.is_done(steps):
        return state
    if state.stopped:
        # Asked for more steps, a view that had stopped gets its patience back.
        state.stopped, state.without_gain = False, 0
    every = max(1, math.ceil(steps / HISTORY_ROWS))
    validate_every = options.validate_every_for(steps)
    shown: list[float] | None = None
    begun = kept = time.monotonic()
    todo = range(state.step, steps)
    batches = mixture.batches(state.view, todo, trainer.device, ranks.rank, ranks.world)
    with threads_kept() as most:
        for batch in batches:
            use_threads_worth(batch.truth.numel() * ranks.world, trainer.device, most)
            loss, dice = trainer.step(batch)
            now = time.monotonic()
            for place, value in enumerate((loss, dice, 1.0, now - begun)):
                state.sums[place] += value
            state.seconds += now - begun
            begun = now
            last = state.step == steps
            if state.step % every == 0 or last:
                rate = trainer.rate(state.step - 1)
                state.rows.append(training_row(state, rate, options.batch_size))
                state.sums = [0.0] * len(state.sums)
            if slices is not None and (state.step % validate_every == 0 or last):
                trainer.validate(slices)
            if ranks.world > 1 and (state.step % validate_every == 0 or last):
                state.stopped = bool(ranks.shared(state.stopped))
            shown = _smoothed(shown, loss, dice)
            progress(f"{state.view} loss {shown[0]:.3f} Dice {shown[1]:.2f}", state.step, steps)
            if last or state.stopped:
                break
            if time.monotonic() - kept >= 60.0 * options.checkpoint_minutes:
                keep(trainer.record())
                kept = time.monotonic()
        batches.close()
    keep(trainer.record())
    return state


def fix_batch_statistics(network: nn.Module) -> None:
    """Let batch normalisation use its running statistics from now on, as it will when predicting.

    Lung fills a patch to very different degrees, so the statistics of a batch of few patches differ much from
    the running ones: a network that never trained with those loses a tenth of Dice when it predicts.
    """
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def _moved(batch: Batch, device: torch.device, volumes_too: bool) -> Batch:
    """Bring a batch to a device; slices with their channels last, volumes where they are to be as well."""
    stack = batch.stack.to(device, non_blocking=True)
    if stack.dim() == 4 or volumes_too:
        stack = channels_last(stack)
    truth, counted = (tensor.to(device, non_blocking=True) for tensor in (batch.truth, batch.counted))
    return Batch(stack, truth, counted)


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def _smoothed(before: list[float] | None, *values: float) -> list[float]:
    if before is None:
        return list(values)
    return [a + SMOOTHING * (b - a) for a, b in zip(before, values, strict=True)]


@contextmanager
def threads_kept() -> Iterator[int]:
    """Yield PyTorch's number of threads, and give it back."""
    before = torch.get_num_threads()
    try:
        yield before
    finally:
        torch.set_num_threads(before)


def use_threads_worth(pixels: int, device: torch.device, most: int) -> None:
    """Use no more of PyTorch's CPU threads than a step of this many pixels feeds.

    Measured on 2 cores, width 8: a step of 8 x 48^2 pixels takes 35 ms with one thread and 61 ms with two; one
    of 8 x 80^2 takes 73 and 64 ms.
    """
    if device.type == "cpu":
        torch.set_num_threads(max(1, min(most, pixels // PIXELS_PER_THREAD)))
