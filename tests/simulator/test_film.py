"""Films: both formats hold every frame at the same place, and what is missing is said."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from cli.main import main
from simulator.film import Film, formats_here, video_encoder
from simulator.fits import CohortFits
from simulator.progression import progress
from standard_space.errors import UsageError
from tests.simulator.scans import cohort_of, small_scan


@pytest.fixture(scope="module")
def film() -> Film:
    from simulator.simulation import DEFAULT_DYNAMICS

    scan = small_scan()
    made = Film(scan)
    for frame in progress(scan, DEFAULT_DYNAMICS, days=1.0, every=0.5, seed=1):
        made.add(frame)
    return made


def decoded(path: Path, width: int, height: int) -> np.ndarray:
    """Frames of a video, (frame, y, x, rgb)."""
    command = [video_encoder(), "-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def test_a_gif_has_a_picture_per_frame(film: Film, tmp_path: Path) -> None:
    film.save(tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as opened:
        assert opened.n_frames == 3
        assert opened.size == (896, 368)


def test_an_mp4_shows_what_the_gif_shows(film: Film, tmp_path: Path) -> None:
    film.save(tmp_path / "film.gif")
    film.save(tmp_path / "film.mp4")
    frames = decoded(tmp_path / "film.mp4", 1344, 552)
    assert len(frames) == 18  # three of a quarter of a second, at 24 per second
    with Image.open(tmp_path / "film.gif") as opened:
        for number in range(3):
            opened.seek(number)
            still = np.asarray(opened.convert("RGB").resize((1344, 552)), np.float64)
            assert np.abs(frames[6 * number + 3] - still).mean() < 6
    assert np.abs(frames[0].astype(float) - frames[-1].astype(float)).mean() > 0.1


def test_an_mp4_is_the_same_bytes_twice_and_names_no_time(film: Film, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        film.save(tmp_path / name)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_another_ending_is_refused(film: Film, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such format of a film"):
        film.save(tmp_path / "film.avi")
    assert not list(tmp_path.iterdir())


def test_without_an_encoder_the_mp4_is_left_out_aloud(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("simulator.film.video_encoder", lambda: None)
    formats, notes = formats_here(None)
    assert formats == ("gif",)
    assert "lungcast[mp4]" in notes[0]
    with pytest.raises(UsageError, match="ffmpeg"):
        formats_here(("gif", "mp4"))
    cohort_of(tmp_path / "c", small_scan(scan="a"), small_scan(scan="b", day=2.0, shift=0.03))
    out = tmp_path / "s"
    arguments = ["simulate", str(tmp_path / "c"), str(out), "--patient", "p", "--scan", "a", "--days", "0.5"]
    refused = CliRunner().invoke(main, [*arguments, "--film", "mp4"])
    assert refused.exit_code == 2
    assert "ffmpeg" in refused.output
    assert not out.exists()
    told = CliRunner().invoke(main, arguments)
    assert told.exit_code == 0, told.output
    assert "GIF only" in told.output
    assert (out / "progression.gif").is_file()
    assert not (out / "progression.mp4").exists()


def test_the_encoder_of_the_package_is_found_without_a_system_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulator.film.shutil.which", lambda name: None)
    assert Path(video_encoder() or "").is_file()


def a_program(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_an_ffmpeg_without_the_codec_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    poor = a_program(tmp_path / "ffmpeg", "echo ' V..... mpeg4  MPEG-4 part 2'")
    monkeypatch.setattr("simulator.film.shutil.which", lambda name: poor)
    assert video_encoder() not in (None, poor)
    broken = a_program(tmp_path / "broken", "exit 1")
    monkeypatch.setattr("simulator.film.shutil.which", lambda name: broken)
    assert video_encoder() not in (None, broken)


def test_an_ffmpeg_that_fails_costs_the_film_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failing = a_program(
        tmp_path / "ffmpeg", "[ $# -eq 2 ] && echo libx264 && exit 0; cat > /dev/null; exit 3"
    )
    monkeypatch.setattr("simulator.film.shutil.which", lambda name: failing)
    cohort_of(tmp_path / "c", small_scan(scan="a"), small_scan(scan="b", day=2.0, shift=0.03))
    words = [
        "simulate",
        str(tmp_path / "c"),
        str(tmp_path / "s"),
        "--patient",
        "p",
        "--scan",
        "a",
        "--days",
        "0.5",
    ]
    told = CliRunner().invoke(main, words)
    assert told.exit_code == 0, told.output
    assert "ffmpeg could not write the film (got exit code 3" in told.output
    assert (tmp_path / "s/volumes.csv").is_file()
    assert not [
        path.name for path in (tmp_path / "s").iterdir() if ".tmp" in path.name or path.suffix == ".mp4"
    ]


def test_a_film_that_was_asked_for_and_fails_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    failing = a_program(
        tmp_path / "ffmpeg", "[ $# -eq 2 ] && echo libx264 && exit 0; cat > /dev/null; exit 3"
    )
    monkeypatch.setattr("simulator.film.shutil.which", lambda name: failing)
    cohort_of(tmp_path / "c", small_scan(scan="a"), small_scan(scan="b", day=2.0, shift=0.03))
    words = f"simulate {tmp_path}/c {tmp_path}/s --patient p --scan a --days 0.5 --film mp4 --quiet"
    asked = CliRunner().invoke(main, words.split())
    assert asked.exit_code == 1
    assert "ffmpeg could not write the film" in asked.output
    assert (tmp_path / "s/lungcast.json").is_file()  # the rest is whole


@pytest.mark.parametrize("kind", ["gif", "mp4"])
@pytest.mark.parametrize("frame", [0, 1])
def test_ctrl_c_is_ctrl_c_even_where_the_writer_fails_of_it(
    film: Film, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, frame: int
) -> None:
    failing = a_program(
        tmp_path / "ffmpeg", "[ $# -eq 2 ] && echo libx264 && exit 0; cat > /dev/null; exit 255"
    )
    monkeypatch.setattr("simulator.film.shutil.which", lambda name: failing)

    def interrupted(item: str, done: int, total: int) -> None:
        if done == frame:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        film.save(tmp_path / f"film.{kind}", progress=interrupted)
    assert [path.name for path in tmp_path.iterdir()] == ["ffmpeg"]


def test_a_folder_with_a_colon_is_no_protocol(
    film: Film, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    film.save("run-10:30/film.mp4")
    assert len(decoded(tmp_path / "run-10:30/film.mp4", 1344, 552)) == 18


def test_frames_faster_than_players_need_all_stay(film: Film, tmp_path: Path) -> None:
    film.save(tmp_path / "film.mp4", frames_per_second=48.0)
    assert len(decoded(tmp_path / "film.mp4", 1344, 552)) == 3


def test_a_simulation_tells_of_its_films(tmp_path: Path) -> None:
    cohort_of(tmp_path / "c", small_scan(scan="a"), small_scan(scan="b", day=2.0, shift=0.03))
    words = f"simulate {tmp_path}/c {tmp_path}/s --patient p --scan a --days 0.5 --progress json"
    told = CliRunner().invoke(main, words.split())
    lines = [json.loads(line) for line in told.stderr.splitlines() if line.startswith("{")]
    stages = [line["stage"] for line in lines if line["done"] == line["total"]]
    assert list(dict.fromkeys(stages)) == ["simulate", "film"]


def test_every_frame_says_where_the_infection_comes_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cohort_of(tmp_path / "c", small_scan(scan="a"))
    said: list[str] = []
    monkeypatch.setattr(
        "simulator.film.apply_style", lambda figure: said.append(figure.get_suptitle()) or figure
    )
    words = f"simulate {tmp_path}/c {tmp_path}/s --patient p --scan a --days 0.5 --seeds 3 --film gif"
    assert CliRunner().invoke(main, words.split()).exit_code == 0
    assert len(said) == 2
    for text in said:
        assert "a made-up infection from 3 seeds, default dynamics; for research, not for diagnosis" in text


def test_films_are_chosen(tmp_path: Path) -> None:
    cohort_of(tmp_path / "c", small_scan(scan="a"), small_scan(scan="b", day=2.0, shift=0.03))
    base = ["simulate", str(tmp_path / "c")]
    options = ["--patient", "p", "--scan", "a", "--days", "0.5"]
    for choice, expected in (
        ([], {"gif", "mp4"}),
        (["--film", "gif"], {"gif"}),
        (["--film", "mp4"], {"mp4"}),
    ):
        out = tmp_path / "-".join(["s", *choice[1:]])
        shown = CliRunner().invoke(main, [*base, str(out), *options, *choice])
        assert shown.exit_code == 0, shown.output
        assert {path.suffix[1:] for path in out.glob("progression.*")} == expected
        for kind in expected:
            assert f"film ({kind})" in shown.output
        assert CohortFits.load(out / "fits.json").fits
