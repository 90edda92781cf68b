from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from segmentation.results import files as result_files
from simulator.figure_style import new_figure


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny networks gain nothing from threads and lose much where several processes share the cores.

    Set anew for every test: a parallel Numba kernel resets the OpenMP threads that torch uses as well.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty pictures: drawing takes longer than all else at a test's size."""
    monkeypatch.setattr(result_files, "overlay_figure", lambda *_, **__: new_figure(1, 1)[0])
