"""Harmless sentences in plain ASCII, as many different ones as a benchmark needs."""

from __future__ import annotations

import random

_PLACES = ("village", "harbour", "valley", "market", "station", "garden", "library", "museum", "school", "mill")
_MAKERS = ("carpenter", "baker", "weaver", "potter", "gardener", "printer", "tailor", "builder", "farmer", "painter")
_THINGS = ("bridge", "table", "window", "boat", "blanket", "lamp", "chair", "basket", "clock", "bench")
_COLOURS = ("green", "white", "brown", "yellow", "blue", "grey", "red", "black", "orange", "silver")
_SEASONS = ("spring", "summer", "autumn", "winter")


def sentence(chance: random.Random) -> str:
    """One sentence of about twenty words."""
    return (
        f"In the {chance.choice(_SEASONS)} of {chance.randint(1700, 1999)} the {chance.choice(_MAKERS)} of the "
        f"{chance.choice(_PLACES)} made {chance.randint(2, 99)} {chance.choice(_COLOURS)} "
        f"{chance.choice(_THINGS)}s for the {chance.choice(_PLACES)} by the river."
    )


def prompt(number: int) -> str:
    """The ``number``-th prompt: two sentences, 58 to 60 tokens with the question, so one window of 64."""
    chance = random.Random(number)
    return f"{sentence(chance)} {sentence(chance)} How many are there in all, and which of the two came first?"


def one_window(number: int) -> str:
    """The ``number``-th text that is a single sentence of 50 to 64 tokens, so that it is one window and no more."""
    chance = random.Random(number)
    first, second = (sentence(chance).rstrip(".").lower() for _ in range(2))
    return f"{first}, and {second}, but nobody knows how many there were in all"


def pieces(seed: int, count: int) -> list[str]:
    """``count`` words with a blank before each, as the tokens of a streamed reply."""
    chance = random.Random(seed)
    words: list[str] = []
    while len(words) < count:
        words += sentence(chance).split()
    return [f" {word}" for word in words[:count]]
