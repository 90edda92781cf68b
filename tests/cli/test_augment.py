"""augment, replay and merge as a user calls them: exit codes, sentences, the lock, a killed run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result

from cli.main import main
from simulator.augmentation_figure import chosen_for_sheet, sheet_figure
from simulator.cohort_fit import fit_cohort
from standard_space.cohort import Cohort
from standard_space.files import LOCK
from standard_space.folders import folder_lock
from standard_space.scanreader import Box, ScanReader
from tests.figures import cut_texts
from tests.simulator.scans import cohort_of, small_scan


def lungcast(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != LOCK}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cohort `c`, its fits, and its augmentation `a`."""
    folder = tmp_path_factory.mktemp("place")
    early, late = small_scan("p", "a"), small_scan("p", "b", 3.0, 0.04)
    early.stage, late.stage = "early", "late"
    cohort = cohort_of(folder / "c", early, late, small_scan("q", "a"))
    fit_cohort(cohort).save(folder / "fits.json")
    result = lungcast(
        "augment", folder / "c", folder / "a", "--fits", folder / "fits.json", "--ratio", "200%"
    )
    assert result.exit_code == 0, result.output
    assert "6 synthetic scans of 3 scans at 200%:" in result.output
    return folder


@pytest.mark.parametrize("shard", [(), ("--shard", "2/2")], ids=["whole", "shard"])
def test_a_sheet_shows_synthetic_scans_beside_their_sources(
    place: Path, tmp_path: Path, shard: tuple[str, ...]
) -> None:
    arguments = ["augment", place / "c", tmp_path / "a", "--fits", place / "fits.json", "--ratio", "200%"]
    result = lungcast(*arguments, "--figures", tmp_path / "drawn", *shard)
    assert result.exit_code == 0, result.output
    name = "augmented_shard2.png" if shard else "augmented.png"
    assert f"drawn/{name}" in result.output
    assert [path.name for path in (tmp_path / "drawn").iterdir()] == [name]
    assert not list((tmp_path / "a").glob("*.png"))  # the folder is the same to the byte with and without


@pytest.mark.parametrize("ratio", ["200", "10.5", "50"])
def test_a_forgotten_percent_sign_is_asked_about(place: Path, tmp_path: Path, ratio: str) -> None:
    result = lungcast("augment", place / "c", tmp_path / "a", "--fits", place / "fits.json", "--ratio", ratio)
    assert result.exit_code == 2
    assert f"write {ratio}%" in result.output
    assert not (tmp_path / "a").exists()


def test_a_cohort_that_nothing_can_be_made_of_is_no_success(tmp_path: Path) -> None:
    bare = replace(small_scan(), infection=None, native_infection=None)
    cohort_of(tmp_path / "c", bare)
    fitted = lungcast("fit", tmp_path / "c", "--json", tmp_path / "fits.json")
    assert fitted.exit_code == 1
    assert "no infection mask" in fitted.output
    assert "--seeds" in fitted.output
    made = lungcast("augment", tmp_path / "c", tmp_path / "a")
    assert made.exit_code == 1
    assert "no infection mask" in made.output
    played = lungcast("simulate", tmp_path / "c", tmp_path / "s", "--patient", "p", "--scan", "a")
    assert played.exit_code == 1
    assert "--seeds" in played.output
    assert "--seeds" not in made.output  # augment has no such option


def test_a_sheet_does_not_lie_among_the_scans(place: Path, tmp_path: Path) -> None:
    arguments = ["augment", place / "c", tmp_path / "a", "--fits", place / "fits.json"]
    result = lungcast(*arguments, "--figures", tmp_path / "a" / "figures")
    assert result.exit_code == 2
    assert "another folder" in result.output
    assert not (tmp_path / "a").exists()


def test_a_sheet_that_cannot_be_drawn_is_named_when_the_scans_are_told(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("simulator.figure_style.save_figure", full)
    arguments = ["augment", place / "c", tmp_path / "a", "--fits", place / "fits.json"]
    result = lungcast(*arguments, "--figures", tmp_path / "drawn")
    assert result.exit_code == 1
    assert " synthetic scans of 3 scans" in result.output
    assert "No space left" in result.output


def test_a_sheet_reads_no_whole_scan(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = Cohort.open(place / "c")
    augmented = Cohort.open(place / "a", sources=cohort)
    monkeypatch.setattr(Cohort, "read", lambda self, entry: pytest.fail("twelve scans of 512^3 are 14 GB"))
    assert len(sheet_figure(cohort, augmented, chosen_for_sheet(augmented.entries)).axes) == 18


def test_a_sheet_shows_the_lungs_of_a_healed_scan(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = Cohort.open(place / "c")
    augmented = Cohort.open(place / "a", sources=cohort)
    entry = augmented.entries[0]
    lungs = augmented.read(entry).lungs
    real = ScanReader.mask

    def healed(self: ScanReader, layer: str, box: Box) -> object:
        found = real(self, layer, box)
        return np.zeros_like(found) if layer == "infection" else found

    monkeypatch.setattr(ScanReader, "mask", healed)
    figure = sheet_figure(cohort, augmented, [entry])
    shown = np.asarray(figure.axes[1].images[0].get_array())
    np.testing.assert_array_equal(shown, augmented.read(entry).signal[int(lungs.sum((1, 2)).argmax())])


def test_a_sheet_is_spread_over_all_scans(place: Path) -> None:
    cohort = Cohort.open(place / "c")
    augmented = Cohort.open(place / "a", sources=cohort)
    chosen = chosen_for_sheet(augmented.entries, 4)
    volumes = [entry.infected_ml for entry in chosen]
    assert len({entry.name for entry in chosen}) == 4
    assert volumes == sorted(volumes, reverse=True)
    every = sorted((entry.infected_ml for entry in augmented.entries), reverse=True)
    assert (volumes[0], volumes[-1]) == (every[0], every[-1])
    entry = chosen[0]
    source = cohort.find(entry.patient, entry.scan.rsplit("-sim", 1)[0])
    figure = sheet_figure(cohort, augmented, chosen)
    scan = augmented.read(entry)
    index = int(scan.infection.sum((1, 2)).argmax())
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), cohort.read(source).signal[index])
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), scan.signal[index])
    np.testing.assert_array_equal(figure.axes[2].images[1].get_array()[..., 3] > 0, scan.infection[index])
    assert f"{entry.infected_ml:.1f} ml" in figure.axes[1].get_title()
    assert cut_texts(figure) == []


def test_shards_merge_to_the_same_bytes(place: Path, tmp_path: Path) -> None:
    for part in ("1", "2"):
        result = lungcast(
            "augment",
            place / "c",
            tmp_path / f"s{part}",
            "--fits",
            place / "fits.json",
            "--shard",
            f"{part}/2",
        )
        assert result.exit_code == 0, result.output
        assert f"of shard {part}/2" in result.output
    merged = lungcast("merge", tmp_path / "s2", tmp_path / "s1", "--into", tmp_path / "m")
    assert merged.exit_code == 0, merged.output
    assert contents(tmp_path / "m") == contents(place / "a")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    refused = lungcast("merge", tmp_path / "s1", tmp_path / "s2", "--into", tmp_path / "other", "--force")
    assert refused.exit_code == 2
    assert "only empties folders that lungcast made" in refused.output


def test_replay(place: Path, tmp_path: Path) -> None:
    volume = place / "a" / "p_b-sim2.h5"
    result = lungcast("replay", volume, "--out", tmp_path / "again.h5")
    assert result.exit_code == 0, result.output
    assert "the same bytes" in result.output
    assert (tmp_path / "again.h5").read_bytes() == volume.read_bytes()
    refused = lungcast("replay", volume, "--out", tmp_path / "again.h5")
    assert refused.exit_code == 2
    absent = lungcast("replay", place / "a" / "absent.h5")
    assert absent.exit_code == 1
    assert "no such scan file" in absent.output
    observed = lungcast("replay", place / "c" / "p_a.h5")
    assert observed.exit_code == 2
    assert "not a synthetic scan" in observed.output


def test_ratios_of_stages_and_patients(place: Path, tmp_path: Path) -> None:
    options = ("--stage-ratio", "early=3", "--patient-ratio", "q=0%")
    result = lungcast("augment", place / "c", tmp_path / "a", "--fits", place / "fits.json", *options)
    assert result.exit_code == 0, result.output
    made = [entry.name for entry in Cohort.open(tmp_path / "a").entries]
    assert sorted(made) == ["p/a-sim1", "p/a-sim2", "p/a-sim3", "p/b-sim1", "p/b-sim2"]
    for wrong, words in (
        (("--stage-ratio", "middle=1"), "no scan has this stage"),
        (("--patient-ratio", "q"), "NAME=RATIO"),
        (("--ratio", "-1"), "negative"),
        (("--shard", "3/2"), "no such shard"),
        (("--dask", "tcp://h:1", "--jobs", "2"), "exclude each other"),
    ):
        refused = lungcast("augment", place / "c", tmp_path / "b", "--fits", place / "fits.json", *wrong)
        assert refused.exit_code == 2, refused.output
        assert words in refused.output
        assert not (tmp_path / "b").exists()


def test_two_runs_into_one_folder_are_refused(place: Path) -> None:
    before = contents(place / "a")
    with folder_lock(place / "a"):
        result = lungcast("augment", place / "c", place / "a", "--fits", place / "fits.json")
    assert result.exit_code == 2
    assert "another run is writing into this folder" in result.output
    assert contents(place / "a") == before


def test_a_corrupt_source_fails_alone(place: Path, tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path / "c", small_scan("p", "a"), small_scan("q", "a"))
    fit_cohort(cohort).save(tmp_path / "fits.json")
    damaged = cohort.path(cohort.find("p", "a"))
    damaged.write_bytes(damaged.read_bytes()[:5000])
    result = lungcast("augment", tmp_path / "c", tmp_path / "a", "--fits", tmp_path / "fits.json")
    assert result.exit_code == 1
    assert "p_a.h5" in result.output
    assert "1 failed; the rest was completed" in result.output
    assert [entry.name for entry in Cohort.open(tmp_path / "a").entries] == ["q/a-sim1", "q/a-sim2"]


def test_a_lone_volume_is_replayed_from_its_source(place: Path, tmp_path: Path) -> None:
    lone = tmp_path / "lone" / "volume.h5"
    lone.parent.mkdir()
    lone.write_bytes((place / "a" / "p_b-sim2.h5").read_bytes())
    result = lungcast("replay", lone, "--sources", place / "c")
    assert result.exit_code == 0, result.output
    assert "the same bytes" in result.output
    away = lungcast("replay", lone)
    assert away.exit_code == 2
    assert "--sources" in away.output


def test_a_mistyped_option_leaves_a_finished_set_as_it_is(place: Path) -> None:
    before = contents(place / "a")
    for wrong in (
        ("--fits", place / "absent.json"),
        ("--fits", place / "absent.json", "--force"),
        ("--fits", place / "fits.json", "--dask", "nonsense"),
        ("--fits", place / "fits.json", "--ratio", "1e9"),
    ):
        result = lungcast("augment", place / "c", place / "a", *wrong)
        assert result.exit_code in (1, 2), result.output
        assert contents(place / "a") == before


def test_info_knows_trajectories(place: Path, tmp_path: Path) -> None:
    options = ("--fits", place / "fits.json", "--ratio", "0%", "--trajectories")
    assert lungcast("augment", place / "c", tmp_path / "a", *options).exit_code == 0
    result = lungcast("info", tmp_path / "a" / "p_b-trajectory.h5")
    assert result.exit_code == 0, result.output
    assert "a trajectory of p/b with 4 keyframes" in result.output


def test_its_own_fits_can_be_named(place: Path, tmp_path: Path) -> None:
    own = tmp_path / "a" / "fits.json"
    assert lungcast("augment", place / "c", tmp_path / "a", "--fits", place / "fits.json").exit_code == 0
    result = lungcast("augment", place / "c", tmp_path / "a", "--fits", own, "--force")
    assert result.exit_code == 0, result.output
    assert contents(tmp_path / "a") == contents(place / "a")


def test_a_damaged_volume_is_not_replayed(place: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "p_b-sim2.h5"
    damaged.write_bytes((place / "a" / "p_b-sim2.h5").read_bytes())
    with h5py.File(damaged, "r+") as file:
        file["changed_infection"][0] = file["changed_infection"][0] ^ 128
    for name in ("lungcast.json", "manifest.csv"):
        (tmp_path / name).write_bytes((place / "a" / name).read_bytes())
    result = lungcast("replay", damaged, "--sources", place / "c")
    assert result.exit_code == 1
    assert "damaged" in result.output


@pytest.mark.slow
def test_a_killed_command_with_workers_is_completed_by_the_next(place: Path, tmp_path: Path) -> None:
    """SIGKILL to the parent of two workers, at moments spread over the run; its orphans end by themselves."""
    command = [sys.executable, "-m", "cli.main", "augment", str(place / "c"), str(tmp_path / "a")]
    command += ["--fits", str(place / "fits.json"), "--ratio", "3000%", "--jobs", "2", "-q"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    begun = time.monotonic()
    whole = [word.replace(str(tmp_path / "a"), str(tmp_path / "whole")) for word in command]
    subprocess.run(whole, check=True, env=environment)
    lasts = time.monotonic() - begun
    for share in (0.3, 0.6, 0.7, 0.8, 0.9):
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        time.sleep(share * lasts)
        process.kill()
        process.wait()
        deadline = time.monotonic() + 20
        while _alive(process.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not _alive(process.pid), "a worker outlived its parent"
    subprocess.run(command, check=True, env=environment)
    assert contents(tmp_path / "a") == contents(tmp_path / "whole")


def _alive(group: int) -> bool:
    try:
        os.killpg(group, signal.SIG_DFL)
    except ProcessLookupError:
        return False
    return True
