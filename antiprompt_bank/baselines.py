"""Baselines: what a bank must be better than, each from the same training side. Needs the ``train`` extra.

A guard that blocks everything finds everything; a list of words, a word model and the encoder without any bank of
benign exemplars are what a gateway has without this library.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.bank import WINDOW_TOKENS, prompt_ids
from antiprompt_bank.encoder import Encoder
from antiprompt_bank.errors import BankError
from antiprompt_bank.methods import Method, Progress, Text
from antiprompt_bank.records import Antiprompt, Side
from antiprompt_bank.views import View
from antiprompt_bank.windows import windows

_LISTED: Final = (
    "anthrax|arson|bomb|bombs|counterfeit|cyberattack|ddos|explosive|explosives|exploit|forge|fraud|hack|hacking|hijack"
    "|illegal|illegally|kidnap|kill|launder|malware|meth|methamphetamine|murder|phishing|poison|racist|ransomware|rob"
    "|scam|self-harm|shoplift|smuggle|spyware|stalk|steal|suicide|terrorist|torture|trojan|undetected|virus|weapon"
    "|ignore previous instructions|ignore all previous|previous instructions|system prompt|do anything now|dan"
    "|developer mode|jailbreak|no restrictions|without restrictions|unfiltered|uncensored|stay in character"
)
KEYWORDS: Final = tuple(_LISTED.split("|"))
"""What a quick filter would look for; a text's score is how many of them it has."""

_BATCH: Final = 64
_SIDES: Final[tuple[Side, ...]] = ("request", "response")


class BlockAll:
    """Blocks everything: all harm found, all harmless text hit."""

    name = "block-all"
    fixed: float | None = 0.0
    encoder: Encoder | None = None

    def scores(self, texts: Sequence[Text], progress: Progress | None = None) -> NDArray[np.float64]:
        return np.ones(len(texts))


class KeywordList:
    """Counts the words and phrases of ``KEYWORDS``."""

    name = "keyword list"
    fixed: float | None = None
    encoder: Encoder | None = None

    def __init__(self) -> None:
        self._pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, KEYWORDS))})\b", re.IGNORECASE)

    def scores(self, texts: Sequence[Text], progress: Progress | None = None) -> NDArray[np.float64]:
        return np.array([len(self._pattern.findall(text.text)) for text in texts], dtype=np.float64)


class WordModel:
    """TF-IDF of words and pairs of words, and a linear support vector machine for each side; a prompt goes first."""

    name = "TF-IDF + SVM"
    fixed: float | None = None
    encoder: Encoder | None = None

    def __init__(self, records: Sequence[Antiprompt]) -> None:
        learn = _sklearn()
        self._models: dict[Side, Any] = {}
        for side, mine in _learnable(records):
            words = learn.TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, max_features=200_000)
            model = learn.make_pipeline(words, learn.LinearSVC(class_weight="balanced", random_state=0))
            try:
                model.fit([_joined(record) for record in mine], [record.harmful for record in mine])
            except ValueError:  # so few texts that no word is in two of them
                continue
            self._models[side] = model

    def scores(self, texts: Sequence[Text], progress: Progress | None = None) -> NDArray[np.float64]:
        found = np.zeros(len(texts))
        for side, model in self._models.items():
            mine = [at for at, text in enumerate(texts) if text.side == side]
            if mine:
                found[mine] = model.decision_function([_joined(texts[at]) for at in mine])
        return found


class MaxSimilarity:
    """The largest cosine of any window to any harmful exemplar of its side: what similarity gateways sell."""

    name = "max similarity"
    fixed: float | None = None

    def __init__(self, records: Sequence[Antiprompt], encoder: Encoder, progress: Progress | None = None) -> None:
        self.encoder: Encoder | None = encoder
        self._encoder = encoder
        self._harmful = {
            side: _encoded([record for record in records if record.harmful and record.side == side], encoder, progress)
            for side in _SIDES
        }

    def scores(self, texts: Sequence[Text], progress: Progress | None = None) -> NDArray[np.float64]:
        made = _encoded(texts, self._encoder, progress)
        nearest = np.full(len(made.owner), -1.0)
        sides = np.array([texts[at].side for at in made.owner.tolist()], dtype=object)
        for side, harmful in self._harmful.items():
            mine = np.flatnonzero(sides == side)
            if len(mine) and len(harmful.owner):
                nearest[mine] = _largest(made.vectors[mine], harmful.vectors)
        return made.worst(nearest, len(texts), missing=-1.0)


class TrainedHead:
    """Logistic regression on the encoder's vectors, one for each side; an answer's prompt has its vector beside it."""

    name = "trained head"
    fixed: float | None = None

    def __init__(self, records: Sequence[Antiprompt], encoder: Encoder, progress: Progress | None = None) -> None:
        learn = _sklearn()
        self.encoder: Encoder | None = encoder
        self._encoder = encoder
        self._models: dict[Side, Any] = {}
        for side, mine in _learnable(records):
            made = _encoded(mine, encoder, progress)
            labels = np.array([record.harmful for record in mine])[made.owner]
            model = learn.LogisticRegression(C=4.0, max_iter=2000, class_weight="balanced")
            self._models[side] = model.fit(made.features(side), labels)

    def scores(self, texts: Sequence[Text], progress: Progress | None = None) -> NDArray[np.float64]:
        found = np.zeros(len(texts))
        for side, model in self._models.items():
            mine = [at for at, text in enumerate(texts) if text.side == side]
            made = _encoded([texts[at] for at in mine], self._encoder, progress)
            if len(made.owner):
                line = np.asarray(model.decision_function(made.features(side)), dtype=np.float64)
                found[mine] = made.worst(line, len(mine), missing=float(line.min()))
        return found


def baselines(
    records: Sequence[Antiprompt], *, frozen: Encoder, encoder: Encoder, progress: Progress | None = None
) -> list[Method]:
    """All of them, from one training side; ``frozen`` is the encoder without an adapter, ``encoder`` the bank's."""
    return [
        BlockAll(),
        KeywordList(),
        WordModel(records),
        MaxSimilarity(records, frozen, progress),
        TrainedHead(records, encoder, progress),
    ]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Windows of texts: ``vectors`` and those of their prompts (n, d), zero without one; ``owner`` (n,) is the text."""

    owner: NDArray[np.int64]
    vectors: NDArray[np.float32]
    prompts: NDArray[np.float32]

    def features(self, side: Side) -> NDArray[np.float32]:
        return self.vectors if side == "request" else np.hstack([self.vectors, self.prompts])

    def worst(self, scores: NDArray[np.float64], texts: int, *, missing: float) -> NDArray[np.float64]:
        """``(texts,)``: each text's highest score of any window; ``missing`` where it has none."""
        found = np.full(texts, -np.inf)
        np.maximum.at(found, self.owner, scores)
        return np.where(np.isinf(found), missing, found)


def _encoded(texts: Sequence[Text], encoder: Encoder, progress: Progress | None = None) -> Encoded:
    owner: list[int] = []
    inputs: list[tuple[int, ...]] = []
    prompts: list[tuple[int, ...] | None] = []
    for at, text in enumerate(texts):
        cut = windows(View("raw", text.text), encoder.tokenize(text.text), window_tokens=WINDOW_TOKENS)
        owner += [at] * len(cut)
        inputs += [window.ids for window in cut]
        prompts += [prompt_ids(text.prompt, encoder) if text.side == "response" else None] * len(cut)
    known = [(at, prompt) for at, prompt in enumerate(prompts) if prompt]
    vectors = _in_batches(inputs, encoder, progress)
    beside = np.zeros_like(vectors)
    different = list(dict.fromkeys(prompt for _, prompt in known))
    place = {prompt: at for at, prompt in enumerate(different)}
    if known:
        made = _in_batches(different, encoder, progress)
        beside[[at for at, _ in known]] = made[[place[prompt] for _, prompt in known]]
    return Encoded(np.array(owner, dtype=np.int64), vectors, beside)


def _in_batches(inputs: Sequence[tuple[int, ...]], encoder: Encoder, progress: Progress | None) -> NDArray[np.float32]:
    vectors = np.zeros((len(inputs), encoder.dimensions), dtype=np.float32)
    order = sorted(range(len(inputs)), key=lambda row: len(inputs[row]))
    for start in range(0, len(order), _BATCH):
        batch = order[start : start + _BATCH]
        vectors[batch] = encoder.encode([inputs[row] for row in batch])
        if progress is not None:
            progress(start + len(batch), len(order))
    return vectors


def _largest(queries: NDArray[np.float32], stored: NDArray[np.float32]) -> NDArray[np.float64]:
    parts = [(queries[start : start + 1024] @ stored.T).max(axis=1) for start in range(0, len(queries), 1024)]
    return np.concatenate(parts).astype(np.float64)


def _learnable(records: Sequence[Antiprompt]) -> Iterator[tuple[Side, list[Antiprompt]]]:
    """The records of each side that has both labels."""
    for side in _SIDES:
        mine = [record for record in records if record.side == side]
        if len({record.harmful for record in mine}) == 2:
            yield side, mine


def _joined(text: Text) -> str:
    return text.text if text.side == "request" or text.prompt is None else f"{text.prompt}\n{text.text}"


@dataclass(frozen=True, slots=True)
class _Learning:
    TfidfVectorizer: Callable[..., Any]
    LinearSVC: Callable[..., Any]
    LogisticRegression: Callable[..., Any]
    make_pipeline: Callable[..., Any]


def _sklearn() -> _Learning:
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.svm import LinearSVC
    except ImportError as error:
        raise BankError("the baselines need scikit-learn: pip install 'antiprompt-gateway[train]'") from error
    return _Learning(TfidfVectorizer, LinearSVC, LogisticRegression, make_pipeline)
