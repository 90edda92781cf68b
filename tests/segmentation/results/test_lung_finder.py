from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from cli.main import main
from segmentation.evaluation.metrics import dice
from segmentation.model import ThreeWaySegmenter
from segmentation.predict import Predictor
from segmentation.results.lung_finder import LungFinder
from standard_space.errors import NoLungsError, UsageError
from standard_space.image import read_image
from tests.segmentation.images import constant_model, write_chest


def band_model() -> ThreeWaySegmenter:
    """A model of the lungs that answers by the signal of the pixel alone: neither soft tissue nor air."""
    model = ThreeWaySegmenter.untrained(32, width=2, target="lungs")
    with torch.no_grad():
        for network in model.networks.values():
            for name, parameter in network.named_parameters():
                parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
            first, last = network.down[0], network.merge[3]
            # Of -850 HU: 0.26 and 0; of air: 0.35 and 0.05; of tissue: 0 and 0.
            first.conv1.weight[:, 2, 1, 1] = -1.0
            first.norm1.bias.copy_(torch.tensor([0.1, -0.2]))
            for channel in (0, 1):
                first.conv2.weight[channel, channel, 1, 1] = 1.0
                last.conv1.weight[channel, channel, 1, 1] = 1.0
                last.conv2.weight[channel, channel, 1, 1] = 1.0
            network.head.weight[0, :, 0, 0] = torch.tensor([40.0, -1000.0])
            network.head.bias.fill_(-5.0)
    return model


def test_a_model_s_lungs_are_looked_in(tmp_path: Path) -> None:
    _, lungs, _ = write_chest(tmp_path / "chest.nii.gz")
    finder = LungFinder(Predictor(band_model(), device="cpu"))
    found = finder.find(read_image(tmp_path / "chest.nii.gz"))
    assert dice(found, lungs) > 0.75
    band_model().save(tmp_path / "lungs_model")
    constant_model(0.9).save(tmp_path / "model")
    words = ["segment", "model", "chest.nii.gz", "out", "--lungs", "lungs_model"]
    result = CliRunner().invoke(
        main, [word if k in (0, 4) else str(tmp_path / word) for k, word in enumerate(words)]
    )
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "quantification.json").read_text())
    assert report["lungs_from"] == finder.source == f"model {band_model().model_id}, sum>t, 2"
    # The same networks with another threshold find other lungs: that is another request.
    stricter = band_model()
    stricter.aggregation = stricter.aggregation.at(2.9)
    stricter.save(tmp_path / "lungs_model")
    result = CliRunner().invoke(main, [w if k in (0, 4) else str(tmp_path / w) for k, w in enumerate(words)])
    assert result.exit_code == 2
    assert "another segmentation" in result.output
    ml = np.count_nonzero(found) * read_image(tmp_path / "chest.nii.gz").geometry.voxel_volume_ml
    assert report["lungs_ml"] == pytest.approx(ml)


def test_specks_are_no_lung_and_no_lungs_are_an_error(tmp_path: Path) -> None:
    write_chest(tmp_path / "chest.nii.gz")
    image = read_image(tmp_path / "chest.nii.gz")
    hu = image.array.copy()
    speck = (slice(1, 3), slice(4, 6), slice(20, 22))
    hu[speck] = -850.0
    finder = LungFinder(Predictor(band_model(), device="cpu"))
    image.array = hu
    assert not finder.find(image)[speck].any()
    with pytest.raises(NoLungsError, match="found none"):
        LungFinder(Predictor(constant_model(0.1, target="lungs"), device="cpu")).find(image)


def test_a_model_of_the_infection_finds_no_lungs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not find the lungs"):
        LungFinder(Predictor(constant_model(0.9), device="cpu"))
