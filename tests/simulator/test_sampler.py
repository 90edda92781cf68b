"""A stream of volumes: a pure function of seed and number, divided between workers without gaps."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from simulator.augmentation import make_volume
from simulator.augmentation_plan import VolumePlan
from simulator.cohort_fit import fit_cohort
from simulator.dynamics.engine import Controls
from simulator.fits import CohortFits
from simulator.lung_crop import read_lung_crop
from simulator.play import TextureRange
from simulator.sampler import Draw, ProgressionSampler, remake
from simulator.sampler_stream import ProgressionStream
from simulator.synthetic_crop import SyntheticCrop
from standard_space.cohort import Cohort
from standard_space.errors import DataError, ScanFileError, UsageError
from tests.simulator.scans import cohort_of, small_scan


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    healthy, bare = small_scan(patient="q"), small_scan(patient="r")
    return cohort_of(
        tmp_path_factory.mktemp("cohort") / "c",
        small_scan(scan="a"),
        small_scan(scan="b", day=3.0, shift=0.04),
        small_scan(patient="pp", scan="a"),
        replace(healthy, infection=np.zeros_like(healthy.infection)),
        replace(bare, infection=None),
    )


@pytest.fixture(scope="module")
def fits(cohort: Cohort) -> CohortFits:
    return fit_cohort(cohort)


@pytest.fixture
def sampler(cohort: Cohort, fits: CohortFits) -> ProgressionSampler:
    return ProgressionSampler(cohort, fits, seed=7)


def assert_same(one: SyntheticCrop, other: SyntheticCrop) -> None:
    np.testing.assert_array_equal(one.signal, other.signal)
    np.testing.assert_array_equal(one.infection, other.infection)
    np.testing.assert_array_equal(one.lungs, other.lungs)
    assert (one.patient, one.scan, one.day, one.corner) == (
        other.patient,
        other.scan,
        other.day,
        other.corner,
    )
    assert one.provenance == other.provenance


def test_a_volume_is_what_augment_makes(cohort: Cohort, fits: CohortFits) -> None:
    sampler = ProgressionSampler(cohort, fits, seed=7, jump=10)
    made = sampler.make(sampler.draw(4))
    draw = sampler.draw(4)
    entry = cohort.find(draw.patient, draw.scan)
    crop = read_lung_crop(cohort, entry)
    plan = VolumePlan(1, draw.play.transitions, draw.play.seed)
    volume = make_volume(crop, fits.of(entry).fit.parameters, plan, jump=10, controls=Controls())
    signal, infection = crop.signal.astype(np.float16), crop.infection.copy()
    full = np.zeros(crop.grid.shape, bool)
    full.reshape(-1)[volume.difference.index] = True
    z, y, x = (slice(c, c + s) for c, s in zip(crop.corner, signal.shape, strict=True))
    place = full[z, y, x]
    assert place.sum() == full.sum() > 50
    signal[place], infection[place] = volume.difference.signal, volume.difference.infection
    np.testing.assert_array_equal(made.signal.astype(np.float16), signal)
    np.testing.assert_array_equal(made.infection, infection)
    np.testing.assert_array_equal(made.lungs, crop.lungs)
    assert made.day == volume.day
    assert made.signal.dtype == np.float32
    assert made.spacing_mm == crop.grid.spacing_mm
    assert made.air_signal == crop.window.air_signal


def test_the_stream_is_a_pure_function_of_seed_and_number(cohort: Cohort, fits: CohortFits) -> None:
    sampler, other = (ProgressionSampler(cohort, fits, seed=7) for _ in range(2))
    first = sampler.take(7)
    late = other.make(other.draw(6))
    assert_same(first[6], late)
    for crop, again in zip(first, islice(iter(other), 7), strict=True):
        assert_same(crop, again)
    moved = ProgressionSampler(cohort, fits, seed=8)
    assert [moved.draw(k).play for k in range(5)] != [sampler.draw(k).play for k in range(5)]
    assert len({sampler.draw(k).play.seed for k in range(100)}) == 100


def test_every_scan_comes_up_once_in_a_round(sampler: ProgressionSampler) -> None:
    names = [(draw.patient, draw.scan) for draw in map(sampler.draw, range(30))]
    rounds = [names[k : k + 3] for k in range(0, 30, 3)]
    assert all(len(set(one)) == 3 for one in rounds)
    assert len({tuple(one) for one in rounds}) > 2


def test_scans_can_come_several_times_in_a_row(cohort: Cohort, fits: CohortFits) -> None:
    sampler = ProgressionSampler(cohort, fits, seed=7, in_a_row=4)
    draws = [sampler.draw(k) for k in range(12)]
    blocks = [{(d.patient, d.scan) for d in draws[k : k + 4]} for k in (0, 4, 8)]
    assert all(len(block) == 1 for block in blocks)
    assert len(set.union(*blocks)) == 3
    assert len({d.play.seed for d in draws}) == 12


def test_what_cannot_be_used_is_left_out_and_named(sampler: ProgressionSampler, fits: CohortFits) -> None:
    assert [entry.name for entry in sampler.entries] == ["p/a", "p/b", "pp/a"]
    assert sampler.left_out == {"q/a": "no infection", "r/a": "no infection mask"}
    fewer = replace(fits, fits=[fit for fit in fits.fits if fit.patient == "p"])
    limited = ProgressionSampler(sampler.cohort, fewer, seed=1)
    assert "no fit" in limited.left_out["pp/a"]
    assert {limited.draw(k).patient for k in range(20)} == {"p"}
    with pytest.raises(UsageError, match="not used"):
        limited.make(replace(limited.draw(0), patient="pp", scan="a"))
    with pytest.raises(DataError, match="no scan of the cohort can be played on"):
        ProgressionSampler(sampler.cohort, replace(fits, fits=[]), seed=1)


def test_parts_of_the_stream_make_up_the_stream(sampler: ProgressionSampler) -> None:
    whole = sampler.take(6)
    parts = [list(islice(sampler.sharded(i, 3), 2)) for i in range(3)]
    for number, crop in enumerate(whole):
        assert_same(crop, parts[number % 3][number // 3])
    with pytest.raises(UsageError, match="no such part"):
        sampler.sharded(3, 3)


def test_a_volume_is_made_again_from_its_provenance_alone(cohort: Cohort, fits: CohortFits) -> None:
    texture = TextureRange(gamma=(1.0, 3.0), correlation_mm=(4.0, 8.0))
    sampler = ProgressionSampler(cohort, fits, seed=7, controls=texture, margin_mm=12.0)
    for crop in sampler.take(3):
        recorded = json.loads(json.dumps(crop.provenance))
        assert str(cohort.folder) not in json.dumps(recorded)
        assert_same(crop, remake(cohort, recorded))
        assert_same(crop, sampler.make(Draw.from_json(recorded["draw"])))
    with pytest.raises(UsageError, match="not a volume of"):
        remake(cohort, {"operation": "augment"})
    with pytest.raises(UsageError, match="not the record of a draw"):
        Draw.from_json({"number": 1})


def test_a_margin_adds_what_lies_around(cohort: Cohort, fits: CohortFits) -> None:
    tight, wide, whole = (ProgressionSampler(cohort, fits, seed=7, margin_mm=m) for m in (0.0, 30.0, 1e4))
    inner, outer, everything = (s.make(s.draw(2)) for s in (tight, wide, whole))
    offset = [i - o for i, o in zip(inner.corner, outer.corner, strict=True)]
    assert min(offset) > 0
    box = tuple(slice(o, o + s) for o, s in zip(offset, inner.signal.shape, strict=True))
    for name in ("signal", "infection", "lungs"):
        np.testing.assert_array_equal(getattr(outer, name)[box], getattr(inner, name))
    assert outer.infection.sum() == inner.infection.sum()
    scan = cohort.read(cohort.find(inner.patient, inner.scan))
    assert everything.signal.shape == scan.grid.shape
    untouched = ~(everything.infection | scan.infection | scan.susceptible)
    np.testing.assert_array_equal(everything.signal[untouched], scan.signal[untouched])
    np.testing.assert_array_equal(everything.lungs, scan.lungs)


def test_sources_beyond_the_memory_are_read_again(
    cohort: Cohort, fits: CohortFits, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: Counter[str] = Counter()

    def counted(cohort: Cohort, entry: Any) -> Any:
        reads[entry.name] += 1
        return read_lung_crop(cohort, entry)

    monkeypatch.setattr("simulator.sampler.read_lung_crop", counted)
    roomy = ProgressionSampler(cohort, fits, seed=7)
    assert roomy.warm() == 3
    plenty = roomy.take(9)
    assert set(reads.values()) == {1}
    per_scan = roomy.held_gb / 3
    assert per_scan > plenty[0].signal.nbytes / 1e9
    reads.clear()
    tight = ProgressionSampler(cohort, fits, seed=7, memory_gb=2.4 * per_scan)
    assert tight.warm() == 2
    for one, other in zip(plenty, tight.take(9), strict=True):
        assert_same(one, other)
        assert tight.held_gb <= tight.memory_gb
    assert reads.total() > 3
    none = ProgressionSampler(cohort, fits, seed=7, memory_gb=0.0)
    assert_same(none.make(none.draw(3)), plenty[3])


def test_volumes_do_not_share_what_can_be_written(sampler: ProgressionSampler) -> None:
    draw = sampler.draw(0)
    first = sampler.make(draw)
    kept = first.signal.copy()
    first.signal[:] = 9.0
    first.infection[:] = True
    np.testing.assert_array_equal(sampler.make(draw).signal, kept)
    with pytest.raises(ValueError, match="read-only"):
        first.lungs[0, 0, 0] = True


def test_an_altered_source_is_told(tmp_path: Path, fits: CohortFits) -> None:
    cohort = cohort_of(tmp_path / "c", small_scan(scan="a"))
    sampler = ProgressionSampler(cohort, fits, seed=7)
    made = sampler.take(1)[0]
    changed = cohort_of(tmp_path / "c", small_scan(scan="a", shift=0.01))
    with pytest.raises(ScanFileError, match="altered"):
        ProgressionSampler(cohort, fits, seed=7).take(1)
    with pytest.raises(ScanFileError, match="altered"):
        remake(changed, made.provenance)
    (tmp_path / "c" / "p_a.h5").unlink()
    with pytest.raises(ScanFileError, match="no such scan file"):
        ProgressionSampler(cohort, fits, seed=7).take(1)


@pytest.mark.parametrize(
    "wrong", [{"memory_gb": -1.0}, {"in_a_row": 0}, {"margin_mm": -1.0}, {"days": (2.0, 1.0)}, {"jump": 0}]
)
def test_arguments_that_cannot_be_used(cohort: Cohort, fits: CohortFits, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        ProgressionSampler(cohort, fits, seed=1, **wrong)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_gives_the_stream_whatever_its_workers(
    sampler: ProgressionSampler, workers: int
) -> None:
    sampler.warm()
    stream = ProgressionStream(sampler, volumes=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads
        items = list(DataLoader(stream, batch_size=None, num_workers=workers))
    assert len(items) == 5
    for crop, item in zip(sampler.take(5), items, strict=True):
        assert item["signal"].dtype == torch.float32
        assert item["infection"].dtype == item["lungs"].dtype == torch.bool
        np.testing.assert_array_equal(item["signal"][0], crop.signal)
        np.testing.assert_array_equal(item["infection"][0], crop.infection)
        assert json.loads(item["provenance"]) == crop.provenance
        assert (item["patient"], item["day"], item["air_signal"]) == (crop.patient, crop.day, crop.air_signal)


def test_ranks_share_the_stream(sampler: ProgressionSampler) -> None:
    def cut(item: dict[str, Any]) -> tuple[torch.Tensor, str]:
        return item["signal"][:, :8, :8, :8], item["provenance"]

    ranks = [list(ProgressionStream(sampler, cut, shard=(r, 2), volumes=2)) for r in range(2)]
    whole = [json.dumps(crop.provenance) for crop in sampler.take(4)]
    assert [ranks[k % 2][k // 2][1] for k in range(4)] == whole
    batch = next(iter(DataLoader(ProgressionStream(sampler, cut), batch_size=3)))
    assert batch[0].shape == (3, 1, 8, 8, 8)
    with pytest.raises(UsageError, match="no such part"):
        ProgressionStream(sampler, shard=(2, 2))
    with pytest.raises(UsageError, match="negative"):
        ProgressionStream(sampler, volumes=-1)
