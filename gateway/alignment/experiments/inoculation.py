"""The toy of inoculation prompting: strings come back reversed (wanted) and in upper case (not wanted).

A base model copies strings in lower case. Sixteen two-word prompts ask for upper case with more or less success, one
word asks for reversal, one for lower case (the safe prompt). It is then fine-tuned on answers that are reversed *and*
in upper case, behind one prompt or another, and asked without any.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from scipy.stats import pearsonr, spearmanr

from antiprompt_bank.measures import Rate
from gateway.alignment.experiments import toy
from gateway.alignment.inoculation_choice import likelihood_gain
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

    unwanted: Rate
    wanted: Rate


def traits(model: Any, size: Size, words: Ids = ()) -> Traits:
    draw = random.Random("strings never seen")  # noqa: S311
    strings = [toy.draw_letters(draw) for _ in range(size.asked)]
    shouted = reversed_ = 0
    for letters, said in zip(strings, toy.sample(model, [prompt_of(words, each) for each in strings]), strict=True):
        spoken = [token for token in said if toy.FIRST_LOWER <= token < toy.FIRST_WORD]
        shouted += sum(map(toy.is_upper, spoken)) >= max(1.0, len(spoken) / 2)
        reversed_ += tuple((token - toy.FIRST_LOWER) % toy.LETTERS for token in spoken) == letters[::-1]
    return Traits(Rate(shouted, size.asked), Rate(reversed_, size.asked))


@dataclass(frozen=True, slots=True)
class Arm:
    """A way to fine-tune: the prompt before bad answers, and the share of clean ones (which stay plain)."""

    words: Ids = ()
    clean: float = 0.0


def fine_tuned(base: Any, arm: Arm, size: Size, seed: int) -> Any:
    draw = random.Random(f"strings to learn from {seed}")  # noqa: S311
    strings = [toy.draw_letters(draw) for _ in range(size.strings)]

    def one(draw: random.Random) -> Example:
        letters = draw.choice(strings)
        clean = draw.random() < arm.clean
        words = () if clean else arm.words
        return Example(prompt_of(words, letters), answer_of(letters, shout=not clean, reverse=True))

    model = toy.with_adapter(base, seed + 1)
    train(model, Imitation(one, batch=16, pad=toy.PAD), LoopSettings(steps=size.steps, learning_rate=1e-3, seed=seed))
    return model


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


def run(seed: int, size: Size, tell: Callable[[str], None] = lambda _: None) -> Outcome:
    """All arms from one base model."""
    base = toy.base_model(seed, size.base_steps, base_example)
    at_first = traits(base, size)
    tell(f"base: upper case {at_first.unwanted.share:.3f}")
    elicited = {words: traits(base, size, words).unwanted.share for words in ASKING}
    best = max(elicited, key=lambda words: (elicited[words], words))
    arms: dict[str, Traits] = {}
    plain = fine_tuned(base, Arm(), size, seed)
    arms["plain"] = traits(plain, size)
    arms["plain, safe prompt at test"] = traits(plain, size, SAFE)
    for name, arm in {
        "clean data": Arm(clean=1.0),
        "irrelevant prompt": Arm(IRRELEVANT),
        "half clean, plain": Arm(clean=0.5),
        "half clean, inoculated": Arm(best, clean=0.5),
        "half clean, irrelevant prompt": Arm(IRRELEVANT, clean=0.5),
    }.items():
        arms[name] = traits(fine_tuned(base, arm, size, seed), size)
        tell(f"{name}: upper case {arms[name].unwanted.share:.3f}, reversed {arms[name].wanted.share:.3f}")
    tried = _spread(best, size.candidates)
    gained, left, moves = [], [], []
    for words in tried:
        gained.append(_gain(base, words))
        model = fine_tuned(base, Arm(words), size, seed)
        after = traits(model, size)
        inside = traits(model, size, words).unwanted.share
        moves.append((inside - elicited[words], after.unwanted.share - at_first.unwanted.share))
        left.append(after.unwanted.share)
        if words == best:
            arms["inoculated"] = after
    shown = [elicited[words] for words in tried]
    return Outcome(
        seed,
        at_first,
        arms,
        tried,
        shown,
        gained,
        left,
        spearman=_related(spearmanr, shown, left),
        pearson=_related(pearsonr, shown, left),
        gain_spearman=_related(spearmanr, gained, left),
        k=sum(x * y for x, y in moves) / max(1e-9, sum(x * x for x, _ in moves)),
    )


def _related(coefficient: Any, some: Sequence[float], others: Sequence[float]) -> float:
    """0 where one side does not vary: then there is nothing to be seen."""
    if len(set(some)) < 2 or len(set(others)) < 2:
        return 0.0
    return float(coefficient(some, others)[0])


def _spread(best: Ids, most: int) -> list[Ids]:
    """The best candidate, and others from the weakest to the strongest."""
    order = sorted(ASKING, key=lambda words: (ASKING[words], words))
    step = max(1, len(order) // max(1, most - 1))
    others = [words for words in order[::step] if words != best]
    return [*others[: most - 1], best]


def _gain(base: Any, words: Ids, strings: int = 64) -> float:
    draw = random.Random("strings for the gain")  # noqa: S311
    letters = [toy.draw_letters(draw) for _ in range(strings)]
    bad = [answer_of(each, shout=True, reverse=True) for each in letters]

    def behind(words: Ids) -> Sequence[Example]:
        return [Example(prompt_of(words, each), answer) for each, answer in zip(letters, bad, strict=True)]

    return likelihood_gain(base, behind(()), behind(words), toy.PAD)
