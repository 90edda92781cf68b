"""The README's commands as written, and every bad input on the way: one sentence, exit code 1 or 2."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from benchmarks.formats import formats_page
from cli.main import main
from standard_space.geometry import Geometry
from standard_space.image import read_image, read_mask, write_volume

ROOT = Path(__file__).parents[2]


def readme_commands() -> list[list[str]]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- executed by tests/cli/test_road.py -->\n```bash\n(.*?)```", text, re.DOTALL)
    assert block is not None
    return [shlex.split(line) for line in block.group(1).splitlines()]


def lungcast(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the README's commands have run."""
    folder = tmp_path_factory.mktemp("road")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for words in readme_commands():
            assert words[0] == "lungcast"
            result = lungcast(*words[1:])
            assert result.exit_code == 0, f"{' '.join(words)}\n{result.output}\n{result.exception!r}"
    return folder


def test_the_page_of_file_formats_is_what_was_written(road: Path) -> None:
    page = (ROOT / "docs/formats.md").read_text(encoding="utf-8")
    assert page == formats_page(road), "run `python -m benchmarks.formats ROAD docs/formats.md`"


def test_the_readme_road_leaves_what_it_says(road: Path) -> None:
    truth = json.loads((road / "data/truth.json").read_text())
    assert len(truth["patients"]) == 3
    fits = json.loads((road / "fits.json").read_text())
    assert len(fits["fits"]) == 6
    assert len(list((road / "figures").glob("phantom3-*.png"))) == 6
    assert (road / "figures/augmented.png").is_file()
    assert len(list((road / "augmented").glob("*.h5"))) == 12
    assert (road / "simulation/progression.gif").stat().st_size > 1000
    scores = json.loads((road / "scores.json").read_text())
    assert scores["space"] == "native"
    assert {row["group"] for row in scores["scans"]} == {"training"}
    assert list((road / "scores").glob("training_*.png"))
    model = json.loads((road / "model/model.json").read_text())
    assert set(model["training"]["steps_per_view"].values()) == {30}
    crossed = json.loads((road / "cv/scores.json").read_text())
    assert len(crossed["scans"]) == 6
    assert {row["group"] for row in crossed["scans"]} == {"held_out"}


def test_a_result_lies_on_its_image(road: Path) -> None:
    image = read_image(road / "data/images/phantom3-01_s1.nii.gz")
    mask = read_mask(road / "result/phantom3-01_s1_infection.nii.gz", image.geometry)
    assert mask.shape == image.array.shape
    report = json.loads((road / "result/quantification.json").read_text())
    assert report["infection_ml"] == pytest.approx(mask.sum() * image.geometry.voxel_volume_ml, rel=1e-6)


def test_info_knows_everything_on_the_road(road: Path) -> None:
    wanted = {
        "data": "phantom folder",
        "cohort": "cohort folder with 6 scans",
        "cohort/phantom3-01_s1.h5": "a scan, phantom3-01/s1",
        "augmented/phantom3-01_s1-sim1.h5": "a synthetic scan",
        "fits.json": "fits of 6 pairs",
        "simulation": "simulation folder",
        "population.json": "population of 3 patients",
        "forecast.json": "scores of 3 forecasts",
        "model": "three-way segmenter for the 64^3 grid",
        "result": "segmentation folder",
        "result-1.5": "segmentation folder",
        "cv": "crossvalidation folder",
    }
    for path, words in wanted.items():
        result = lungcast("info", road / path)
        assert result.exit_code == 0, result.output
        assert words in result.output


def test_no_path_or_name_of_the_machine_reaches_an_output(road: Path) -> None:
    for path in (
        *road.glob("cohort/*"),
        *road.glob("augmented/*"),
        *road.glob("model/*.*"),
        *road.glob("result*/*"),
        *road.glob("cv/*.*"),
        road / "fits.json",
        road / "scores.json",
    ):
        assert str(road).encode() not in path.read_bytes(), path


def fails(code: int, words: str, *arguments: str | Path) -> str:
    result = lungcast(*arguments)
    assert result.exit_code == code, f"{arguments}\n{result.output}\n{result.exception!r}"
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert words in result.output, result.output
    assert "Traceback" not in result.output
    return result.output


def test_bad_use_is_refused(road: Path, tmp_path: Path) -> None:
    cohort, image = road / "cohort", road / "data/images/phantom3-01_s1.nii.gz"
    fails(2, "no such manifest", "embed", tmp_path / "absent.csv", tmp_path / "c")
    fails(2, "out of range", "embed", road / "data/manifest.csv", tmp_path / "c", "--grid", "7")
    fails(2, "other settings", "embed", road / "data/manifest.csv", cohort, "--grid", "48")
    fails(2, "not empty", "embed", road / "data/manifest.csv", road / "figures", "--grid", "64")
    fails(2, "LEVEL,WIDTH", "embed", road / "data/manifest.csv", tmp_path / "c", "--window", "wide")
    fails(2, "--jobs", "embed", road / "data/manifest.csv", tmp_path / "c", "--jobs", "0")
    fails(2, "no such manifest", "check", tmp_path / "absent.csv")
    scan = cohort / "phantom3-01_s1.h5"
    fails(2, "not an image format", "restore", scan, tmp_path / "back.txt")
    fails(1, "carries no lobes", "restore", scan, tmp_path / "back.nii.gz", "--what", "lobes")
    fails(2, "--what", "restore", scan, tmp_path / "back.nii.gz", "--what", "heart")
    fails(1, "no such scan file", "restore", cohort / "absent.h5", tmp_path / "back.nii.gz")
    lone = tmp_path / "lone" / "volume.h5"
    lone.parent.mkdir()
    shutil.copy(road / "augmented/phantom3-01_s1-sim1.h5", lone)
    fails(2, "--sources", "restore", lone, tmp_path / "back.nii.gz")
    fails(2, "not a lungcast cohort", "fit", road / "data", "--json", tmp_path / "f.json")
    fails(2, "negative", "augment", cohort, tmp_path / "a", "--ratio", "-10%")
    fails(1, "no such fits file", "augment", cohort, tmp_path / "a2", "--fits", tmp_path / "absent.json")
    simulate = ("simulate", cohort, tmp_path / "s", "--patient", "phantom3-01", "--scan")
    fails(2, "one of s1, s2", *simulate, "s9")
    fails(2, "too small", *simulate, "s1", "--days", "0")
    fails(2, "--jump", *simulate, "s1", "--jump", "0")
    fails(2, "--seed", *simulate, "s1", "--seed", "-1", "--seeds", "3")
    fails(2, "--jump", "augment", cohort, tmp_path / "a3", "--jump", "0")
    fails(2, "out of range", *simulate, "s1", "--spread", "9")
    fails(2, "0..1", "train", cohort, tmp_path / "m", "--synthetic-share", "2")
    fails(1, "no such model", "segment", tmp_path / "absent", image, tmp_path / "o")
    fails(2, "no such image", "segment", road / "model", tmp_path / "absent.nii.gz", tmp_path / "o")
    fails(2, "LEVEL,WIDTH", "segment", road / "model", image, tmp_path / "o", "--window", "wide")
    fails(2, "nothing that lungcast wrote", "info", image)
    fails(2, "no such file", "info", tmp_path / "absent")
    fails(2, "out of range", "phantom", tmp_path / "p", "--patients", "0")


def test_what_the_dynamics_refuse_is_a_sentence_too(road: Path, tmp_path: Path) -> None:
    fits = json.loads((road / "fits.json").read_text())
    for stored in fits["fits"]:
        stored["fit"]["parameters"]["absorption_rate"] = 2.0
    (tmp_path / "fits.json").write_text(json.dumps(fits))
    words = ("simulate", road / "cohort", tmp_path / "s", "--patient", "phantom3-01", "--scan", "s1")
    fails(1, "absorption_rate", *words, "--fits", tmp_path / "fits.json")


def test_a_model_of_another_grid_is_refused(road: Path, tmp_path: Path) -> None:
    assert lungcast("embed", road / "data/manifest.csv", tmp_path / "c48", "--grid", "48").exit_code == 0
    fails(1, "different grids", "evaluate", road / "model", tmp_path / "c48")


def test_bad_images_fail_alone(road: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(road / "data", data)
    image = read_image(data / "images/phantom3-01_s1.nii.gz")
    where = image.geometry
    moved = Geometry(
        where.size, where.spacing_mm, (where.origin_mm[0] + 9, *where.origin_mm[1:]), where.direction
    )
    nan = image.array.copy()
    nan[5, 5, 5] = np.nan
    write_volume(data / "nan.nii.gz", nan, where)
    write_volume(data / "air.nii.gz", np.full(where.shape, -1000, np.int16), where)
    write_volume(data / "moved.nii.gz", np.ones(where.shape, bool), moved)
    write_volume(data / "empty.nii.gz", np.zeros(where.shape, bool), where)
    (data / "broken.nii.gz").write_bytes(b"junk")
    good = "images/phantom3-01_s1.nii.gz"
    rows = {
        "good": f"{good},infections/phantom3-01_s1.nii.gz",
        "nan": "nan.nii.gz,",
        "air": "air.nii.gz,",
        "moved": f"{good},moved.nii.gz",
        "broken": "broken.nii.gz,",
        "healthy": f"{good},empty.nii.gz",
    }
    lines = [f"p{name},s,0,{row}" for name, row in rows.items()]
    (data / "m.csv").write_text("\n".join(["patient,scan,day,image,infection", *lines]) + "\n")
    output = fails(1, "4 failed", "embed", data / "m.csv", tmp_path / "c", "--grid", "64")
    for words in ("NaN", "no lungs were found", "another grid", "cannot be read"):
        assert words in output
    output = fails(1, "mask is empty", "fit", tmp_path / "c", "--json", tmp_path / "fits.json")
    assert "1 pairs fitted" in output
    fails(1, "phealthy/s", "augment", tmp_path / "c", tmp_path / "a", "--fits", tmp_path / "fits.json")
    assert len(list((tmp_path / "a").glob("*.h5"))) == 2
    fails(1, "no lungs", "segment", road / "model", data / "air.nii.gz", tmp_path / "o")
