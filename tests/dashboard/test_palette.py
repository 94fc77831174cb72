from __future__ import annotations

import numpy as np
import pytest

from dashboard.palette import palette, parse_colour, ramp, themes


@pytest.mark.parametrize("theme", themes())
def test_the_sequential_scale_rises_in_lightness(theme: str) -> None:
    colours = palette(theme).sequential  # type: ignore[arg-type]
    luminance = colours @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luminance) > 0).all()


def test_dark_overrides_what_it_names_and_keeps_the_rest() -> None:
    light, dark = palette("light"), palette("dark")
    assert light.veil != dark.veil
    assert np.array_equal(light.sequential[-1], dark.sequential[-1])


def test_a_ramp_passes_through_its_stops() -> None:
    colours = ramp([(0, 0, 0, 1), (1, 0.5, 0, 1)])
    assert colours[0].tolist() == [0, 0, 0]
    assert colours[-1].tolist() == [1, 0.5, 0]


def test_a_colour_in_another_form_is_refused_with_its_text() -> None:
    with pytest.raises(ValueError, match="got 'red'"):
        parse_colour("red")
