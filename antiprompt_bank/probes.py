"""Probes: what a threshold is worth when attackers write oddly, banks grow, time runs and something new turns up.

Each works on a sample, so that a whole report takes minutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from random import Random
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.bank import Bank
from antiprompt_bank.building import build_bank
from antiprompt_bank.evasions import EVASIONS, HACKETT
from antiprompt_bank.examples import Example
from antiprompt_bank.measures import Rate, threshold_at
from antiprompt_bank.methods import BankMethod, Method, RememberingEncoder, twin
from antiprompt_bank.protocol import as_antiprompt
from antiprompt_bank.records import REVIEWED, Antiprompt
from antiprompt_bank.report import Adapted, EvasionCost, Growth, Timing

Tell = Callable[[str, int, int], None]

SIZES: Final = (10, 30, 100, 300, 1000, 3000, 10_000)
_MEAN_OF: Final = 8
"""Neighbours whose mean is the uncalibrated score of a bank of a given size; fewer where the bank is smaller."""

_LONGEST_DISGUISED: Final = 400
"""Characters of the longest text that is disguised: codes make it up to ten times as long."""

_LEAST_FAMILY: Final = 5
_RATE: Final = 0.01


@dataclass(frozen=True, slots=True)
class Probes:
    """Which probes are run, and on how many texts each; ``families`` and ``everyday`` are for the adaptation."""

    evasions: bool = True
    growth: bool = True
    timing: bool = True
    adaptation: bool = True
    texts: int = 60
    benign: int = 600
    families: int = 40
    everyday: int = 5000
    compared: int = 250
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def none(cls) -> Probes:
        return cls(evasions=False, growth=False, timing=False, adaptation=False)


@dataclass(frozen=True, slots=True)
class Probed:
    """What the probes found; empty where one was not run."""

    evasions: tuple[EvasionCost, ...] = ()
    growth: tuple[Growth, ...] = ()
    timings: tuple[Timing, ...] = ()
    adapted: tuple[Adapted, ...] = ()
    everyday_compared: int = 0
    notes: tuple[str, ...] = ()


def probe(
    bank: Bank,
    methods: Sequence[Method],
    everyday: Sequence[Example],
    attacks: Sequence[Example],
    threshold: float,
    probes: Probes,
    tell: Tell,
) -> Probed:
    """All that ``probes`` asks for, at a threshold for requests; ``attacks`` are the harmful and jailbreak sources'."""
    benign = [example for example in everyday if not example.harmful and example.side == "request"]
    harmful = [example for example in attacks if example.harmful and example.side == "request"]
    if not benign or not harmful:
        return Probed(notes=("no probes: there are no left-out everyday or harmful requests",))
    some = _some(harmful, probes.texts, probes.seed)
    found = Probed()
    if probes.evasions:
        plain = [row for row in harmful if row.language == "en" and len(row.text) <= _LONGEST_DISGUISED]
        sample = _some(plain, probes.texts, probes.seed)
        costs = evasion_costs(bank, sample, threshold, partial(tell, "evasions")) if sample else ()
        found = replace(found, evasions=costs)
    if probes.growth:
        safe, unsafe = _some(benign, probes.benign, probes.seed), _some(harmful, probes.benign, probes.seed)
        found = replace(found, growth=growth(bank, safe, unsafe, probes.seed, partial(tell, "bank size")))
    if probes.timing:
        mixed = some[: len(some) // 2] + _some(benign, probes.texts // 2, probes.seed)
        found = replace(found, timings=timings(methods, mixed, partial(tell, "time")))
    if probes.adaptation:
        if not hasattr(bank, "with_records"):
            return replace(found, notes=("no one-shot adaptation: this Bank has no with_records",))
        texts = _some(benign, probes.everyday, probes.seed)
        adapted = adaptation(bank, harmful, texts, threshold, probes, partial(tell, "one-shot adaptation"))
        found = replace(found, adapted=adapted, everyday_compared=len(texts) if adapted else 0)
    return found


def evasion_costs(
    bank: Bank, sample: Sequence[Example], threshold: float, tell: Callable[[int, int], None]
) -> tuple[EvasionCost, ...]:
    """Recall on the same texts under each technique, with and without the views."""
    reading, raw = BankMethod(bank), BankMethod(bank, views=False)
    plain = Rate.above(threshold, reading.scores(sample))
    found = []
    for done, (technique, evade) in enumerate(EVASIONS.items(), start=1):
        disguised = [replace(example, text=evade(example.text)) for example in sample]
        seen, unseen = (Rate.above(threshold, method.scores(disguised)) for method in (reading, raw))
        found.append(EvasionCost(technique, technique in HACKETT, plain, seen, unseen))
        tell(done, len(EVASIONS))
    return tuple(found)


def growth(
    bank: Bank, benign: Sequence[Example], harmful: Sequence[Example], seed: int, tell: Callable[[int, int], None]
) -> tuple[Growth, ...]:
    """Recall at 1 % false positives of banks made of ever more of this bank's request exemplars.

    Three ways of scoring: the bank's own (a new calibration each, none for very small ones), the plain difference of
    neighbours, and the harmful neighbours alone.
    """
    records = [record for record in bank.records if record.side == "request"]
    Random(seed).shuffle(records)  # noqa: S311  # a sample, not a secret
    sides = [[record for record in records if record.harmful is label] for label in (True, False)]
    known = {record.id: at for at, record in enumerate(bank.records)}
    safe, unsafe = _windows(bank, benign), _windows(bank, harmful)
    # A last step with everything, where it is no step of its own.
    sizes = [size for size in SIZES if size < len(records)] + ([len(records)] if len(records) <= SIZES[-1] else [])
    found = []
    for done, size in enumerate(sizes, start=1):
        kept = _balanced(sides, size)
        near = [_nearest_means(bank, [known[record.id] for record in side], safe, unsafe) for side in kept]
        (safe_harm, unsafe_harm), (safe_good, unsafe_good) = near
        built = BankMethod(build_bank([*kept[0], *kept[1]], bank.encoder))
        scores = {
            "bank": (built.scores(benign), built.scores(harmful)),
            "difference of neighbours": (safe.worst(safe_harm - safe_good), unsafe.worst(unsafe_harm - unsafe_good)),
            "harmful side alone": (safe.worst(safe_harm), unsafe.worst(unsafe_harm)),
        }
        for series, (good, bad) in scores.items():
            found.append(Growth(series, size, Rate.above(threshold_at(_RATE, good), bad)))
        tell(done, len(sizes))
    return tuple(found)


def timings(
    methods: Sequence[Method], sample: Sequence[Example], tell: Callable[[int, int], None]
) -> tuple[Timing, ...]:
    """Time for one text, with nothing remembered of earlier ones; tokens, views, vectors and search included."""
    found = []
    for done, method in enumerate(methods, start=1):
        with _forgetful(method) as fresh:
            alone = [_seconds(fresh, [text]) for text in sample]
        with _forgetful(method) as fresh:
            together = _seconds(fresh, sample)
        median, p95 = (1000 * float(np.quantile(alone, share)) for share in (0.5, 0.95))
        found.append(
            Timing(method.name, len(sample), round(median, 3), round(p95, 3), round(1000 * together / len(sample), 3))
        )
        tell(done, len(methods))
    return tuple(found)


def adaptation(
    bank: Bank,
    harmful: Sequence[Example],
    everyday: Sequence[Example],
    threshold: float,
    probes: Probes,
    tell: Callable[[int, int], None],
) -> tuple[Adapted, ...]:
    """Add one member of each family (``group``) with at least five, and see who else is hit at the same threshold.

    Of the everyday texts only the ``compared`` nearest to the new exemplar are scored anew: it moves no others.
    """
    families: dict[str, list[Example]] = {}
    for example in harmful:
        if example.group is not None:
            families.setdefault(example.group, []).append(example)
    chosen = _some([rows for rows in families.values() if len(rows) >= _LEAST_FAMILY], probes.families, probes.seed)
    if not chosen:
        return ()
    windows = _windows(bank, everyday)
    before = BankMethod(bank).scores(everyday)
    found = []
    for done, rows in enumerate(chosen, start=1):
        added, *relatives = _some(rows, len(rows), probes.seed)
        record = as_antiprompt(added, "jailbreak")
        if record is None:
            continue
        record = replace(record, source=REVIEWED)  # as if somebody had flagged it and a moderator confirmed
        more = _with_records(bank, [record])
        nearest = _nearest_texts(more, record, windows, probes.compared)
        after = BankMethod(more).scores([everyday[at] for at in nearest])
        caught = [Rate.above(threshold, BankMethod(each).scores(relatives)).hits for each in (bank, more)]
        hits = int(((after > threshold) & (before[nearest] <= threshold)).sum())
        found.append(Adapted(added.source, len(relatives), caught[0], caught[1], hits))
        tell(done, len(chosen))
    return tuple(found)


def _with_records(bank: Bank, records: Sequence[Antiprompt]) -> Bank:
    more: Bank = getattr(bank, "with_records")(records)  # noqa: B009  # newer than this module
    return more


@dataclass(frozen=True, slots=True)
class _Windows:
    """Texts' windows: ``vectors`` (n, d), and ``owner`` (n,) the text of each of the ``texts``."""

    owner: NDArray[np.int64]
    vectors: NDArray[np.float32]
    texts: int

    def worst(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        found = np.full(self.texts, -2.0)
        np.maximum.at(found, self.owner, scores)
        return found


def _windows(bank: Bank, examples: Sequence[Example]) -> _Windows:
    owner: list[int] = []
    inputs: list[tuple[int, ...]] = []
    for at, example in enumerate(examples):
        cut = bank.prepare(example.text, side=example.side).cut
        owner += [at] * len(cut)
        inputs += [window.ids for window in cut]
    made = [bank.encoder.encode(inputs[start : start + 64]) for start in range(0, len(inputs), 64)]
    empty = np.zeros((0, bank.encoder.dimensions), dtype=np.float32)
    return _Windows(np.array(owner, dtype=np.int64), np.concatenate([empty, *made]), len(examples))


def _balanced(sides: Sequence[list[Antiprompt]], size: int) -> list[list[Antiprompt]]:
    """``size`` records, half of them harmful as far as there are enough of each."""
    harmful, benign = sides
    good = min(len(benign), max(size // 2, size - len(harmful)))
    return [harmful[: size - good], benign[:good]]


def _nearest_means(bank: Bank, records: Sequence[int], *texts: _Windows) -> list[NDArray[np.float64]]:
    """For each window of each of the texts how similar the nearest exemplars among these records are, on average."""
    chosen = np.isin(bank.rows.record, np.array(records, dtype=np.int64)) & ~bank.rows.pair
    stored = bank.vectors[chosen]
    if not len(stored):
        return [np.zeros(len(each.owner)) for each in texts]
    count = min(_MEAN_OF, len(stored))
    found = []
    for each in texts:
        similar = each.vectors @ stored.T
        best = -np.partition(-similar, count - 1, axis=1)[:, :count] if count < len(stored) else similar
        found.append(best.mean(axis=1).astype(np.float64))
    return found


def _nearest_texts(bank: Bank, record: Antiprompt, windows: _Windows, count: int) -> NDArray[np.intp]:
    place = next(at for at, known in enumerate(bank.records) if known.id == record.id)
    own = bank.vectors[bank.rows.record == place]
    similar = windows.worst((windows.vectors @ own.T).max(axis=1).astype(np.float64))
    return np.argsort(-similar, kind="stable")[:count]


@contextmanager
def _forgetful(method: Method) -> Iterator[Method]:
    """The same method with an encoder that looks nothing up, and a bank that has seen no text."""
    encoder = method.encoder
    if isinstance(encoder, RememberingEncoder):
        encoder.remembers = False
    try:
        yield BankMethod(twin(method.bank, method.bank.encoder)) if isinstance(method, BankMethod) else method
    finally:
        if isinstance(encoder, RememberingEncoder):
            encoder.remembers = True


def _seconds(method: Method, texts: Sequence[Example]) -> float:
    start = time.perf_counter()
    method.scores(texts)
    return time.perf_counter() - start


def _some(items: Sequence[Any], most: int, seed: int) -> list[Any]:
    if len(items) <= most:
        chosen = list(items)
        Random(seed).shuffle(chosen)  # noqa: S311  # a sample, not a secret
        return chosen
    return Random(seed).sample(list(items), most)  # noqa: S311
