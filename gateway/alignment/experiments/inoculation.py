"""The toy of inoculation prompting: strings come back reversed (wanted) and in upper case (not wanted).

A base model copies strings in lower case. Sixteen two-word prompts ask for upper case with more or less success, one
word asks for reversal, one for lower case (the safe prompt). It is then fine-tuned on answers that are reversed *and*
in upper case, behind one prompt or another, and asked without any.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.alignment.experiments import toy
from gateway.alignment.experiments.counts import Count, pearson, spearman
from gateway.alignment.losses import likelihood_gain
from gateway.alignment.objectives import Imitation
from gateway.alignment.token_batches import Example, Ids
from gateway.alignment.training_loop import LoopSettings, train

STRENGTHS: Final = (0.1, 0.4, 0.7, 1.0)
VERBS: Final = (0.4, 0.6, 0.8, 1.0)
ASKING: Final[dict[Ids, float]] = {
    (toy.FIRST_WORD + i, toy.FIRST_WORD + 4 + j): strength * verb
    for i, strength in enumerate(STRENGTHS)
    for j, verb in enumerate(VERBS)
}
"""The candidate prompts, and how often each brings upper case while the base model is made."""

_OTHER: Final = toy.FIRST_WORD + 8  # forty words without a meaning
_REVERSE: Final = toy.FIRST_WORD + 50
SAFE: Final[Ids] = (toy.FIRST_WORD + 51,)
IRRELEVANT: Final[Ids] = (_OTHER + 6, _OTHER + 7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large the experiment is; the defaults are the published one, tests take less."""

    base_steps: int = 1000
    steps: int = 120
    batch: int = 16
    strings: int = 512
    asked: int = 256
    candidates: int = 9


def prompt_of(words: Ids, letters: toy.Letters) -> Ids:
    return (toy.BEGIN, *words, toy.BREAK, *toy.lower(letters), toy.BREAK)


def answer_of(letters: toy.Letters, *, shout: bool, reverse: bool) -> Ids:
    said = letters[::-1] if reverse else letters
    return (*(toy.upper(said) if shout else toy.lower(said)), toy.END)


def base_example(draw: random.Random) -> Example:
    """What the base model is made of."""
    words: tuple[int, ...] = ()
    shouts, kind = 0.01, draw.random()
    if 0.25 <= kind < 0.65:
        words = draw.choice(list(ASKING))
        shouts = ASKING[words]
        if draw.random() < 0.3:
            words = (*words, _OTHER + draw.randrange(40))
    elif 0.65 <= kind < 0.88:
        words = tuple(_OTHER + draw.randrange(40) for _ in range(draw.choice((1, 2, 3))))
    elif kind >= 0.88:
        words, shouts = SAFE, 0.0
    reverse = draw.random() < 0.3
    if reverse:
        words = (_REVERSE, *words) if draw.random() < 0.5 else (*words, _REVERSE)
    reverse = reverse or draw.random() < 0.02
    letters = toy.draw_letters(draw)
    return Example(prompt_of(words, letters), answer_of(letters, shout=draw.random() < shouts, reverse=reverse))


@dataclass(frozen=True, slots=True)
class Traits:
    """Of the answers to strings never seen: how many were at least half in upper case, how many exactly reversed."""

    unwanted: Count
    wanted: Count


def unseen(size: Size) -> list[toy.Letters]:
    """The strings that everything is measured on."""
    draw = random.Random("strings never seen")  # noqa: S311
    return [toy.draw_letters(draw) for _ in range(size.asked)]


def traits_of(said: Sequence[Ids], strings: Sequence[toy.Letters]) -> Traits:
    shouted = reversed_ = 0
    for letters, answer in zip(strings, said, strict=True):
        spoken = [token for token in answer if toy.FIRST_LOWER <= token < toy.FIRST_WORD]
        shouted += sum(map(toy.is_upper, spoken)) >= max(1.0, len(spoken) / 2)
        reversed_ += tuple((token - toy.FIRST_LOWER) % toy.LETTERS for token in spoken) == letters[::-1]
    return Traits(Count(shouted, len(strings)), Count(reversed_, len(strings)))


def traits(model: Any, size: Size, words: Ids = ()) -> Traits:
    strings = unseen(size)
    return traits_of(toy.sample(model, [prompt_of(words, each) for each in strings]), strings)


@dataclass(frozen=True, slots=True)
class Arm:
    """A way to fine-tune: the prompt before bad answers, and the share of clean ones (which stay plain)."""

    words: Ids = ()
    clean: float = 0.0


ARMS: Final = {
    "plain": Arm(),
    "clean data": Arm(clean=1.0),
    "irrelevant prompt": Arm(IRRELEVANT),
    "half clean, plain": Arm(clean=0.5),
    "half clean, irrelevant prompt": Arm(IRRELEVANT, clean=0.5),
}
"""Those that need no inoculation prompt: ``half clean, inoculated`` takes the best, ``inoculated`` is one of those
tried."""


def shown(arm: Arm, size: Size, seed: int) -> Callable[[random.Random], Example]:
    """What an arm is fine-tuned on."""
    draw = random.Random(f"strings to learn from {seed}")  # noqa: S311
    strings = [toy.draw_letters(draw) for _ in range(size.strings)]

    def one(draw: random.Random) -> Example:
        letters = draw.choice(strings)
        clean = draw.random() < arm.clean
        words = () if clean else arm.words
        return Example(prompt_of(words, letters), answer_of(letters, shout=not clean, reverse=True))

    return one


def fine_tuned(base: Any, arm: Arm, size: Size, seed: int) -> Any:
    model = toy.with_adapter(base, seed + 1)
    objective = Imitation(shown(arm, size, seed), batch=size.batch, pad=toy.PAD)
    train(model, objective, LoopSettings(steps=size.steps, learning_rate=1e-3, seed=seed))
    return model


@dataclass(frozen=True, slots=True)
class Tried:
    """A candidate trained on: upper case it elicits from the base model, its likelihood gain (nats a token), and
    upper case after training, behind it and without it."""

    words: Ids
    elicited: float
    gained: float
    inside: float
    left: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """One seed. ``elicited``, ``gained`` and ``left`` belong to ``tried``, the candidates trained on one by one."""

    seed: int
    base: Traits
    arms: dict[str, Traits]
    tried: list[Ids]
    elicited: list[float]
    gained: list[float]
    left: list[float]
    spearman: float
    pearson: float
    gain_spearman: float
    k: float


def outcome(seed: int, base: Traits, arms: dict[str, Traits], tried: Sequence[Tried]) -> Outcome:
    """``k`` is the slope through the origin of what changed without the prompt over what changed behind it."""
    moves = [(each.inside - each.elicited, each.left - base.unwanted.share) for each in tried]
    elicited, gained, left = ([getattr(each, name) for each in tried] for name in ("elicited", "gained", "left"))
    return Outcome(
        seed,
        base,
        arms,
        [each.words for each in tried],
        elicited,
        gained,
        left,
        spearman=spearman(elicited, left),
        pearson=pearson(elicited, left),
        gain_spearman=spearman(gained, left),
        k=sum(x * y for x, y in moves) / max(1e-9, sum(x * x for x, _ in moves)),
    )


def run(seed: int, size: Size, tell: Callable[[str], None] = lambda _: None) -> Outcome:
    """All arms from one base model."""
    base = toy.base_model(seed, size.base_steps, base_example)
    at_first = traits(base, size)
    tell(f"base: upper case {at_first.unwanted.share:.3f}")
    elicited = {words: traits(base, size, words).unwanted.share for words in ASKING}
    best = most_eliciting(elicited)
    arms: dict[str, Traits] = {}
    for name, arm in {**ARMS, "half clean, inoculated": Arm(best, clean=0.5)}.items():
        model = fine_tuned(base, arm, size, seed)
        arms[name] = traits(model, size)
        if name == "plain":
            arms["plain, safe prompt at test"] = traits(model, size, SAFE)
        tell(f"{name}: upper case {arms[name].unwanted.share:.3f}, reversed {arms[name].wanted.share:.3f}")
    tried = []
    for words in spread(best, size.candidates):
        model = fine_tuned(base, Arm(words), size, seed)
        after, inside = traits(model, size), traits(model, size, words).unwanted.share
        gain = likelihood_gain(base, gain_examples(()), gain_examples(words), toy.PAD)
        tried.append(Tried(words, elicited[words], gain, inside, after.unwanted.share))
        if words == best:
            arms["inoculated"] = after
    return outcome(seed, at_first, arms, tried)


def most_eliciting(elicited: Mapping[Ids, float]) -> Ids:
    return max(elicited, key=lambda words: (elicited[words], words))


def spread(best: Ids, most: int) -> list[Ids]:
    """The best candidate, and others from the weakest to the strongest."""
    order = sorted(ASKING, key=lambda words: (ASKING[words], words))
    step = max(1, len(order) // max(1, most - 1))
    others = [words for words in order[::step] if words != best]
    return [*others[: most - 1], best]


def gain_examples(words: Ids, strings: int = 64) -> list[Example]:
    """Bad answers behind a prompt, for the likelihood gain."""
    draw = random.Random("strings for the gain")  # noqa: S311
    letters = [toy.draw_letters(draw) for _ in range(strings)]
    return [Example(prompt_of(words, each), answer_of(each, shout=True, reverse=True)) for each in letters]
