from __future__ import annotations

import dataclasses
import math
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from segmentation.training import TrainingItem, TrainingOptions
from segmentation.training.cut import BYTES_PER_VOXEL, CutScan
from segmentation.training.mixture import Mixture, shares_of, slices_per_scan
from segmentation.training.options import SLICES_PER_SCAN
from segmentation.training.pool import ScanPool
from segmentation.views import VIEWS
from standard_space.errors import DataError, ScanFileError, UsageError
from standard_space.scan import Scan
from tests.segmentation.toys import toy_items, toy_scan

OPTIONS = TrainingOptions(batch_size=2, patch=16)


def marked_items(count: int, loaded: list[int], *, synthetic: bool = False) -> list[TrainingItem]:
    """Scans whose signal is their number over 100; `loaded` hears of each reading."""

    def load(number: int) -> Scan:
        loaded.append(number)
        scan = toy_scan(f"P{number}")
        return dataclasses.replace(scan, signal=np.full_like(scan.signal, number / 100))

    return [
        TrainingItem(f"P{k}/S1", synthetic, lambda k=k: load(k), grid_size=32)  # type: ignore[misc]
        for k in range(count)
    ]


def number_of(cut: CutScan) -> int:
    return round(float(cut.signal.max()) * 100)


def drawn(pool: ScanPool, examples: range, view: str = "xy") -> list[int]:
    return [number_of(pool.draw(view, e, np.random.default_rng(e))) for e in examples]


def test_more_scans_than_memory_stream_through_without_reading_twice_in_a_pass() -> None:
    loaded: list[int] = []
    pool = ScanPool(marked_items(5, loaded), OPTIONS, held=2, draws_per_volume=10, note=lambda text: None)
    found = drawn(pool, range(40))
    assert set(found) == {0, 1, 2, 3, 4}
    assert len(loaded) == len(set(loaded)) == 5
    for first in range(0, 40, 10):
        window = {pool.volume_at("xy", first // 10 + place) for place in range(2)}
        assert set(found[first : first + 10]) == window
    assert len(pool._cache) <= 3


def test_every_view_reads_each_scan_once_in_a_pass() -> None:
    loaded: list[int] = []
    pool = ScanPool(marked_items(12, loaded), OPTIONS, held=2, draws_per_volume=10, note=lambda text: None)
    for view in VIEWS:
        before = len(loaded)
        drawn(pool, range(100), view)
        assert len(loaded) - before <= 12
        assert len(pool._cache) <= 3


def test_a_short_run_draws_from_every_scan_in_every_view() -> None:
    options = TrainingOptions(batch_size=8, patch=16, memory_mb=4, vary=False)
    loaded: list[int] = []
    items = marked_items(40, loaded), [*marked_items(90, loaded, synthetic=True)[40:]]
    mixture = Mixture(*items, None, options, print, steps=150)
    assert mixture._pools[1].held < 40
    assert mixture._pools[1].draws_per_volume == 2 * (600 // 40)
    for view in VIEWS:
        planned = mixture.drawn(view, 150)
        assert (len(planned["original"]), len(planned["synthetic"])) == (40, 50)
    assert mixture.steps_for_all("original") <= 150
    assert not loaded
    short = {kind: len(found) for kind, found in mixture.drawn("yz", 20).items()}
    for number in range(8 * 20):
        mixture.example("yz", number)
    assert short == {
        "original": sum(n < 40 for n in set(loaded)),
        "synthetic": sum(n >= 40 for n in set(loaded)),
    }
    assert short["synthetic"] < 50


@pytest.mark.parametrize(
    ("slices", "scans", "expected"), [(8000, 201, 39), (8000, 2010, 8), (1e9, 201, 64), (math.inf, 3, 64)]
)
def test_slices_after_which_a_scan_is_exchanged(slices: float, scans: int, expected: int) -> None:
    assert slices_per_scan(slices, scans) == expected


def test_what_is_drawn_does_not_depend_on_what_is_loaded() -> None:
    def pool() -> ScanPool:
        return ScanPool(marked_items(7, []), OPTIONS, held=3, draws_per_volume=4, note=lambda text: None)

    whole = drawn(pool(), range(60))
    assert drawn(pool(), range(33, 60)) == whole[33:]
    backwards = pool()
    assert [drawn(backwards, range(e, e + 1))[0] for e in reversed(range(60))] == whole[::-1]
    assert Counter(whole).keys() == set(range(7))
    with ThreadPoolExecutor(4) as workers:
        shared = ScanPool(
            marked_items(7, []), OPTIONS, held=3, draws_per_volume=4, note=lambda text: None, ahead=8
        )
        assert [n for (n,) in workers.map(lambda e: drawn(shared, range(e, e + 1)), range(60))] == whole


def test_each_scan_comes_up_once_in_a_pass() -> None:
    pool = ScanPool(marked_items(6, []), OPTIONS, held=2, draws_per_volume=1, note=lambda text: None)
    passes = [[pool.volume_at("xy", 6 * turn + place) for place in range(6)] for turn in range(4)]
    assert all(sorted(one) == list(range(6)) for one in passes)
    assert len({tuple(one) for one in passes}) == 3
    assert passes[0] == passes[1]
    orders = {tuple(pool.volume_at(view, place) for place in range(6)) for view in VIEWS}
    assert len(orders) == 3


def test_when_all_fit_every_example_comes_from_all_scans() -> None:
    pool = ScanPool(marked_items(4, []), OPTIONS, held=9, draws_per_volume=4, note=lambda text: None)
    counts = Counter(drawn(pool, range(200)))
    assert set(counts) == {0, 1, 2, 3}
    assert min(counts.values()) > 25


def test_what_cannot_be_used_is_left_out_with_a_note() -> None:
    def damaged() -> Scan:
        raise ScanFileError("not a readable scan file", where="/secret/x.h5")

    def refused() -> Scan:
        raise OSError(5, "Input/output error")

    items = [
        TrainingItem("P1/S1", False, lambda: toy_scan(annotated=False)),
        TrainingItem(
            "P2/S1", False, lambda: dataclasses.replace(toy_scan(), lungs=np.zeros((32,) * 3, bool))
        ),
        TrainingItem("P3/S1", False, damaged),
        TrainingItem("P4/S1", False, refused),
    ]
    notes: list[str] = []
    pool = ScanPool([*items, *toy_items(1)], OPTIONS, held=5, draws_per_volume=4, note=notes.append)
    for example in range(40):
        assert pool.draw("xy", example, np.random.default_rng(example)).truth.any()
    assert sorted(notes) == [
        "P1/S1: left out of training, it has no infection annotation",
        "P2/S1: left out of training, it has no lungs",
        "P3/S1: left out, it cannot be read (not a readable scan file)",
        "P4/S1: left out, it cannot be read (Input/output error)",
    ]
    none = ScanPool(items, OPTIONS, held=2, draws_per_volume=4, note=notes.append)
    with pytest.raises(DataError, match="no scan to train on can be used"):
        none.draw("xy", 0, np.random.default_rng(0))


def test_an_error_while_loading_reaches_every_thread_and_can_be_tried_again() -> None:
    failing = [True]
    gate = threading.Barrier(2)

    def load() -> Scan:
        if failing[0]:
            gate.wait(timeout=5)
            raise MemoryError
        return toy_scan()

    pool = ScanPool([TrainingItem("P", False, load)], OPTIONS, held=1, draws_per_volume=4, note=print)
    with ThreadPoolExecutor(2) as workers:
        first = workers.submit(pool.draw, "xy", 0, np.random.default_rng(0))
        gate.wait(timeout=5)
        assert isinstance(first.exception(), MemoryError)
    failing[0] = False
    assert pool.draw("xy", 0, np.random.default_rng(0)).truth.any()


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.25, 60), (1.0, 240)])
def test_synthetic_scans_are_drawn_at_the_stated_share(share: float, expected: int) -> None:
    options = dataclasses.replace(OPTIONS, synthetic_share=share, vary=False, batch_size=240)
    originals, synthetic = marked_items(1, []), marked_items(4, [], synthetic=True)[1:]
    batch = Mixture(originals, synthetic, None, options, print).batch("xy", 0)
    found = int((batch.stack.amax(dim=(1, 2, 3)) > 0.005).sum())
    assert abs(found - expected) <= 4 * np.sqrt(240 * share * (1 - share))


def test_batches_are_functions_of_seed_view_and_step_and_are_divided_between_ranks() -> None:
    def mixture(seed: int = 0) -> Mixture:
        options = TrainingOptions(batch_size=4, patch=16, seed=seed)
        return Mixture(toy_items(3), toy_items(2, synthetic=True, seed=9), None, options, print)

    first, again = mixture(), mixture()
    for view in VIEWS:
        assert (first.batch(view, 5).stack == again.batch(view, 5).stack).all()
    whole = first.batch("xy", 5)
    halves = [again.batch("xy", 5, rank, 2) for rank in (0, 1)]
    assert (whole.stack[0::2] == halves[0].stack).all()
    assert (whole.truth[1::2] == halves[1].truth).all()
    others = [first.batch("xy", 6), first.batch("yz", 5), mixture(1).batch("xy", 5)]
    assert not any((whole.stack == other.stack).all() for other in others)


def test_batches_drawn_ahead_by_several_threads_keep_their_order() -> None:
    options = TrainingOptions(batch_size=2, patch=16, memory_mb=1)
    ahead = Mixture(toy_items(30), (), None, options, print, ahead=True)
    plain = Mixture(toy_items(30), (), None, options, print)
    steps = range(3, 80)
    count = 0
    batches = ahead.batches("yz", steps, torch.device("meta"))
    for step, batch in zip(steps, batches, strict=True):
        assert (batch.stack == plain.batch("yz", step).stack).all()
        count += 1
    assert count == len(steps)
    begun = ahead.batches("yz", steps, torch.device("meta"))
    assert (next(begun).stack == plain.batch("yz", 3).stack).all()
    begun.close()


def test_the_memory_says_how_many_scans_are_held() -> None:
    volume_mb = 0.6 * BYTES_PER_VOXEL * 32**3 / 2**20
    loaded: list[int] = []
    options = dataclasses.replace(OPTIONS, memory_mb=1)
    mixture = Mixture(marked_items(40, loaded), (), None, options, print)
    held = int(1 / volume_mb)
    assert mixture._pools[0].held == held < 40
    assert mixture._pools[0].draws_per_volume == SLICES_PER_SCAN
    for step in range(100):
        mixture.batch("xy", step)
    assert len(loaded) == len(set(loaded)) <= held + 200 / SLICES_PER_SCAN


def test_shares_that_cannot_be() -> None:
    assert shares_of(True, True, False, OPTIONS) == {"synthetic": 0.5, "original": 0.5}
    assert shares_of(True, False, False, OPTIONS) == {"original": 1.0}
    assert shares_of(False, True, True, OPTIONS) == pytest.approx({"synthetic": 2 / 3, "on_the_fly": 1 / 3})
    with pytest.raises(UsageError, match="above 1 together"):
        shares_of(True, True, True, dataclasses.replace(OPTIONS, on_the_fly_share=0.6))
    with pytest.raises(UsageError, match="where lungs end"):
        shares_of(True, False, True, dataclasses.replace(OPTIONS, target="lungs"))
    with pytest.raises(DataError, match="no scan"):
        shares_of(False, False, False, OPTIONS)
