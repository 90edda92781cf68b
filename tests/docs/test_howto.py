"""From a folder of DICOM to a film, as the how-to has it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.main import main
from standard_space.image import read_image
from tests.segmentation.images import write_chest_series

ROOT = Path(__file__).parents[2]


def test_a_folder_of_dicom_becomes_a_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs/howto.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"<!-- executed by tests/docs/test_howto.py -->\n```bash\n(.*?)```", text, re.S)
    first, *lines = block.splitlines()
    monkeypatch.chdir(tmp_path)
    write_chest_series(tmp_path / "scan")
    written = re.fullmatch(r"printf '(.*)' > (manifest\.csv)", first)
    assert written is not None
    Path(written.group(2)).write_text(written.group(1).replace("\\n", "\n"), encoding="utf-8")
    assert len(lines) == 4
    for line in lines:
        words = shlex.split(line)
        result = CliRunner().invoke(main, words[1:])
        assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception!r}"
        if words[1] == "simulate":
            assert "not with a fit" in result.output
    native = read_image(tmp_path / "scan").geometry
    days = sorted((tmp_path / "film").glob("day*_image.nii.gz"))
    assert len(days) == 11
    assert read_image(days[-1]).geometry.same_as(native)
    assert (tmp_path / "film/progression.gif").is_file()
    assert (tmp_path / "page/index.html").is_file()
