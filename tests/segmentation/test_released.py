from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor
from torch.nn import functional

from benchmarks import released_recipe
from cli.main import main
from segmentation.model import ThreeWaySegmenter
from segmentation.predict import Predictor
from segmentation.released import VIEW_OF_FILE, import_released
from segmentation.views import VIEWS, normal_axis, stacks
from standard_space.errors import DataError, UsageError

from .test_unet import randomise
from .toys import toy_scan

WIDTH = 2


def released_weights(seed: int, width: int = WIDTH) -> dict[str, Tensor]:
    """Random weights under the release's names and shapes."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}

    def drawn(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator) - 0.4

    def block(part: str, short: str, before: int, after: int) -> None:
        for k, channels in (("1", before), ("2", after)):
            weights[f"{part}.{short}conv{k}.weight"] = drawn(after, channels, 3, 3)
            norm = f"{part}.{short}norm{k}"
            for name in ("weight", "bias", "running_mean"):
                weights[f"{norm}.{name}"] = drawn(after)
            weights[f"{norm}.running_var"] = drawn(after) + 1.0
            weights[f"{norm}.num_batches_tracked"] = torch.tensor(7)

    sizes = [width * 2**k for k in range(5)]
    for k, (before, after) in enumerate(zip([5, *sizes[:3]], sizes[:4], strict=True), 1):
        block(f"encoder{k}", f"enc{k}", before, after)
    block("bottleneck", "bottleneck", sizes[3], sizes[4])
    for k in range(4, 0, -1):
        weights[f"upconv{k}.weight"] = drawn(sizes[k], sizes[k - 1], 2, 2)
        weights[f"upconv{k}.bias"] = drawn(sizes[k - 1])
        block(f"decoder{k}", f"dec{k}", sizes[k], sizes[k - 1])
    weights["conv.weight"], weights["conv.bias"] = drawn(2, width, 1, 1), drawn(2)
    return weights


def released_forward(w: dict[str, Tensor], x: Tensor) -> Tensor:
    """The release's network as its weights' names tell it: probability of the second of two classes."""

    def double(x: Tensor, part: str, short: str) -> Tensor:
        for k in "12":
            x = functional.conv2d(x, w[f"{part}.{short}conv{k}.weight"], padding=1)
            n = f"{part}.{short}norm{k}"
            x = functional.batch_norm(
                x, w[f"{n}.running_mean"], w[f"{n}.running_var"], w[f"{n}.weight"], w[f"{n}.bias"]
            ).relu()
        return x

    kept = []
    for k in range(1, 5):
        kept.append(double(x, f"encoder{k}", f"enc{k}"))
        x = functional.max_pool2d(kept[-1], 2)
    x = double(x, "bottleneck", "bottleneck")
    for k in range(4, 0, -1):
        x = functional.conv_transpose2d(x, w[f"upconv{k}.weight"], w[f"upconv{k}.bias"], stride=2)
        x = double(torch.cat([x, kept[k - 1]], dim=1), f"decoder{k}", f"dec{k}")
    return functional.conv2d(x, w["conv.weight"], w["conv.bias"]).softmax(dim=1)[:, 1]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    paths = {}
    for seed, letter in enumerate("XYZ"):
        paths[letter] = tmp_path / f"best_model-{letter}.pth"
        prefix = "module." if letter == "Y" else ""
        weights = {f"{prefix}{name}": value for name, value in released_weights(seed).items()}
        torch.save({"state_dict": weights, "epoch": 3}, paths[letter])
    return paths


@pytest.mark.parametrize(("letter", "axis"), [("X", 0), ("Y", 1), ("Z", 2)])
def test_an_imported_network_answers_as_the_release_does(
    files: dict[str, Path], letter: str, axis: int
) -> None:
    model = import_released(files)
    view = VIEW_OF_FILE[letter]
    volume = torch.rand((48, 32, 64), generator=torch.Generator().manual_seed(9)) - 0.3
    at, steps = 17, (-8, -3, 0, 3, 8)
    # Theirs lies (row, column, slice), that is (y, x, z).
    array = volume.permute(1, 2, 0)
    stack = torch.stack([array.select(axis, at + step) for step in steps])[None]
    expected = released_forward(released_weights("XYZ".index(letter)), stack)[0]
    ours = stacks(volume, view, [at], (1.0, 1.0, 1.0), -0.25, offsets_mm=steps)
    with torch.no_grad():
        found = torch.sigmoid(model.networks[view](ours))[0, 0]
    torch.testing.assert_close(found if letter == "Z" else found.T, expected, rtol=1e-4, atol=1e-5)


def test_offsets_and_origin_are_kept_in_the_model(files: dict[str, Path], tmp_path: Path) -> None:
    import_released(files).save(tmp_path / "model")
    model = ThreeWaySegmenter.load(tmp_path / "model")
    assert model.grid_size == 512
    assert model.input_window is None
    assert model.offsets_mm["xy"] == (-5.0, -2.0, 0.0, 2.0, 5.0)
    for view in ("yz", "xz"):
        np.testing.assert_allclose(model.offsets_mm[view], np.array([-8, -3, 0, 3, 8]) * 334 / 512)
    kept = model.training["imported"]
    assert kept["slice_offsets_voxels"]["X"] == [-8, -3, 0, 3, 8]
    assert set(kept["sha256"]) == {"X", "Y", "Z"}
    assert not model.knows_its_patients
    as_predicted = import_released(files, offsets="predicted", target="lungs")
    np.testing.assert_allclose(as_predicted.offsets_mm["yz"], np.array([-5, -2, 0, 2, 5]) * 334 / 512)
    assert as_predicted.target == "lungs"


def test_the_reference_width_is_the_released_one(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    weights = released_weights(0, 16)
    learned = sum(
        v.numel() for name, v in weights.items() if "running" not in name and "num_batches" not in name
    )
    torch.save({"state_dict": weights}, path)
    model = import_released(dict.fromkeys("XYZ", path))
    ours = sum(parameter.numel() for parameter in model.networks["xy"].parameters())
    # Two outputs with softmax are one with a logistic function: 16 weights and a bias less.
    assert (model.width, learned - ours) == (16, 17)


def test_the_benchmark_s_peer_gives_the_same_mask() -> None:
    model, scan = ThreeWaySegmenter.untrained(32, width=2, seed=4), toy_scan(seed=1)
    for network in model.networks.values():
        randomise(network)
    steps = np.array(released_recipe.OFFSETS)
    model.offsets_mm = {view: tuple(steps * scan.grid.spacing_mm[normal_axis(view)]) for view in VIEWS}
    views, box = Predictor(model, device="cpu", precision="float32").views(scan)
    # The lungs lie five slices from every border, so that zeros and air beyond it are never seen.
    total = views.sum(dim=0).numpy()
    threshold = float(np.median(total[scan.lungs[box]]))
    found = released_recipe.predict(
        dict(model.networks),
        scan.signal,
        scan.lungs,
        threshold,
        torch.device("cpu"),
        lambda done, total: None,
    )
    clear = np.abs(total - threshold) > 1e-3
    expected = (total > threshold) & scan.lungs[box]
    assert 0 < expected.sum() < scan.lungs.sum()
    assert np.array_equal(found[box][clear], expected[clear])
    assert clear[scan.lungs[box]].mean() > 0.9


def damaged(weights: dict[str, Tensor], change: str) -> object:
    if change == "bare":
        return weights
    if change == "one output":
        weights["conv.weight"] = weights["conv.weight"][:1]
        weights["conv.bias"] = weights["conv.bias"][:1]
    elif change == "lacking":
        del weights["decoder2.dec2conv1.weight"]
    elif change == "more":
        weights["decoder9.weight"] = torch.zeros(3)
    elif change == "shape":
        weights["bottleneck.bottleneckconv1.weight"] = torch.zeros(3, 3, 3, 3)
    elif change == "foreign":
        weights = {"layer.weight": torch.zeros(3)}
    elif change == "code":
        return {"state_dict": weights, "path": Path("x")}
    return {"state_dict": weights}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("bare", 'no weights under "state_dict"'),
        ("one output", "two outputs"),
        ("lacking", "lacks decoder2.dec2conv1.weight"),
        ("more", "more than the released network"),
        ("shape", "another shape"),
        ("foreign", "not a checkpoint of the release"),
        ("code", "holds more than tensors"),
    ],
)
def test_what_is_no_released_checkpoint_is_refused(files: dict[str, Path], change: str, message: str) -> None:
    torch.save(damaged(released_weights(1), change), files["Y"])
    with pytest.raises(DataError, match=message) as caught:
        import_released(files)
    assert "best_model-Y.pth" in str(caught.value)


def test_missing_files_and_unknown_choices_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such checkpoint"):
        import_released({**files, "Z": tmp_path / "absent.pth"})
    with pytest.raises(UsageError, match="slice offsets"):
        import_released(files, offsets="guessed")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="unknown target"):
        import_released(files, target="heart")


def test_the_command_writes_a_model_folder(files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "model"
    command = ["import-checkpoint", *(str(files[letter]) for letter in "XYZ"), str(out)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert ThreeWaySegmenter.load(out).width == WIDTH
    assert CliRunner().invoke(main, command).exit_code == 2
    assert CliRunner().invoke(main, [*command, "--force", "-q"]).exit_code == 0
    good = files["X"].read_bytes()
    weights = released_weights(0)
    weights["conv.bias"][0] = float("nan")
    torch.save({"state_dict": weights}, files["X"])
    result = CliRunner().invoke(main, [*command, "--force"])
    assert result.exit_code == 1
    assert "the checkpoint holds NaN" in result.output
    assert "best_model-X.pth" in result.output
    assert ThreeWaySegmenter.load(out).width == WIDTH
    files["X"].write_bytes(good[:-200])
    result = CliRunner().invoke(main, [*command, "--force"])
    assert result.exit_code == 1
    assert "holds more than tensors" in result.output
    assert ThreeWaySegmenter.load(out).width == WIDTH
