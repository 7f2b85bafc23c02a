"""The colours of the dashboard are told apart by everybody: WCAG 2.2, level AA, in the light and in the dark."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import gateway.review

SHEET = (Path(gateway.review.__file__).parent / "static" / "review.css").read_text("utf-8")
TEXT = 4.5  # 1.4.3, text of normal size
GRAPHIC = 3.0  # 1.4.11, edges of controls and what shows where the focus is

WORDS = ("ink", "soft", "accent", "danger", "ok", "warn")
GROUNDS = ("paper", "surface")
PAIRS = [
    *((word, ground, TEXT) for word in WORDS for ground in GROUNDS),
    ("ink", "sunk", TEXT),
    ("soft", "sunk", TEXT),
    ("danger", "sunk", TEXT),
    ("warn", "sunk", TEXT),
    ("ink", "mark", TEXT),
    ("accent-ink", "accent", TEXT),
    ("danger-ink", "danger", TEXT),
    ("edge", "surface", GRAPHIC),
    ("edge", "paper", GRAPHIC),
    ("focus", "surface", GRAPHIC),
    ("focus", "paper", GRAPHIC),
]


def colours(scheme: str) -> dict[str, str]:
    """The custom properties in force; dark ones stand over the light ones."""
    light, dark = (
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block))
        for block in re.findall(r":root \{(.*?)\}", SHEET, re.S)
    )
    return light if scheme == "light" else {**light, **dark}


def luminance(colour: str) -> float:
    """Relative luminance of sRGB, as WCAG defines it."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_measure_is_right() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.478, abs=0.001)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("front", "ground", "least"), PAIRS)
def test_colours_stand_out(scheme: str, front: str, ground: str, least: float) -> None:
    found = colours(scheme)
    assert contrast(found[front], found[ground]) >= least


def test_every_colour_of_the_dark_scheme_has_one_in_the_light() -> None:
    assert set(colours("dark")) == set(colours("light"))
    assert len(colours("light")) >= len(WORDS)


def test_nothing_is_coloured_past_the_schemes() -> None:
    rules = re.sub(r":root \{.*?\}", "", SHEET, flags=re.S)
    assert re.findall(r"#[0-9a-fA-F]{3,8}\b(?=[;\s])", rules) == []
