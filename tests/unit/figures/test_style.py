import itertools

import matplotlib
import matplotlib.colors
import numpy as np
import pytest

from sclatent import files
from sclatent.figures import style

# Machado et al. 2009, severity 1, on linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}


def lab(colour, vision):
    """CIELAB (D65) of a colour as seen with a kind of vision."""
    rgb = np.array(matplotlib.colors.to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.asarray(VISION[vision]) @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(np.asarray(to_xyz) @ linear / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def closest(palette, vision):
    seen = [lab(colour, vision) for colour in palette]
    return min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2))


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize(
    ("palette", "distance"),
    [
        (style.TYPES[:8], 15),
        (style.TYPES[:31], 9),
        (style.BATCHES[:6], 9),
        (list(style.LATENTS.values()), 15),
    ],
)
def test_colours_stay_apart_for_every_kind_of_vision(palette, distance, vision):
    assert closest([*palette, style.UNKNOWN_COLOUR][: len(palette) + 1], vision) > distance / 2
    assert closest(palette, vision) > distance


def test_the_mapping_depends_on_the_set_of_names_only():
    assert style.colours(["b", "a", "Unknown"]) == style.colours(["Unknown", "a", "b", "a"])


def test_unknown_is_grey_and_takes_no_colour_from_the_others():
    with_unknown = style.colours(["a", "Unknown", "z"])
    assert with_unknown["Unknown"] == style.UNKNOWN_COLOUR
    assert {**style.colours(["a", "z"]), "Unknown": style.UNKNOWN_COLOUR} == with_unknown


def test_names_sort_as_a_person_sorts_them():
    assert list(style.batch_colours(["b10", "b2", "b1"])) == ["b1", "b2", "b10"]


def test_thirty_types_have_thirty_colours_and_more_than_that_still_work():
    assert len(set(style.colours(map(str, range(30))).values())) == 30
    assert len(style.colours(map(str, range(100)))) == 100


def test_a_known_latent_keeps_its_colour_and_a_new_one_gets_another():
    found = style.latent_colours(["pca", "mine", "scvi"])
    assert found["scvi"] == style.LATENTS["scvi"]
    assert found["mine"] not in style.LATENTS.values()


def test_no_display_is_needed():
    assert matplotlib.get_backend().lower() == "agg"


def test_equal_figures_are_equal_bytes(tmp_path):
    for name in ("one.png", "two.png"):
        figure, axis = style.plt.subplots(figsize=(1, 1))
        axis.plot([0, 1])
        style.write_figure(tmp_path / name, figure)
    assert files.sha256(tmp_path / "one.png") == files.sha256(tmp_path / "two.png")
