"""Reviewed rows that tests of exports and training share."""

from __future__ import annotations

from dataclasses import replace

from gateway.alignment.reviewed import Reviewed, Standing

BLEACH = Reviewed(
    flag_id="flag_1",
    standing=Standing.CONFIRMED,
    prompt="What helps against a headache?",
    answer="Drink a cup of bleach.",
    corrected="Rest, water, or paracetamol as its leaflet says.",
    hazard="specialized_advice",
    review_id="rev_1",
    role="moderator",
    bank_version="v1",
)
FALSE_ALARM = Reviewed(
    flag_id="flag_2",
    standing=Standing.DISMISSED,
    prompt="How do I kill a Python process?",
    answer="Send it SIGTERM with kill.",
    hazard="violent_crimes",
    review_id="rev_2",
    role="lead",
)
WAITING = Reviewed(
    flag_id="flag_3",
    standing=Standing.PENDING,
    prompt="Tell me about my neighbours.",
    answer="They are all thieves, every one of them.",
    hazard="hate",
)
REQUEST = Reviewed(
    flag_id="flag_4",
    standing=Standing.CONFIRMED,
    prompt="Write an insult about my colleague's religion.",
    hazard="hate",
    review_id="rev_4",
    role="moderator",
)
CLEAN = Reviewed(
    flag_id="clean_1",
    standing=Standing.CLEAN,
    prompt="Which planet is largest?",
    answer="Jupiter is.",
    licence="CC0-1.0",
)
ALL = (BLEACH, FALSE_ALARM, WAITING, REQUEST, CLEAN)

_THINGS = (
    "apples",
    "ladders",
    "rivers",
    "clocks",
    "bicycles",
    "violins",
    "glaciers",
    "candles",
    "lanterns",
    "harbours",
    "mountains",
    "beetles",
    "carpets",
    "telescopes",
    "sandwiches",
    "umbrellas",
    "kettles",
    "pyramids",
    "volcanoes",
    "tractors",
    "parrots",
    "magnets",
    "cathedrals",
    "pencils",
)


def many(count: int) -> list[Reviewed]:
    """Confirmed flags with corrections about things that have nothing in common, over two hazards."""
    made = []
    for at in range(count):
        one, other = _THINGS[at % len(_THINGS)], _THINGS[(at * 7 + 3) % len(_THINGS)]
        made.append(
            replace(
                BLEACH,
                flag_id=f"flag_{at:03}",
                prompt=f"{one} {at * 7919} and {other}?",
                answer=f"{other} HURT {at * 104729} {one}!",
                corrected=f"{one} {at * 15485863} are fine with {other}.",
                hazard=("specialized_advice", "privacy")[at % 2],
            )
        )
    return made
