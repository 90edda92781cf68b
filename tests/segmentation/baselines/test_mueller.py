"""Mueller et al.: what the network sees, what it learns, and how its rate falls."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("monai")

from segmentation.baselines import mueller_preprocessing as preprocessing
from segmentation.baselines.mueller import INFECTION, LEFT_LUNG, RIGHT_LUNG, Mueller, classes, working_grid
from segmentation.baselines.mueller_preprocessing import GreyStatistics, grey_values, vary
from segmentation.methods import options_for
from segmentation.training.examples import Batch, Example
from segmentation.training.recipe import Turn
from standard_space.errors import DataError
from standard_space.grid import StandardGrid
from tests.segmentation.baselines.learning import crop_of, learns, toy_cut

RECIPE = Mueller()


def draw(seed: int = 0, *, size: int = 32, vary: bool = False, **options: Any) -> Example:
    chosen = options_for("mueller", **{"patch": 32, "width": 4, **options})
    turn = Turn(chosen, 64, 0, 1, vary)
    return RECIPE.example(toy_cut(1, size), "network", np.random.default_rng(seed), turn)


def signal_of(hu: list[float]) -> torch.Tensor:
    return (torch.tensor(hu) + 600.0) / 1600.0


def test_the_network_has_the_published_features_and_four_classes() -> None:
    options = options_for("mueller")
    with torch.device("meta"):
        network = RECIPE.network("network", options)
        assert network(torch.empty(1, 1, 80, 160, 160)).shape == (1, 4, 80, 160, 160)
    assert options.width == 32
    assert network.state_dict()["down_4.convs.conv_1.conv.weight"].shape == (512, 512, 3, 3, 3)
    assert sum(weight.numel() for weight in network.parameters()) == 22_625_380


def test_the_published_training_is_the_default() -> None:
    options = options_for("mueller")
    assert (options.optimiser, options.peak_rate, options.batch_size) == ("adam", 1e-3, 2)
    assert RECIPE.optimiser(torch.nn.Linear(1, 1), options).__class__ is torch.optim.Adam


def test_grey_values_clip_at_minus_1250_and_250_hu() -> None:
    grey = grey_values(signal_of([-2000.0, -1250.0, -500.0, 250.0, 3000.0]))
    torch.testing.assert_close(grey, torch.tensor([0.0, 0.0, 127.5, 255.0, 255.0]), atol=1e-4, rtol=0)


def test_z_scores_have_mean_0_and_deviation_1_over_the_volume_they_were_measured_on() -> None:
    volume = toy_cut(1).signal
    scores = GreyStatistics.of(volume).z_scores(volume)
    assert float(scores.mean()) == pytest.approx(0.0, abs=1e-4)
    assert float(scores.std()) == pytest.approx(1.0, abs=1e-3)
    constant = torch.full((4, 4, 4), 0.1)
    assert torch.isfinite(GreyStatistics.of(constant).z_scores(constant)).all()


def test_statistics_of_a_part_of_a_large_volume_are_near_those_of_all_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    volume = toy_cut(1, 64).signal
    whole = GreyStatistics.of(volume)
    monkeypatch.setattr(preprocessing, "VOXELS_FOR_STATISTICS", 32**3)
    part = GreyStatistics.of(volume)
    assert part != whole
    assert part.mean == pytest.approx(whole.mean, rel=0.02)
    assert part.deviation == pytest.approx(whole.deviation, rel=0.02)


def test_the_patch_and_its_spacing_follow_the_grid() -> None:
    options = options_for("mueller")
    grids = {size: working_grid(StandardGrid(size).spacing_mm, options) for size in (64, 128, 512)}
    assert grids[512] == ((80, 160, 160), (2.70, 1.58, 1.58))
    assert grids[128] == ((48, 96, 96), StandardGrid(128).spacing_mm)
    assert grids[64] == ((32, 48, 48), StandardGrid(64).spacing_mm)


def test_without_preprocessing_the_scans_own_spacing_and_signal_are_kept() -> None:
    options = options_for("mueller", preprocess=False)
    shape, spacing_mm = working_grid(StandardGrid(512).spacing_mm, options)
    assert shape == (80, 160, 160)
    assert spacing_mm == StandardGrid(512).spacing_mm
    assert torch.equal(draw(preprocess=False).stack[0], toy_cut(1).signal.float())


def test_the_z_score_is_that_of_the_whole_cut_scan() -> None:
    cut = toy_cut(1)
    statistics = GreyStatistics.of(cut.signal)
    torch.testing.assert_close(draw().stack[0], statistics.z_scores(cut.signal))
    part = draw(patch=16).stack[0]
    assert abs(float(part.mean())) > 0.05
    assert bool(torch.isin(part, statistics.z_scores(cut.signal)).all())


@pytest.mark.parametrize("preprocess", [True, False])
def test_prediction_shows_the_network_what_training_did(preprocess: bool) -> None:
    options = options_for("mueller", patch=32, width=4, preprocess=preprocess)
    seen = []

    def forward(stack: torch.Tensor) -> torch.Tensor:
        seen.append(stack)
        return torch.zeros(len(stack), 4, *stack.shape[2:])

    found = RECIPE.probabilities({"network": forward}, crop_of(toy_cut(1)), options)
    torch.testing.assert_close(seen[0][0], draw(preprocess=preprocess).stack)
    assert found.shape == (1, 32, 32, 32)
    torch.testing.assert_close(found, torch.full_like(found, 0.25))


def test_classes_are_background_left_right_and_infection_which_wins() -> None:
    lungs = torch.tensor([[[0, 1, 2, 1, 0]]], dtype=torch.uint8)
    truth = torch.tensor([[[0.0, 0.0, 0.0, 1.0, 1.0]]])
    assert classes(lungs, truth).tolist() == [[[0, RIGHT_LUNG, LEFT_LUNG, INFECTION, INFECTION]]]


def test_an_example_labels_the_cut_scan_and_counts_all_of_it_but_nothing_beyond() -> None:
    cut = toy_cut(1)
    assert cut.lungs is not None
    assert torch.equal(draw().truth[0], classes(cut.lungs, cut.truth.float()))
    wide = draw(patch=48)
    assert wide.stack.shape == wide.truth.shape == wide.counted.shape == (1, 48, 48, 48)
    assert float(wide.counted.sum()) == 32**3
    assert float(wide.truth[wide.counted == 0].max()) == 0
    air = float(GreyStatistics.of(cut.signal).z_scores(torch.tensor(cut.air)))
    torch.testing.assert_close(wide.stack[wide.counted == 0], torch.full((48**3 - 32**3,), air))


def test_the_target_is_the_infection_alone() -> None:
    truth = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    assert RECIPE.positives(truth).tolist() == [[0.0, 0.0, 0.0, 1.0]]
    output = torch.randn(2, 4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    probability = RECIPE.probability(output)
    assert probability.shape == (2, 1, 3, 3, 3)
    torch.testing.assert_close(probability[:, 0], output.softmax(1)[:, 3])


def test_the_loss_is_lowest_for_the_right_classes() -> None:
    example = draw()
    batch = Batch.of([example])
    options = options_for("mueller")
    right = torch.nn.functional.one_hot(batch.truth[:, 0].long(), 4).movedim(-1, 1) * 20.0
    loss, dice = RECIPE.loss(right.float(), batch, options)
    assert float(loss) < 0.01
    assert float(dice) > 0.99
    assert float(RECIPE.loss(right.flip(1).float(), batch, options)[0]) > 1.0


@pytest.mark.parametrize("varied", [True, False])
def test_an_example_is_a_pure_function_of_its_arguments(varied: bool) -> None:
    cut = toy_cut(1)
    kept = cut.signal.clone(), cut.truth.clone(), cut.counted.clone()
    turn = Turn(options_for("mueller", patch=16), 64, 0, 1, varied)
    first, again, other = (RECIPE.example(cut, "network", np.random.default_rng(n), turn) for n in (7, 7, 8))
    assert torch.equal(first.stack, again.stack)
    assert torch.equal(first.truth, again.truth)
    assert not torch.equal(first.stack, other.stack)
    assert all(torch.equal(a, b) for a, b in zip(kept, (cut.signal, cut.truth, cut.counted), strict=True))


def test_examples_are_varied_only_where_the_options_and_the_turn_say_so() -> None:
    plain = draw().stack
    options = options_for("mueller", patch=32, vary=False)
    cut = toy_cut(1)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        assert torch.equal(RECIPE.example(cut, "network", rng, Turn(options, 64, 0, 1, True)).stack, plain)
        assert torch.equal(draw(seed, vary=False).stack, plain)
    assert any(not torch.equal(draw(seed, vary=True).stack, plain) for seed in range(12))


def test_each_transform_is_applied_to_15_percent_so_that_a_quarter_of_patches_stay() -> None:
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.standard_normal((8, 8, 8), np.float32))
    mask = torch.ones(8, 8, 8)
    varied = (vary(image, mask, mask, rng, (8.0, 5.0, 5.0), -1.0)[0] for _ in range(300))
    unchanged = sum(torch.equal(image, one) for one in varied) / 300
    assert unchanged == pytest.approx(0.85**8, abs=0.06)


def test_labels_stay_on_their_voxels_whatever_varies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocessing, "VARIED_SHARE", 1.0)
    labels = torch.zeros(24, 32, 32)
    labels[4:14, 6:20, 4:22] = 3.0
    labels[14:20, 20:28, 20:30] = 1.0
    changed = 0
    for seed in range(6):
        image, moved, counted = vary(
            labels / 3.0,
            labels,
            torch.ones_like(labels),
            np.random.default_rng(seed),
            (2.7, 1.58, 1.58),
            0.0,
        )
        assert set(moved.unique().tolist()) == {0.0, 1.0, 3.0}
        assert set(counted.unique().tolist()) <= {0.0, 1.0}
        assert float(image[moved == 3].mean()) > float(image[moved == 0].mean()) + 0.2
        assert float(moved[counted == 0].sum()) == 0.0
        changed += not torch.equal(moved, labels)
    assert changed == 6


def test_rotation_keeps_millimetres_on_uneven_voxels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocessing, "VARIED_SHARE", 1.0)
    monkeypatch.setattr(preprocessing, "ROTATION_DEGREES", 45.0)
    monkeypatch.setattr(preprocessing, "SCALING", (1.0, 1.0))
    monkeypatch.setattr(preprocessing, "BEND_DEVIATION_MM", 0.0)
    spacing_mm, shape = (2.0, 1.0, 1.0), (24, 64, 46)
    axes = [(torch.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing_mm, strict=True)]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    ball = ((z**2 + y**2 + x**2).sqrt() < 20.0).float()
    for seed in range(3):
        _, moved, _ = vary(ball, ball, ball, np.random.default_rng(seed), spacing_mm, 0.0)
        assert float(2 * (moved * ball).sum() / (moved.sum() + ball.sum())) > 0.96


def test_the_rate_falls_by_ten_after_a_plateau_of_a_tenth_of_the_steps() -> None:
    options = options_for("mueller")

    def rows(losses: list[float]) -> list[dict[str, Any]]:
        validation = {"kind": "validation", "step": 1, "dice": 0.0}
        return [validation] + [
            {"kind": "training", "step": 40 * (n + 1), "loss": loss} for n, loss in enumerate(losses)
        ]

    def rate(losses: list[float], step: int = 2000) -> float:
        return RECIPE.learning_rate(step, 2000, options, rows(losses))

    falling = [1.0 - 0.01 * n for n in range(50)]
    flat = [1.0] * 50
    assert rate([]) == rate(falling) == 1e-3
    assert rate(flat[:5]) == 1e-3
    assert rate(flat[:6]) == pytest.approx(1e-4)
    assert rate(flat[:11]) == pytest.approx(1e-5)
    assert rate(flat) == pytest.approx(1e-5), "the floor is a hundredth"
    assert rate(flat, step=200) == 1e-3, "what comes later does not count"
    assert rate([1.0, 1.0 - 5e-5, *flat[:4]]) == pytest.approx(1e-4), "a gain below 1e-4 is none"
    assert rate([*flat[:5], 0.9, *flat[:4]]) == 1e-3, "a gain ends the wait"
    short = [{"kind": "training", "step": 1 + n, "loss": 1.0} for n in range(30)]
    assert RECIPE.learning_rate(29, 30, options, short) == 1e-3, "a short run is too noisy to tell"


def test_a_scan_without_right_and_left_lung_cannot_be_learned_from() -> None:
    cut = replace(toy_cut(1), lungs=None)
    turn = Turn(options_for("mueller", patch=16), 64, 0, 1)
    with pytest.raises(DataError, match="right and left lung"):
        RECIPE.example(cut, "network", np.random.default_rng(0), turn)
    assert RECIPE.needs_lungs


def test_it_learns_the_toys() -> None:
    options = options_for(
        "mueller", width=8, patch=16, batch_size=4, learning_rate=1e-2, positive_share=1.0, vary=False
    )
    assert learns(RECIPE, options, 0) < 0.3
    assert learns(RECIPE, options, 40) > 0.6
