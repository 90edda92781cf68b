"""The viewer in a real browser without a screen: it loads, moves, draws, and asks nothing of the internet."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segmentation.viewer.site import write_site
from segmentation.viewer.sources import cases_of
from standard_space.files import write_text
from standard_space.image import write_volume
from tests.segmentation.cohorts import toy_cohort
from tests.segmentation.toys import toy_scan
from tests.segmentation.viewer.test_sources import a_simulation, write_chest

pytestmark = pytest.mark.browser

CHROMIUM = os.environ.get("LUNGCAST_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    if CHROMIUM is None:
        pytest.fail("no Chromium here: install it (Debian: apt install chromium) or set LUNGCAST_CHROMIUM")
    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield running
        running.close()


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "cohort"
    scans = [replace(toy_scan("P1", f"s{day}", seed=day), day=float(day)) for day in range(3)]
    toy_cohort(folder, *scans, toy_scan("P2", "s0", seed=9, annotated=False))
    return folder


@pytest.fixture(scope="module")
def site(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    assert write_site(folder, cases_of(cohort), title="lungcast: cohort", most=64) == {}
    return folder


class Page:
    """A page with everything it asked for and complained about."""

    def __init__(self, browser: Any, address: str) -> None:
        self.page = browser.new_page(viewport={"width": 1280, "height": 720})
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda said: self._heard(said.type, said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(address)

    def _heard(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and "GPU stall" not in text:
            self.complaints.append(f"{kind}: {text}")

    def wait(self, shown: str) -> None:
        # Not by a function: the served page's policy lets nothing be evaluated.
        self.page.wait_for_selector(f"body[data-shown='{shown}']", timeout=60_000)
        self.page.wait_for_timeout(300)  # the picture follows with the next frame of the screen

    def picture(self, canvas: str = "left") -> np.ndarray:
        from matplotlib.image import imread

        return imread(io.BytesIO(self.page.locator(f"#{canvas}").screenshot()))[..., :3]

    def close(self) -> None:
        self.page.close()


@pytest.fixture
def page(browser: Any, site: Path) -> Iterator[Page]:
    opened = Page(browser, (site / "index.html").as_uri())
    opened.wait("0-0")
    yield opened
    opened.close()


def is_drawn(picture: np.ndarray) -> bool:
    grey = picture.mean(axis=2)
    return bool((grey > 0.15).mean() > 0.05 and grey.std() > 0.05)


def test_it_loads_draws_and_asks_nothing_of_the_internet(page: Page) -> None:
    assert is_drawn(page.picture())
    assert page.complaints == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in page.requests), page.requests
    assert page.page.title() == "lungcast: cohort"
    said = page.page.inner_text("#now")
    assert re.search(
        r"s0, day 0, observed: infected \d+\.\d ml, GGO \d+\.\d ml, consolidation \d+\.\d ml", said
    )


def test_everything_fits_a_small_screen(page: Page) -> None:
    height = page.page.evaluate("document.documentElement.scrollHeight")
    width = page.page.evaluate("document.documentElement.scrollWidth")
    assert (width, height) <= (1280, 720)
    assert page.page.locator("#curves svg").bounding_box()["y"] < 720 - 60
    assert page.page.locator("#left").bounding_box()["height"] > 350


def test_the_day_slider_moves_by_keyboard(page: Page) -> None:
    before = page.picture()
    page.page.focus("#day")
    page.page.keyboard.press("ArrowRight")
    page.wait("0-1")
    assert "s1, day 1, observed" in page.page.inner_text("#now")
    assert np.abs(page.picture() - before).max() > 0.1
    assert page.complaints == []


def test_it_plays_to_the_last_day_and_begins_again(page: Page) -> None:
    page.page.focus("#play")
    page.page.keyboard.press("Enter")
    page.wait("0-2")
    page.wait("0-0")
    page.page.keyboard.press("Enter")
    assert page.page.get_attribute("#play", "aria-pressed") == "false"


def test_a_point_of_the_curves_leads_to_its_day(page: Page) -> None:
    assert page.page.locator("#curves circle").count() == 9  # three days, three curves
    page.page.locator("#curves circle").nth(5).click()
    page.wait("0-2")


def test_two_times_side_by_side_at_the_same_place(page: Page) -> None:
    page.page.select_option("#compare", "2")
    page.page.wait_for_selector("#second:not([hidden])")
    page.wait("0-0")
    page.page.wait_for_timeout(700)
    assert is_drawn(page.picture("left"))
    assert is_drawn(page.picture("right"))
    assert "s2, day 2" in page.page.inner_text("#name-right")
    sizes = page.page.evaluate(
        "['left', 'right'].map((id) => document.getElementById(id))"
        ".map((it) => [it.width, it.height, it.clientWidth, it.clientHeight])"
    )
    for width, height, shown_width, shown_height in sizes:  # else the picture is stretched
        assert abs(width / shown_width - height / shown_height) < 0.01, sizes
    assert abs(sizes[0][2] - sizes[1][2]) <= 2, sizes
    assert sizes[0][3] == sizes[1][3], sizes  # the same scale left and right
    before = page.picture("right")
    page.page.focus("#left")
    for _ in range(4):
        page.page.keyboard.press("PageUp")
    page.page.wait_for_timeout(500)
    assert np.abs(page.picture("right") - before).max() > 0.1
    assert page.complaints == []


MM_PER_PIXEL = """() => ['left', 'right'].map((id) => {
    const shown = lungcast.panes[id].screenSlices[0];
    return shown.fovMM[0] / shown.leftTopWidthHeight[2];
})"""


def test_two_times_have_one_scale_whatever_their_lungs(browser: Any, tmp_path: Path) -> None:
    large = toy_scan("P1", "s0")
    z, y, x = (int(indices.mean()) for indices in np.nonzero(large.lungs))
    lungs = np.zeros_like(large.lungs)  # a part of them: it is cut closer, and would fill its pane
    part = tuple(slice(middle - 8, middle + 8) for middle in (z, y, x))
    lungs[part] = True
    small = replace(toy_scan("P1", "s1", seed=1), lungs=lungs, day=1.0)
    toy_cohort(tmp_path / "cohort", large, small)
    (tmp_path / "site").mkdir()
    assert write_site(tmp_path / "site", cases_of(tmp_path / "cohort"), title="two", most=64) == {}
    opened = Page(browser, (tmp_path / "site/index.html").as_uri())
    opened.wait("0-0")
    alone = opened.page.evaluate("lungcast.panes.left.scene.pan2Dxyzmm[3]")
    assert alone == 1
    opened.page.select_option("#compare", "1")
    opened.page.wait_for_selector("#second:not([hidden])")
    for layout in ("axial", "coronal", "sagittal", "multi"):
        opened.page.select_option("#layout", layout)
        opened.page.wait_for_timeout(700)
        opened.page.focus("#left")
        opened.page.keyboard.press("PageUp")  # what is done in one pane must not undo it
        opened.page.wait_for_timeout(400)
        left, right = opened.page.evaluate(MM_PER_PIXEL)
        assert left == pytest.approx(right, rel=0.01), layout
    assert opened.page.evaluate("lungcast.panes.left.scene.pan2Dxyzmm[3]") == pytest.approx(1, abs=0.02)
    assert opened.page.evaluate("lungcast.panes.right.scene.pan2Dxyzmm[3]") < 0.95
    opened.page.select_option("#compare", "")
    opened.page.wait_for_timeout(700)
    assert opened.page.evaluate("lungcast.panes.left.scene.pan2Dxyzmm[3]") == 1
    assert opened.complaints == []
    opened.close()


@pytest.mark.parametrize("layout", ["axial", "coronal", "sagittal", "render"])
def test_every_layout_draws(page: Page, layout: str) -> None:
    before = page.picture()
    page.page.select_option("#layout", layout)
    page.page.wait_for_timeout(500)
    assert is_drawn(page.picture())
    assert np.abs(page.picture() - before).max() > 0.1


def test_infection_has_the_colours_of_the_key_and_its_opacity(page: Page) -> None:
    def coloured(picture: np.ndarray) -> float:
        return float((picture.max(axis=2) - picture.min(axis=2) > 0.25).mean())

    page.page.select_option("#layout", "coronal")
    for name in ("lungs", "infection"):
        page.page.locator(f"#{name}").evaluate(
            "(it) => { it.value = 0; it.dispatchEvent(new Event('input')); }"
        )
    page.page.wait_for_timeout(500)
    plain = coloured(page.picture())
    page.page.locator("#infection").evaluate(
        "(it) => { it.value = 100; it.dispatchEvent(new Event('input')); }"
    )
    page.page.wait_for_timeout(500)
    shown = page.picture()
    assert coloured(shown) > plain + 0.002
    ggo = np.array([86, 180, 233]) / 255
    assert (np.abs(shown - ggo).max(axis=2) < 0.1).mean() > 0.001


def test_the_place_is_told_in_mm_and_hu(page: Page) -> None:
    page.page.focus("#left")
    page.page.keyboard.press("PageUp")
    page.page.wait_for_timeout(200)
    told = page.page.inner_text("#place")
    assert re.fullmatch(
        r"[RL] \d+, [AP] \d+, [SI] \d+ mm: -?\d+ HU(, lungs)?(, (GGO|consolidation))?", told
    ), told
    assert page.page.get_attribute("#day", "aria-valuetext") == "s0, day 0, observed"


def test_a_window_changes_the_picture(page: Page) -> None:
    before = page.picture()
    page.page.select_option("#window", "40,400")
    page.page.wait_for_timeout(500)
    assert np.abs(page.picture() - before).mean() > 0.02


def test_a_scan_without_annotation_and_another_case(page: Page) -> None:
    page.page.select_option("#case", "1")
    page.wait("1-0")
    assert is_drawn(page.picture())
    assert "infected unknown" in page.page.inner_text("#now")
    assert page.page.locator("#infection").is_disabled()
    assert page.page.locator("#time").is_hidden()
    assert page.complaints == []


def test_the_served_page_is_for_this_machine_alone(browser: Any, cohort: Path) -> None:
    command = ["view", str(cohort), "--no-browser", "--once", "--voxels", "64"]
    with subprocess.Popen(
        [sys.executable, "-m", "cli.main", *command], stdout=subprocess.PIPE, text=True
    ) as running:
        try:
            assert running.stdout is not None
            address = running.stdout.readline().strip()
            opened = Page(browser, address)
            opened.wait("0-0")
            assert is_drawn(opened.picture())
            assert opened.complaints == []
            assert all(url.startswith((address, "data:", "blob:")) for url in opened.requests), (
                opened.requests
            )
            opened.close()
            assert running.wait(timeout=30) == 0  # --once: the visitor has gone
        finally:
            running.kill()


def test_a_scan_that_cannot_be_read_says_so(browser: Any, cohort: Path, tmp_path: Path) -> None:
    broken = tmp_path / "cohort"
    shutil.copytree(cohort, broken)
    cases = cases_of(broken)
    (broken / "P1_s1.h5").write_bytes(b"nothing")
    (tmp_path / "site").mkdir()
    assert len(write_site(tmp_path / "site", cases, title="t", most=64)) == 1
    opened = Page(browser, (tmp_path / "site" / "index.html").as_uri())
    opened.wait("0-0")
    opened.page.focus("#day")
    opened.page.keyboard.press("ArrowRight")
    opened.page.wait_for_selector("#message:not([hidden])")
    assert "P1_s1.h5" in opened.page.inner_text("#message")
    opened.page.keyboard.press("ArrowRight")
    opened.wait("0-2")
    assert opened.page.locator("#message").is_hidden()
    opened.close()


def test_a_simulation_shows_lungs_and_observed_scans_that_are_no_day_of_it(
    browser: Any, tmp_path: Path
) -> None:
    folder = a_simulation(tmp_path / "simulation")
    where, lungs, _ = write_chest(folder / "day000.00_image.nii.gz")
    write_volume(folder / "lungs.nii.gz", lungs, where)
    write_text(folder / "observed.csv", "scan,day,infected_ml\ns1,0,10\ns2,4,30\n")
    assert write_site(tmp_path, cases_of(folder), title="a simulation", most=64) == {}
    opened = Page(browser, (tmp_path / "index.html").as_uri())
    opened.wait("0-0")
    beside = opened.page.locator("#curves rect.beside")
    assert beside.count() == 1
    assert "s2, observed: infected 30.0 ml" in (beside.first.text_content() or "")
    assert not opened.page.is_disabled("#lungs")
    before = opened.picture()
    opened.page.fill("#lungs", "100")
    opened.page.wait_for_timeout(300)
    assert np.abs(opened.picture() - before).max() > 0.05
    assert opened.complaints == []
    opened.close()
