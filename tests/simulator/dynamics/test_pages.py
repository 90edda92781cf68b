import multiprocessing
import os
import warnings

import numpy as np
import pytest

from simulator.dynamics.pages import sparse_copy, untouched_zeros


@pytest.mark.parametrize("size", [0, 1, 70_000, 300_001])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_copies_hold_the_same_and_are_apart(size: int, dtype: type) -> None:
    array = untouched_zeros(size, dtype)
    assert array.shape == (size,)
    assert array.dtype == dtype
    assert not array.any()
    rng = np.random.default_rng(size)
    places = rng.integers(0, max(size, 1), 5)[: size and 5]
    array[places] = rng.integers(1, 200, places.size)
    copy = sparse_copy(array)
    np.testing.assert_array_equal(copy, array)
    before = array.copy()
    copy[:] = 255
    np.testing.assert_array_equal(array, before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_does_not_write_in_ours() -> None:
    # a data loader's workers fork: what they play must not reach the lesion of their parent
    array = untouched_zeros(100_000, np.uint8)
    array[5] = 1
    child = multiprocessing.get_context("fork").Process(target=array.fill, args=(9,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads
        child.start()
    child.join()
    assert child.exitcode == 0
    assert array.sum() == 1
