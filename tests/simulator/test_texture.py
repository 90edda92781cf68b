import numpy as np
import pytest
from scipy import ndimage

from simulator.texture import log_spectrum_error, neighbour_correlation, radial_spectrum, shuffled
from standard_space.errors import DataError

SPACING_MM = (2.0, 1.0, 1.0)


def ball() -> np.ndarray:
    z, y, x = np.indices((30, 60, 60))
    return ((z - 15) * 2) ** 2 + (y - 30) ** 2 + (x - 30) ** 2 < 26**2


def smooth(sigma_mm: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(30, 60, 60))
    return ndimage.gaussian_filter(noise, [sigma_mm / s for s in SPACING_MM], mode="wrap").astype(np.float32)


def test_independent_noise_is_flat_at_one() -> None:
    spectrum = radial_spectrum(np.random.default_rng(1).normal(size=(30, 60, 60)), ball(), SPACING_MM)
    np.testing.assert_allclose(spectrum.power[4:], 1.0, atol=0.35)
    assert spectrum.frequency_per_mm[0] >= 0.02
    assert spectrum.frequency_per_mm[-1] < 0.25  # Nyquist of the coarsest axis


def test_smooth_texture_lies_low_at_high_frequencies_whatever_its_amount() -> None:
    texture = smooth(3.0)
    spectrum = radial_spectrum(texture, ball(), SPACING_MM)
    again = radial_spectrum(5.0 * texture + 2.0, ball(), SPACING_MM)
    np.testing.assert_allclose(spectrum.power, again.power, rtol=1e-4)
    assert spectrum.power[0] > 30 * spectrum.power[-1]
    # a Gaussian filter's own law: exp(-(2 pi f sigma)^2)
    f = spectrum.frequency_per_mm
    law = np.exp(-((2 * np.pi * f * 3.0) ** 2))
    middle = (f > 0.04) & (f < 0.1)
    slope = np.polyfit(np.log(law[middle]), np.log(spectrum.power[middle]), 1)[0]
    assert slope == pytest.approx(1.0, abs=0.35)


def test_the_error_tells_textures_apart() -> None:
    reference = radial_spectrum(smooth(3.0), ball(), SPACING_MM)
    alike = log_spectrum_error(radial_spectrum(smooth(3.0, 7), ball(), SPACING_MM), reference)
    finer = log_spectrum_error(radial_spectrum(smooth(1.5), ball(), SPACING_MM), reference)
    noise = log_spectrum_error(radial_spectrum(shuffled(smooth(3.0), ball()), ball(), SPACING_MM), reference)
    assert alike < 0.25 * finer < 0.25 * noise


def test_shuffling_keeps_the_signals_and_what_is_outside() -> None:
    texture = smooth(3.0)
    mixed = shuffled(texture, ball(), seed=3)
    np.testing.assert_array_equal(np.sort(mixed[ball()]), np.sort(texture[ball()]))
    np.testing.assert_array_equal(mixed[~ball()], texture[~ball()])
    assert np.abs(neighbour_correlation(mixed, ball())).max() < 0.05
    assert min(neighbour_correlation(texture, ball())) > 0.85
    assert np.isnan(neighbour_correlation(texture, np.zeros_like(ball()))).all()


def test_what_has_no_spectrum_is_said() -> None:
    with pytest.raises(DataError, match="too small"):
        radial_spectrum(smooth(1.0), ball() & (np.indices((30, 60, 60))[0] < 2), SPACING_MM)
    with pytest.raises(DataError, match="does not vary"):
        radial_spectrum(np.zeros((30, 60, 60), np.float32), ball(), SPACING_MM)
    cube = np.zeros((30, 60, 60), bool)
    cube[10:18, 10:18, 10:18] = True
    small = radial_spectrum(smooth(1.0), cube, (1.0, 1.0, 1.0))
    assert small.power.size < 12  # bins without a frequency are left out
    assert (small.power > 0).all()
    assert log_spectrum_error(small, small) == 0.0
    with pytest.raises(DataError, match="too few frequencies"):
        log_spectrum_error(small, radial_spectrum(smooth(1.0), cube, (1.1, 1.0, 1.0)))
