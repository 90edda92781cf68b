"""Where and in which precision the networks run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from standard_space.errors import DataError, UsageError

PRECISIONS = ("auto", "float32", "bfloat16")


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """Return the device to compute on; "auto" takes a GPU when there is one.

    Raises
    ------
    UsageError
        Unknown device, or a GPU that is not there.
    """
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise UsageError("unknown device", got=device, expected="auto, cpu, cuda or cuda:N") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UsageError("there is no such GPU", got=device, remedy="use --device cpu or auto")
    return chosen


def choose_precision(device: torch.device, precision: str = "auto") -> torch.dtype:
    """Return the number type of the networks' arithmetic for prediction.

    "auto" takes bfloat16 where it is faster: on a GPU that has it, and on a processor with AMX. With AVX512-BF16
    alone it is slower than float32 for these networks (docs/segmentation.md), and elsewhere several times slower.

    Raises
    ------
    UsageError
        Unknown precision.
    """
    if precision not in PRECISIONS:
        raise UsageError("unknown precision", got=precision, expected=", ".join(PRECISIONS))
    if precision != "auto":
        return torch.bfloat16 if precision == "bfloat16" else torch.float32
    if device.type == "cuda":
        # Older ones only emulate it, which PyTorch counts as support.
        fast = torch.cuda.get_device_properties(device).major >= _AMPERE
    else:
        fast = cpu_has("amx_bf16")
    return torch.bfloat16 if fast else torch.float32


def cpu_has(feature: str) -> bool:
    """Whether the processor has a feature of its instruction set, for example "amx_bf16" or "avx512_bw"."""
    # Public only in recent versions of torch; without it the safe answer is no.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get(feature))


_AMPERE = 8
"""Major compute capability of the first GPUs with bfloat16."""

_CPU_PIXELS_AT_ONCE = 8 * 128 * 128
"""What a pass computes should stay in the processor's caches: larger batches are slower per slice."""

_GPU_SLICES_AT_ONCE = 64
_BYTES_PER_PIXEL_AND_CHANNEL = 24
"""Of activations alive at once in a U-Net, per pixel of the image and channel of its first level, generously."""


def slices_at_once(device: torch.device, pixels: int, width: int) -> int:
    """Return how many slices of so many pixels a prediction should compute in one pass.

    Half the free memory of a GPU at most; on a CPU, what the caches hold.
    """
    if device.type != "cuda":
        return max(1, _CPU_PIXELS_AT_ONCE // pixels)
    free, _ = torch.cuda.mem_get_info(device)
    # What PyTorch has reserved and does not use is free for it as well.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    fitting = int(free // 2 // (pixels * width * _BYTES_PER_PIXEL_AND_CHANNEL))
    return max(1, min(fitting, _GPU_SLICES_AT_ONCE))


def channels_last(tensor: Tensor) -> Tensor:
    """Return a batch of images (B, C, y, x) or volumes (B, C, z, y, x) with its channels last in memory."""
    return tensor.to(memory_format=_CHANNELS_LAST[tensor.dim()])


def weights_channels_last(network: nn.Module) -> nn.Module:
    """Lay out the weights of a network's convolutions with their channels last, in place; return the network.

    Predictions on a CPU are faster so. Training steps are only with some networks, see `Recipe.channels_last`.
    """
    for parameter in network.parameters():
        if parameter.dim() in _CHANNELS_LAST:
            parameter.data = channels_last(parameter.data)
    return network


_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
"""By the number of a tensor's axes."""


@contextmanager
def out_of_memory(device: torch.device) -> Iterator[None]:
    """Answer a lack of memory for a prediction with a sentence.

    Raises
    ------
    DataError
    """
    remedy = (
        "close what else runs there, or use --device cpu" if device.type == "cuda" else "free some memory"
    )
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise DataError("the memory does not suffice", where=str(device), remedy=remedy) from error
    except RuntimeError as error:
        # What PyTorch says on a CPU, and CUDA of a card that others have filled, has no class of its own.
        if not any(words in str(error) for words in ("can't allocate memory", "out of memory")):
            raise
        raise DataError("the memory does not suffice", where=str(device), remedy=remedy) from error
