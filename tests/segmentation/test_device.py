from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from segmentation import device
from segmentation.device import (
    channels_last,
    choose_precision,
    out_of_memory,
    slices_at_once,
    weights_channels_last,
)
from standard_space.errors import DataError

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": True, "avx512_bw": True}, torch.float32),
        ({"avx2": True}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_reduced_precision_only_where_it_is_faster(
    features: dict[str, bool], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features, raising=False)
    assert choose_precision(CPU) == expected
    assert choose_precision(CPU, "float32") == torch.float32
    assert choose_precision(CPU, "bfloat16") == torch.bfloat16


@pytest.mark.parametrize(
    ("major", "expected"), [(7, torch.float32), (8, torch.bfloat16), (9, torch.bfloat16)]
)
def test_a_gpu_that_emulates_bfloat16_gets_float32(
    major: int, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda where: SimpleNamespace(major=major))
    assert choose_precision(GPU) == expected


def test_an_old_torch_that_does_not_tell_gets_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert choose_precision(CPU) == torch.float32


def test_a_pass_fits_the_caches_or_half_the_gpu_s_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert slices_at_once(CPU, 304 * 384, 16) == 1
    assert slices_at_once(CPU, 64 * 64, 16) == 32
    free = {"bytes": 0}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda where: (free["bytes"], 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda where: 3 * 2**30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda where: 2 * 2**30)
    found = []
    for gigabytes in (0, 2, 70):
        free["bytes"] = gigabytes * 2**30
        found.append(slices_at_once(GPU, 512 * 512, 16))
    assert found[0] >= 1
    assert found[0] < found[1] < found[2] == device._GPU_SLICES_AT_ONCE


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    ],
)
def test_a_lack_of_memory_is_told_in_a_sentence(error: Exception) -> None:
    with pytest.raises(DataError, match="memory does not suffice"), out_of_memory(CPU):
        raise error
    with pytest.raises(RuntimeError, match="shape"), out_of_memory(CPU):
        raise RuntimeError("shape mismatch")


def network_of(dimensions: int) -> torch.nn.Sequential:
    torch.manual_seed(dimensions)
    convolution, norm = (
        (torch.nn.Conv2d, torch.nn.BatchNorm2d)
        if dimensions == 2
        else (torch.nn.Conv3d, torch.nn.BatchNorm3d)
    )
    return torch.nn.Sequential(
        convolution(2, 3, 3, padding=1), norm(3), torch.nn.ReLU(), convolution(3, 1, 1)
    )


@pytest.mark.parametrize("dimensions", [2, 3])
def test_channels_last_is_a_layout_and_changes_no_value(dimensions: int) -> None:
    plain, laid_out = network_of(dimensions), weights_channels_last(network_of(dimensions))
    layout = torch.channels_last if dimensions == 2 else torch.channels_last_3d
    weight = next(laid_out.parameters())
    assert weight.is_contiguous(memory_format=layout)
    assert not weight.is_contiguous()
    stack = torch.randn(2, 2, *(8,) * dimensions)
    assert channels_last(stack).is_contiguous(memory_format=layout)
    assert torch.equal(channels_last(stack), stack)
    torch.testing.assert_close(laid_out(channels_last(stack)), plain(stack))
    laid_out.load_state_dict(plain.state_dict())
    assert next(laid_out.parameters()).is_contiguous(memory_format=layout)
