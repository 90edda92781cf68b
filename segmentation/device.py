"""Where and in which precision the networks run."""

from __future__ import annotations

from typing import Any

import torch

from standard_space.errors import UsageError

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

    "auto" takes bfloat16 where it is faster: on a GPU that has it, and on a processor with AMX or
    AVX512-BF16. Anywhere else it is several times slower than float32, so float32 is taken.

    Raises
    ------
    UsageError
        Unknown precision.
    """
    if precision not in PRECISIONS:
        raise UsageError("unknown precision", got=precision, expected=", ".join(PRECISIONS))
    if precision != "auto":
        return torch.bfloat16 if precision == "bfloat16" else torch.float32
    fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bfloat16()
    return torch.bfloat16 if fast else torch.float32


def _cpu_has_bfloat16() -> bool:
    # Public only in recent versions of torch; without it the safe answer is no.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
