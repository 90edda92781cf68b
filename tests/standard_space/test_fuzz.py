"""Damaged, random and absurd files: one clear sentence, never a crash, never runaway memory (hypothesis)."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from standard_space.errors import LungcastError
from standard_space.geometry import Geometry
from standard_space.image import inspect_image, read_image, read_mask, write_volume
from standard_space.manifest import inspect_manifest
from standard_space.scanfile import read_meta, read_scan
from tests.standard_space.nifti import write_nifti

fuzz = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

WHERE = Geometry((9, 8, 7), (1.5, 1.5, 2.0), (3.0, -4.0, 5.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))


def told(action: Callable[..., Any], *arguments: Any) -> str | None:
    """What a user is told; None when there was nothing to say. Any other exception is a failure."""
    try:
        action(*arguments)
    except LungcastError as error:
        return str(error)
    return None


def answers(path: Path) -> None:
    """Reading gives an image, or one sentence that names the file."""
    for read in (read_image, inspect_image):
        sentence = told(read, path)
        if sentence is not None:
            assert "\n" not in sentence
            assert path.name in sentence


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    hu = np.random.default_rng(0).integers(-1000, 300, WHERE.shape).astype(np.int16)
    contents = {}
    for suffix in (".nii", ".nii.gz", ".nrrd", ".mha"):
        write_volume(folder / f"a{suffix}", hu, WHERE)
        contents[suffix] = (folder / f"a{suffix}").read_bytes()
    return contents


@fuzz
@given(data=st.data())
def test_damaged_images(whole: dict[str, bytes], tmp_path: Path, data: st.DataObject) -> None:
    """Bytes of the header and beyond overwritten, and the end cut off."""
    suffix = data.draw(st.sampled_from(sorted(whole)))
    content = bytearray(whole[suffix])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(content) - 1, 400)))
        content[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(bytes(content))
    answers(path)


@fuzz
@given(
    content=st.binary(max_size=2000),
    suffix=st.sampled_from([".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".nhdr"]),
)
def test_random_bytes(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    answers(path)


NUMBERS = st.one_of(
    st.sampled_from([0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), -float("inf"), 1000.0]),
    st.floats(-1e4, 1e4, width=32),
)


@fuzz
@given(
    sizes=st.tuples(*[st.sampled_from([-1, 0, 1, 5, 8, 300, 30000])] * 3),
    pixdim=st.tuples(*[NUMBERS] * 4),
    sform=st.lists(NUMBERS, min_size=12, max_size=12),
    codes=st.tuples(*[st.integers(-1, 5)] * 2),
    quaternion=st.tuples(*[NUMBERS] * 3),
    slope=NUMBERS,
)
def test_absurd_nifti_headers(tmp_path: Path, sizes, pixdim, sform, codes, quaternion, slope) -> None:
    path = write_nifti(
        tmp_path / "a.nii",
        dims=(3, *sizes, 1, 1, 1, 1),
        pixdim=pixdim,
        sform=(codes[0], np.array(sform).reshape(3, 4)),
        qform=(codes[1], quaternion, (0.0, 0.0, 0.0)),
        slope=slope,
        voxels=np.zeros(500),
    )
    answers(path)


@fuzz
@given(
    sizes=st.tuples(*[st.sampled_from(["-3", "0", "8", "1000", "100000", "x", ""])] * 3),
    spacing=st.tuples(*[st.sampled_from(["0", "-1", "nan", "1e99", "1", "0.7", "none"])] * 3),
    turn=st.lists(st.sampled_from(["0", "1", "-1", "nan", "inf", "1e-9"]), min_size=9, max_size=9),
    encoding=st.sampled_from(["raw", "gzip", "bzip9"]),
    text=st.sampled_from(["nrrd", "mha"]),
)
def test_absurd_text_headers(tmp_path: Path, sizes, spacing, turn, encoding, text) -> None:
    path = tmp_path / f"a.{text}"
    if text == "nrrd":
        rows = ["(" + ",".join(turn[3 * k : 3 * k + 3]) + ")" for k in range(3)]
        header = (
            f"NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: {' '.join(sizes)}\n"
            f"space directions: {' '.join(rows)}\nencoding: {encoding}\nendian: little\n\n"
        )
    else:
        header = (
            f"ObjectType = Image\nNDims = 3\nDimSize = {' '.join(sizes)}\nElementSpacing = {' '.join(spacing)}\n"
            f"TransformMatrix = {' '.join(turn)}\nCompressedData = {encoding == 'gzip'}\n"
            "ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
        )
    path.write_bytes(header.encode() + bytes(1024))
    answers(path)


def test_a_header_of_a_thousand_million_voxels_allocates_nothing(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = (1000, 1000, 1000)
    write_nifti(tmp_path / "a.nii", dims=(3, *size, 1, 1, 1, 1), voxels=np.zeros(9))
    (tmp_path / "a.nrrd").write_bytes(
        b"NRRD0004\ntype: double\ndimension: 3\nspace: left-posterior-superior\nsizes: 900 800 700\n"
        b"space directions: (1,0,0) (0,1,0) (0,0,1)\nencoding: gzip\nendian: little\n\n" + bytes(99)
    )
    (tmp_path / "a.mha").write_bytes(
        b"ObjectType = Image\nNDims = 3\nDimSize = 900 800 700\nElementSpacing = 1 1 1\n"
        b"TransformMatrix = 1 0 0 0 1 0 0 0 1\nElementType = MET_DOUBLE\nElementDataFile = LOCAL\n"
        + bytes(99)
    )
    for name in ("a.nii", "a.nrrd", "a.mha"):
        with pytest.raises(LungcastError, match=r"too many voxels|truncated"):
            read_image(tmp_path / name)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


@fuzz
@given(content=st.one_of(st.binary(max_size=400), st.text(max_size=400).map(str.encode)))
def test_random_manifests(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "manifest.csv"
    path.write_bytes(content)
    sentence = told(inspect_manifest, path)
    assert sentence is None or "manifest.csv" in sentence


CELLS = st.one_of(
    st.sampled_from(
        ["", "p", "a.nii.gz", "0", "-1", "nan", "1e400", "2020-03-01", "2020-13-45", "..", "a/b"]
    ),
    st.text(max_size=12).filter(lambda text: "\x00" not in text and "\n" not in text and "\r" not in text),
    st.just("x" * 5000),
)


@fuzz
@given(rows=st.lists(st.lists(CELLS, min_size=1, max_size=10), max_size=5), dated=st.booleans())
def test_manifests_of_odd_rows(tmp_path: Path, rows: list[list[str]], dated: bool) -> None:
    """Every row is either usable or has a problem that says which."""
    header = (
        f"patient,scan,{'date' if dated else 'day'},image,infection,lungs,window_level,window_width,stage"
    )
    lines = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    (tmp_path / "a.nii.gz").touch()
    path = tmp_path / "manifest.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8", errors="replace")
    sentence = told(inspect_manifest, path)
    if sentence is not None:
        assert not rows or "readable" in sentence
        return
    found, problems = inspect_manifest(path)
    assert len(found) + len(problems) == len(rows)
    for problem in problems:
        assert "manifest.csv" in str(problem)
        assert "\n" not in str(problem)


@fuzz
@given(content=st.binary(max_size=600))
def test_random_scan_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(content if content[:1] != b"h" else b"\x89HDF\r\n\x1a\n" + content)
    for read in (read_meta, read_scan):
        with pytest.raises(LungcastError, match="scan file"):
            read(path)


@fuzz
@given(values=st.lists(NUMBERS, min_size=4, max_size=4))
def test_masks_of_odd_values(tmp_path: Path, values: list[float]) -> None:
    array = np.zeros(WHERE.shape, np.float32)
    array.ravel()[: len(values)] = values
    write_volume(tmp_path / "m.mha", array, WHERE)
    sentence = told(read_mask, tmp_path / "m.mha", WHERE)
    if not np.isfinite(array).all():
        assert sentence is not None
        assert "NaN" in sentence
    elif (np.floor(array) != array).any():
        assert sentence is not None
        assert "fractions" in sentence
    else:
        assert sentence is None
        np.testing.assert_array_equal(read_mask(tmp_path / "m.mha", WHERE), array != 0)
