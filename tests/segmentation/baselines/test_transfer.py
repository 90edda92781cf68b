"""The transfer-learning 3D U-Net: its encoder's weights, how they are frozen, and stacks that grow."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("monai")

from segmentation.baselines.transfer import TransferUNet, clipped, released_at, stack_grid
from segmentation.baselines.transfer_network import TransferNetwork
from segmentation.methods import options_for
from segmentation.training.examples import Batch, Example
from segmentation.training.loop import SETTLING_SHARE
from segmentation.training.options import TrainingOptions
from segmentation.training.recipe import Turn
from standard_space.errors import DataError
from standard_space.grid import StandardGrid
from tests.segmentation.baselines.learning import crop_of, learns, toy_cut

RECIPE = TransferUNet()


def options(**given: Any) -> TrainingOptions:
    return options_for("transfer", **{"width": 2, **given})


def network(width: int = 2, *, pretrained: bool = False) -> TransferNetwork:
    torch.manual_seed(0)
    made = RECIPE.network("network", options(width=width))
    assert isinstance(made, TransferNetwork)
    made.pretrained.fill_(pretrained)
    return made.train()


def r3d_18_state(width: int = 64) -> dict[str, torch.Tensor]:
    """Names and shapes as published; each tensor holds one value of its own, and is small in a file."""
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (channels,)

    shapes["stem.0.weight"] = (width, 3, 3, 7, 7)
    norm("stem.1", width)
    before = width
    for layer in range(1, 5):
        channels = width * 2 ** (layer - 1)
        for block in range(2):
            place = f"layer{layer}.{block}"
            for conv in ("conv1", "conv2"):
                shapes[f"{place}.{conv}.0.weight"] = (channels, before, 3, 3, 3)
                norm(f"{place}.{conv}.1", channels)
                before = channels
        if layer > 1:
            shapes[f"layer{layer}.0.downsample.0.weight"] = (channels, channels // 2, 1, 1, 1)
            norm(f"layer{layer}.0.downsample.1", channels)
    shapes["fc.weight"], shapes["fc.bias"] = (400, 8 * width), (400,)
    state = {
        name: torch.tensor(0.001 * (n + 1)).expand(shape) for n, (name, shape) in enumerate(shapes.items())
    }
    state["stem.1.num_batches_tracked"] = torch.tensor(5)
    return state


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "patient_of_mine.pth"
    torch.save(r3d_18_state(), path)
    return path


def draw(cut_size: int = 32, grid: int = 128, step: int = 0, seed: int = 0, **given: Any) -> Example:
    turn = Turn(options(**given), grid, step, 10, vary=bool(given.get("vary", False)))
    return RECIPE.example(toy_cut(1, cut_size, grid), "network", np.random.default_rng(seed), turn)


def test_the_network_has_the_published_encoder() -> None:
    with torch.device("meta"):
        made = RECIPE.network("network", options_for("transfer"))
        assert made(torch.empty(1, 1, 20, 256, 256)).shape == (1, 1, 20, 256, 256)
    assert isinstance(made, TransferNetwork)
    assert sum(weight.numel() for weight in made.encoder.parameters()) == 33_166_272
    assert sum(weight.numel() for weight in made.parameters()) == 41_578_337


@pytest.mark.parametrize("shape", [(18, 112, 112), (20, 64, 64), (9, 32, 48), (1, 16, 16)])
def test_the_output_lies_on_the_grid_of_the_input(shape: tuple[int, ...]) -> None:
    with torch.no_grad():
        assert network().eval()(torch.rand(1, 1, *shape)).shape == (1, 1, *shape)


def test_names_and_shapes_of_the_encoder_are_those_of_r3d_18() -> None:
    with torch.device("meta"):
        own = TransferNetwork(64).encoder.state_dict()
    published = {name: t.shape for name, t in r3d_18_state().items() if not name.startswith("fc.")}
    assert {name: t.shape for name, t in own.items() if "num_batches" not in name} == {
        name: shape for name, shape in published.items() if "num_batches" not in name
    }


def test_weights_of_an_r3d_18_are_loaded_and_told_by_their_hash_alone(weights: Path) -> None:
    made = network(64)
    last = made.last.weight.clone()
    said = RECIPE.start(made, options_for("transfer", encoder_weights=str(weights)))
    assert said is not None
    assert hashlib.sha256(weights.read_bytes()).hexdigest() in said
    assert "patient" not in said
    state = r3d_18_state()
    for name in ("stem.0.weight", "layer1.1.conv2.1.running_var", "layer4.0.downsample.0.weight"):
        assert torch.equal(made.encoder.state_dict()[name], state[name])
    assert torch.equal(made.last.weight, last)
    assert bool(made.pretrained)


def test_without_a_file_the_notes_say_that_the_encoder_is_random() -> None:
    made = network()
    before = made.encoder.state_dict()["stem.0.weight"].clone()
    assert "random" in (RECIPE.start(made, options()) or "")
    assert torch.equal(made.encoder.state_dict()["stem.0.weight"], before)
    assert not bool(made.pretrained)


def test_weights_that_cannot_be_used_are_refused_and_change_nothing(tmp_path: Path) -> None:
    narrow = r3d_18_state(2)
    lacking = {name: t for name, t in narrow.items() if name != "layer3.1.conv1.0.weight"}
    foreign = {**narrow, "layer5.0.weight": torch.zeros(1)}
    spoiled = {**narrow, "stem.1.bias": torch.tensor([float("nan"), 0.0])}
    made = network()
    before = {name: t.clone() for name, t in made.state_dict().items()}
    cases = (
        ("missing.pth", None, "no such file"),
        ("damaged.pth", b"nothing", "damaged"),
        ("list.pth", [1, 2], "no encoder weights"),
        ("nested.pth", {"state_dict": narrow}, "no encoder weights"),
        ("lacking.pth", lacking, "lacks layer3.1.conv1.0.weight"),
        ("foreign.pth", foreign, "has layer5.0.weight"),
        ("nan.pth", spoiled, "NaN"),
        ("wide.pth", r3d_18_state(64), "--width 64"),
    )
    for name, content, message in cases:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            torch.save(content, path)
        with pytest.raises(DataError, match=message):
            RECIPE.start(made, options(encoder_weights=str(path)))
        assert all(torch.equal(t, before[key]) for key, t in made.state_dict().items())


def test_weights_that_came_are_frozen_for_a_quarter_of_the_steps_and_then_released() -> None:
    made = network(pretrained=True)
    for step in range(8):
        RECIPE.prepare(made, step, 8)
        frozen = step < 2
        assert all(weight.requires_grad is not frozen for weight in made.encoder.parameters())
        assert all(weight.requires_grad for weight in made.up.parameters())
        assert made.encoder.stem[1].training is not frozen
        assert all(module.training for module in made.up.modules())
        if step == 5:
            made.encoder.stem[1].eval()
            break
    RECIPE.prepare(made, 6, 8)
    assert not made.encoder.stem[1].training, "statistics that the trainer has fixed stay fixed"


def test_random_weights_are_never_frozen() -> None:
    made = network()
    RECIPE.prepare(made, 0, 100)
    assert all(weight.requires_grad for weight in made.parameters())
    assert made.encoder.stem[1].training


def test_layers_are_released_before_the_trainer_fixes_the_statistics() -> None:
    assert all(released_at(steps) < max(1, round((1 - SETTLING_SHARE) * steps)) for steps in range(1, 200))


@pytest.mark.parametrize("interrupted", [1, 2, 4])
def test_a_run_resumed_in_either_phase_ends_like_an_uninterrupted_one(interrupted: int) -> None:
    chosen, steps = options(learning_rate=1e-2), 8

    def train(made: TransferNetwork, optimiser: torch.optim.Optimizer, todo: range) -> None:
        for step in todo:
            RECIPE.prepare(made, step, steps)
            rng = np.random.default_rng(step)
            stack = torch.from_numpy(rng.random((2, 1, 4, 32, 32), np.float32))
            batch = Batch(stack, (stack > 0.5).float(), torch.ones_like(stack))
            optimiser.zero_grad(set_to_none=True)
            RECIPE.loss(made(stack), batch, chosen)[0].backward()
            optimiser.step()

    whole = network(pretrained=True)
    begun = {name: t.clone() for name, t in whole.state_dict().items()}
    train(whole, RECIPE.optimiser(whole, chosen), range(steps))

    first = network(pretrained=True)
    optimiser = RECIPE.optimiser(first, chosen)
    train(first, optimiser, range(interrupted))
    frozen = interrupted <= released_at(steps)
    for name in ("encoder.stem.0.weight", "encoder.layer4.0.conv1.1.running_mean"):
        assert torch.equal(first.state_dict()[name], begun[name]) is frozen
    assert not torch.equal(first.last.weight, begun["last.weight"])

    second = RECIPE.network("network", chosen)
    assert isinstance(second, TransferNetwork)
    second.load_state_dict(first.state_dict())
    resumed = RECIPE.optimiser(second, chosen)
    resumed.load_state_dict(optimiser.state_dict())
    train(second.train(), resumed, range(interrupted, steps))
    ends = second.state_dict()
    assert all(torch.equal(t, ends[name]) for name, t in whole.state_dict().items())


def test_stacks_follow_the_grid_and_grow() -> None:
    grids = {
        (size, small): stack_grid(StandardGrid(size).spacing_mm, small, None)
        for size in (64, 128, 512)
        for small in (True, False)
    }
    assert grids[512, True] == ((18, 112, 112), (5.0, 334 / 112, 334 / 112))
    assert grids[512, False] == ((20, 256, 256), (5.0, 334 / 256, 334 / 256))
    assert grids[128, True] == ((18, 112, 112), (5.0, 334 / 112, 334 / 112))
    assert grids[128, False] == ((20, 128, 128), (5.0, 334 / 128, 334 / 128))
    assert grids[64, True] == ((18, 64, 64), (8.0, 334 / 64, 334 / 64))
    assert grids[64, False] == ((20, 64, 64), (8.0, 334 / 64, 334 / 64))


def test_examples_of_a_step_have_one_shape_whatever_the_scan() -> None:
    assert {draw(size, step=4).stack.shape for size in (24, 32, 40)} == {(1, 18, 112, 112)}
    assert {draw(size, step=5).stack.shape for size in (24, 32, 40)} == {(1, 20, 128, 128)}
    assert draw(step=5, patch=48).counted.shape == (1, 20, 48, 48)


def test_a_stack_shows_the_scan_in_the_middle_of_air_which_does_not_count() -> None:
    cut = toy_cut(1, 32, 64)
    example = draw(32, 64, step=9)
    assert example.stack.shape == (1, 20, 64, 64)
    inner = (slice(None), slice(None), slice(16, 48), slice(16, 48))
    beyond = torch.ones_like(example.counted)
    beyond[inner] = 0.0
    torch.testing.assert_close(example.stack[beyond > 0], torch.full((20 * 3072,), 0.4))
    assert float((example.counted * beyond).sum()) == 0.0
    first = next(z for z in range(13) if torch.equal(example.truth[inner][0], cut.truth[z : z + 20].float()))
    torch.testing.assert_close(example.stack[inner][0], clipped(cut.signal[first : first + 20].float()))
    assert torch.equal(example.counted[inner][0], cut.counted[first : first + 20].float())


def test_signals_are_clipped_at_minus_2000_and_500_hu() -> None:
    hu = torch.tensor([-3000.0, -2000.0, -1000.0, 0.0, 500.0, 2000.0])
    expected = torch.tensor([0.0, 0.0, 0.4, 0.8, 1.0, 1.0])
    torch.testing.assert_close(clipped((hu + 600) / 1600), expected)


@pytest.mark.parametrize("vary", [True, False])
def test_an_example_is_a_pure_function_of_its_arguments(vary: bool) -> None:
    first, again, other = (draw(32, 64, seed=seed, vary=vary) for seed in (3, 3, 4))
    for name in ("stack", "truth", "counted"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert not torch.equal(first.stack, other.stack)


def test_examples_are_varied_only_where_the_options_and_the_turn_say_so() -> None:
    plain = draw(32, 64, patch=64, vary=False)
    chosen = options(patch=64, vary=True)
    cut = toy_cut(1, 32, 64)
    for turn, same in ((Turn(chosen, 64, 0, 10, False), True), (Turn(chosen, 64, 0, 10, True), False)):
        example = RECIPE.example(cut, "network", np.random.default_rng(0), turn)
        assert torch.equal(example.stack, plain.stack) is same


def test_the_rate_is_a_triangle_four_times_over() -> None:
    chosen = options_for("transfer")
    rates = [RECIPE.learning_rate(step, 400, chosen, []) for step in range(400)]
    assert max(rates) == pytest.approx(1e-3, rel=0.01)
    assert min(rates) == pytest.approx(1e-4, rel=0.1)
    tops = [n for n in range(1, 399) if rates[n - 1] <= rates[n] > rates[n + 1]]
    assert len(tops) == 4
    np.testing.assert_allclose(rates[:100], rates[300:])
    assert rates[released_at(400)] == pytest.approx(min(rates))
    assert RECIPE.learning_rate(0, 1, chosen, []) <= 1e-3


def test_prediction_uses_the_final_size_and_answers_on_the_crops_grid() -> None:
    seen = []

    def forward(stack: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(stack.shape[1:]))
        return torch.full_like(stack, 2.0)

    crop = crop_of(toy_cut(1, 40, 128))
    found = RECIPE.probabilities({"network": forward}, crop, options())
    assert set(seen) == {(1, 20, 128, 128)}
    assert found.shape == (1, 40, 40, 40)
    torch.testing.assert_close(found, torch.sigmoid(torch.full_like(found, 2.0)))


def test_it_learns_the_toys() -> None:
    chosen = options(width=8, patch=16, batch_size=4, learning_rate=1e-2, positive_share=1.0)
    assert learns(RECIPE, chosen, 0) < 0.4
    assert learns(RECIPE, chosen, 40) > 0.6
