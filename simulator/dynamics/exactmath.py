"""exp and log from correctly rounded operations only (+ - * / floor ldexp frexp).

Library versions of exp and log may differ in the last bit from one machine to the next. Everything that
decides a voxel's fate is computed with these instead, in a fixed order, so that every IEEE processor gets
the same bits. Relative error about 1e-15.
"""

from __future__ import annotations

import math

from simulator.dynamics._jit import kernel

_LOG2_E = 1.4426950408889634
_LN2_HIGH = 6.93147180369123816490e-01  # ln 2 split in two, so that k * high is exact for small k
_LN2_LOW = 1.90821492927058770002e-10
_SQRT_HALF = 0.7071067811865476


@kernel
def exact_exp(x: float) -> float:
    """exp(x); 0 below -700, exp(700) above 700."""
    if x < -700.0:
        return 0.0
    if x > 700.0:
        x = 700.0
    k = math.floor(x * _LOG2_E + 0.5)
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    total = 1.0
    for i in range(14, 0, -1):
        total = 1.0 + total * r / i
    return math.ldexp(total, k)


@kernel
def exact_log(x: float) -> float:
    """Natural logarithm of a positive number."""
    mantissa, exponent = math.frexp(x)
    if mantissa < _SQRT_HALF:
        mantissa = mantissa * 2.0
        exponent -= 1
    s = (mantissa - 1.0) / (mantissa + 1.0)
    s2 = s * s
    total = 0.0
    for i in range(23, 0, -2):
        total = total * s2 + 1.0 / i
    return 2.0 * s * total + exponent * _LN2_LOW + exponent * _LN2_HIGH


@kernel
def exact_power(base: float, exponent: float) -> float:
    """base ** exponent for base >= 0; 0 ** 0 is 1."""
    if exponent == 0.0:
        return 1.0
    if base <= 0.0:
        return 0.0
    return exact_exp(exponent * exact_log(base))
