"""The names that the packages offer, and the code blocks of docs/api.md."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from standard_space.errors import DataError, UsageError
from tests.segmentation.toys import toy_scan

ROOT = Path(__file__).parents[2]
PACKAGES = ("standard_space", "simulator", "segmentation")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_that_is_offered_is_there(package: str) -> None:
    module = import_module(package)
    assert sorted(module._MODULES) == sorted(module.__all__)
    for name in module.__all__:
        found = getattr(module, name)
        assert found.__doc__, name
    with pytest.raises(AttributeError, match="no_such_name"):
        module.no_such_name  # noqa: B018


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_alone_imports_no_heavy_library(package: str) -> None:
    code = f"import sys, {package}; print(*(n for n in ('torch', 'numba', 'SimpleITK') if n in sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == []


def test_the_blocks_of_the_page_run_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 6
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"docs/api.md block {number}", "exec"), names)
    for name in ("day1.nii.gz", "result/quantification.json", "fits.json"):
        assert (tmp_path / name).is_file(), name


def test_a_pair_of_scans_is_fitted_as_a_cohort_s_is() -> None:
    from dataclasses import replace

    from simulator import fit_pair
    from simulator.dynamics.fit import fit_pair as fit_histograms
    from simulator.series import observe

    before, after = toy_scan("P1", "a"), replace(toy_scan("P1", "b", seed=1), day=2.0)
    found = fit_pair(before, after)
    alone = fit_histograms(observe(before).counts, observe(after).counts, 200)
    assert found.fit.parameters == alone.parameters
    assert (found.patient, found.from_scan, found.to_scan, found.transitions) == ("P1", "a", "b", 200)


def test_pairs_that_are_none_are_refused() -> None:
    from dataclasses import replace

    from simulator import fit_pair

    scan = toy_scan("P1", "a")
    later = replace(scan, day=2.0)
    with pytest.raises(UsageError, match="different patients"):
        fit_pair(scan, replace(later, patient="P2"))
    with pytest.raises(UsageError, match="different grids"):
        fit_pair(scan, replace(toy_scan("P1", "b", size=48), day=2.0))
    with pytest.raises(DataError):
        fit_pair(later, scan)
    with pytest.raises(DataError, match="no infection mask"):
        fit_pair(scan, replace(later, infection=None))
    with pytest.raises(DataError):
        fit_pair(scan, replace(later, infection=np.zeros_like(scan.lungs)))
