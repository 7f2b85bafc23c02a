"""Training an adapter: from labelled texts to the matrices that go on top of the frozen encoder (extra ``train``).

The loss is the decision rule of a bank. Each text of a batch is compared with the others and with those of the last
batches (a queue, as in cross-batch memory, Wang et al. 2020, arXiv 1912.06798): the log-sum-exp of its similarities to
harmful texts against that to benign ones is its margin, and the margin must tell its label (neighbourhood component
analysis, Goldberger et al. 2004). Three things make that generalise to sources nobody has seen:

* half of the time a text may not look at texts of its own source, so that "looks like my data set" does not help;
* twins (harmful and benign texts of one family) stay visible to each other, variants of one text do not;
* a margin on the wrong side costs benign texts more, the surer it is (a squared penalty, after what Prompt Guard 2
  does to unfamiliar benign text).

Among harmful texts the same rule must tell the hazard: of the similarities to the others, most must go to those of
one's own. Without that term neighbours named the right hazard for 40 % of unseen families, with it for 87 %.

A linear classifier for each side of the traffic is trained along with it: the direction that texts lean in where no
neighbour is near; and beside it one of their wording, a support vector machine (see ``leaning``). The encoder itself
is run once, so that a step costs milliseconds and an adapter minutes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from antiprompt_bank.adapter import BLOCKS, Adapter, AdapterCard, write_adapter
from antiprompt_bank.additions import WINDOW_TOKENS
from antiprompt_bank.building import family_of
from antiprompt_bank.features import FeatureCache
from antiprompt_bank.leaning import BUCKETS, Leaning, grams
from antiprompt_bank.model_files import EncoderCard
from antiprompt_bank.records import Antiprompt
from antiprompt_bank.telling import Telling

Progress = Callable[[int, int], None]
"""Told how many of how many steps are done; reading the texts is the first half."""

_NOT_SEEN: Final = -1e4
_LEAST_SHARE: Final = 1e-4
_SIDES: Final = ("request", "response")
_FEATURE_SCALE: Final = 3.0
"""Features are unit vectors of 384 numbers; the first map starts better with numbers nearer to 1."""

_VECTOR_SCALE: Final = 10.0
"""The same for the classifiers on unit vectors."""


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """What an adapter is trained with; the defaults are those of the shipped one (``RESULTS.md`` says what each gave).

    ``trust`` lowers the weight of harmful texts of sources with soft labels. ``harmful_share`` is the share of harmful
    texts in a batch, sources drawn by the square root of their size, the seed's kinds ``seed_weight`` times as often.
    """

    steps: int = 700
    batch: int = 640
    queue: int = 2560
    hidden: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    dropout: float = 0.1
    temperature: float = 0.07
    own_source_hidden: float = 0.5
    penalty: float = 0.05
    hazard_weight: float = 0.5
    harmful_share: float = 0.45
    seed_weight: float = 8.0
    windows_a_text: int = 4
    wording_cost: float = 0.5
    seed: int = 0
    trust: Mapping[str, float] = field(
        default_factory=lambda: {
            "aart": 0.3,
            "ailuminate": 0.3,
            "harmfulqa": 0.5,
            "garak_phrasing": 0.5,
            "jbb_artifact_responses": 0.5,
        }
    )


@dataclass(frozen=True, slots=True)
class _Lessons:
    """n windows to learn from: token ids, ``features`` ``(n, f)`` float16, and of each its text, family, source, side,
    label.

    ``hazard`` is a number below ``hazards``, -1 for benign windows and for those whose hazard is not known.
    """

    ids: Sequence[tuple[int, ...]]
    features: NDArray[np.float16]
    text: NDArray[np.int32]
    family: NDArray[np.int32]
    source: NDArray[np.int32]
    is_request: NDArray[np.bool_]
    is_harmful: NDArray[np.bool_]
    hazard: NDArray[np.int64]
    hazards: int
    weight: NDArray[np.float32]
    drawn: NDArray[np.float64]


def train_adapter(
    records: Sequence[Antiprompt],
    folder: Path,
    features: FeatureCache,
    *,
    guessed: Collection[str] = (),
    settings: TrainingSettings | None = None,
    progress: Progress | None = None,
) -> Adapter:
    """Train an adapter on exemplars of both labels and write it into ``folder``.

    ``features`` holds what the encoder says of each text, so that a second training on the same texts starts at once;
    what was missing is saved. ``guessed`` are the ids of records whose hazard nobody told (their set names none): they
    teach harm, not hazards. On two CPU cores some two minutes for 10,000 texts and three more for 700 steps;
    ``progress`` counts both.

    Raises ``ValueError`` when a label is missing, ``EncoderUnavailable`` when torch is.
    """
    chosen = settings or TrainingSettings()
    if len({record.harmful for record in records}) < 2:
        raise ValueError("training needs both harmful and benign texts")

    def read(done: int, total: int) -> None:
        if progress is not None:
            progress(done * chosen.steps // max(1, total), 2 * chosen.steps)

    def trained(step: int) -> None:
        if progress is not None:
            progress(chosen.steps + step, 2 * chosen.steps)

    lessons = _lessons(records, guessed, features, chosen, read)
    features.save()
    matrices, directions, losses = _fit(lessons, chosen, trained)
    leaning = {side: Leaning(directions[side], _wording(lessons, side == "request", chosen)) for side in _SIDES}
    card = AdapterCard(
        base=EncoderCard.read(features.encoder.folder).weights_sha256,
        dimensions=len(matrices["second.bias"]),
        sets=_sets(records),
        settings=asdict(chosen),
        figures={"windows": len(lessons.text), "loss_first": losses[0], "loss_last": losses[1]},
    )
    return write_adapter(folder, card, matrices, leaning)


def _lessons(
    records: Sequence[Antiprompt],
    guessed: Collection[str],
    features: FeatureCache,
    settings: TrainingSettings,
    progress: Progress,
) -> _Lessons:
    encoder = features.encoder
    inputs: list[tuple[int, ...]] = []
    owner: list[int] = []
    weight: list[float] = []
    telling = Telling(records, encoder, window_tokens=WINDOW_TOKENS)
    for at, record in enumerate(records):
        cut = telling.windows(record)
        # Evenly spread and not by chance, so that each training on a text reads the same of it.
        spread = np.linspace(0, len(cut) - 1, min(len(cut), settings.windows_a_text)).round().astype(int)
        some = [cut[n] for n in spread.tolist()]
        inputs += [window.ids for window in some]
        owner += [at] * len(some)
        weight += [_weight(record, len(cut), settings)] * len(some)
    text = np.array(owner, dtype=np.int32)
    is_harmful = np.array([record.harmful for record in records], dtype=bool)[text]
    source = _numbers([_source(record) for record in records])[text]
    hazard = _hazard_numbers(records, guessed)
    return _Lessons(
        ids=inputs,
        features=features.of(inputs, progress),
        text=text,
        family=_numbers([_family(at, record) for at, record in enumerate(records)])[text],
        source=source,
        is_request=np.array([record.side == "request" for record in records], dtype=bool)[text],
        is_harmful=is_harmful,
        hazard=hazard[text],
        hazards=int(hazard.max()) + 1,
        weight=np.array(weight, dtype=np.float32),
        drawn=_drawn(source, is_harmful, [record.source for record in records], text, settings),
    )


def _weight(record: Antiprompt, windows_of_it: int, settings: TrainingSettings) -> float:
    if not record.harmful:
        return 1.0
    # An instruction hidden in a document is in few of its windows, and which ones only a twin tells.
    share = 1.0 / windows_of_it if record.hazard == "indirect_injection" else 1.0
    return max(share, 0.2) * settings.trust.get(record.source, 1.0)


def _source(record: Antiprompt) -> str:
    """Where a text comes from, as far as its style shows it: the seed's hazards were written apart from each other."""
    return f"seed {record.hazard} {record.side}" if record.source == "seed" else record.source


def _family(at: int, record: Antiprompt) -> str:
    """Texts of one family and label do not count as each other's neighbours."""
    family = family_of(record)
    return f"text {at}" if family is None else f"{family} {record.label}"


def _hazard_numbers(records: Sequence[Antiprompt], guessed: Collection[str]) -> NDArray[np.int64]:
    """``(len(records),)`` numbers of the hazards of harmful records, -1 for all others."""
    told = [record.harmful and record.hazard is not None and record.id not in guessed for record in records]
    names = sorted({record.hazard or "" for record, known in zip(records, told, strict=True) if known})
    number = {name: at for at, name in enumerate(names)}
    return np.array(
        [number[record.hazard or ""] if known else -1 for record, known in zip(records, told, strict=True)],
        dtype=np.int64,
    )


def _numbers(names: Sequence[str]) -> NDArray[np.int32]:
    return np.unique(np.array(names), return_inverse=True)[1].astype(np.int32)


def _drawn(
    source: NDArray[np.int32],
    is_harmful: NDArray[np.bool_],
    sources: Sequence[str],
    text: NDArray[np.int32],
    settings: TrainingSettings,
) -> NDArray[np.float64]:
    """How often each window is drawn, ``(n,)`` summing to 1."""
    of_seed = np.array([name == "seed" for name in sources], dtype=bool)[text]
    drawn = np.zeros(len(source))
    for label, share in ((True, settings.harmful_share), (False, 1 - settings.harmful_share)):
        on = np.flatnonzero(is_harmful == label)
        _, number, size = np.unique(source[on], return_inverse=True, return_counts=True)
        wanted = np.sqrt(size) / size
        each = wanted[number] * np.where(of_seed[on], settings.seed_weight, 1.0)
        drawn[on] = each / each.sum() * share
    drawn /= drawn.sum()
    return drawn


def _fit(
    lessons: _Lessons, settings: TrainingSettings, progress: Callable[[int], None]
) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]], tuple[float, float]]:
    """Matrices, leanings, and the mean loss of the first and the last steps."""
    import torch

    torch.manual_seed(settings.seed)
    random = np.random.default_rng(settings.seed)
    width = lessons.features.shape[1]
    out = width // BLOCKS
    net = torch.nn.ModuleDict(
        {
            "first": torch.nn.Linear(width, settings.hidden),
            "second": torch.nn.Linear(settings.hidden, out),
            "leaning": torch.nn.Linear(out, len(_SIDES)),
        }
    )
    torch.nn.init.zeros_(net["leaning"].weight)
    torch.nn.init.zeros_(net["leaning"].bias)
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    queue = torch.zeros((0, out))
    queued = np.zeros(0, dtype=np.int64)
    losses = []
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _schedule(step, settings.steps)
        drawn = random.choice(len(lessons.text), settings.batch, p=lessons.drawn)
        read = torch.from_numpy(lessons.features[drawn].astype(np.float32)) * _FEATURE_SCALE
        vectors = _vectors(net, read, settings.dropout)
        compared = np.concatenate([drawn, queued])
        others = torch.cat([vectors, queue])
        margin = _margins(vectors, others, drawn, compared, lessons, settings, random)
        leaning = net["leaning"](vectors * _VECTOR_SCALE)
        own = leaning.gather(1, torch.from_numpy(np.where(lessons.is_request[drawn], 0, 1))[:, None])[:, 0]
        loss = _loss(margin, own, drawn, lessons, settings)
        loss = loss + settings.hazard_weight * _hazard_loss(vectors, others, drawn, compared, lessons, settings)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        queue, queued = torch.cat([vectors.detach(), queue])[: settings.queue], compared[: settings.queue]
        losses.append(float(loss.detach()))
        progress(step + 1)
    return *_arrays(net), (float(np.mean(losses[:10])), float(np.mean(losses[-10:])))


def _wording(lessons: _Lessons, is_request: bool, settings: TrainingSettings) -> NDArray[np.float32] | None:
    """``(BUCKETS + 1,)`` a classifier of the wording of one side, bias last; None where a label is missing there."""
    on = np.flatnonzero(lessons.is_request == is_request)
    if len(set(lessons.is_harmful[on].tolist())) < 2:
        return None
    from scipy.sparse import csr_matrix
    from sklearn.svm import LinearSVC

    window, bucket, share = grams([lessons.ids[at] for at in on.tolist()])
    read = csr_matrix((share, (window, bucket)), shape=(len(on), BUCKETS))
    model = LinearSVC(C=settings.wording_cost, class_weight="balanced", random_state=settings.seed)
    model.fit(read, lessons.is_harmful[on], sample_weight=lessons.weight[on])
    return np.append(model.coef_[0], model.intercept_).astype(np.float32)


def _vectors(net: Any, read: Any, dropout: float) -> Any:
    """As ``encoder_torch.projected``, with dropout."""
    from torch.nn import functional

    hidden = functional.gelu(net["first"](functional.dropout(read, dropout)))
    return functional.normalize(net["second"](functional.dropout(hidden, dropout)), dim=-1)


def _margins(
    vectors: Any,
    others: Any,
    drawn: NDArray[np.int64],
    compared: NDArray[np.int64],
    lessons: _Lessons,
    settings: TrainingSettings,
    random: np.random.Generator,
) -> Any:
    """``(b,)`` logits: how much nearer the harmful ones of ``(m, d)`` others are than the benign ones."""
    import torch

    def each(array: NDArray[Any]) -> tuple[Any, Any]:
        return torch.from_numpy(array[drawn])[:, None], torch.from_numpy(array[compared])[None, :]

    mine, theirs = each(lessons.text)
    unseen = mine == theirs
    mine, theirs = each(lessons.family)
    unseen |= mine == theirs
    mine, theirs = each(lessons.is_request)
    unseen |= mine != theirs
    mine, theirs = each(lessons.source)
    alone = torch.from_numpy(random.random(len(drawn)) < settings.own_source_hidden)[:, None]
    unseen |= alone & (mine == theirs)
    similarity = vectors @ others.T / settings.temperature + torch.from_numpy(np.log(lessons.weight[compared]))
    similarity = similarity.masked_fill(unseen, _NOT_SEEN)
    harmful = torch.from_numpy(lessons.is_harmful[compared])[None, :]
    sides = []
    for wanted in (harmful, ~harmful):
        count = math.log(max(1, int(wanted.sum())))  # means, so that the margin does not depend on how many there are
        sides.append(torch.logsumexp(similarity.masked_fill(~wanted, _NOT_SEEN), dim=1) - count)
    return sides[0] - sides[1]


def _hazard_loss(
    vectors: Any,
    others: Any,
    drawn: NDArray[np.int64],
    compared: NDArray[np.int64],
    lessons: _Lessons,
    settings: TrainingSettings,
) -> Any:
    """Cross-entropy of the hazards that a batch's harmful windows are near to; those of their families do not count.

    A hazard is weighed by the root of how many of it are there, so that rare ones are told too.
    """
    import torch
    from torch.nn import functional

    asked, known = np.flatnonzero(lessons.hazard[drawn] >= 0), np.flatnonzero(lessons.hazard[compared] >= 0)
    if not len(asked) or not len(known):
        return torch.zeros(())

    def differs(array: NDArray[Any]) -> Any:
        mine, theirs = array[drawn[asked]], array[compared[known]]
        return torch.from_numpy(mine)[:, None] != torch.from_numpy(theirs)[None, :]

    seen = differs(lessons.text) & differs(lessons.family) & ~differs(lessons.is_request)
    similarity = vectors[torch.from_numpy(asked)] @ others[torch.from_numpy(known)].T / settings.temperature
    similarity = similarity.masked_fill(~seen, _NOT_SEEN)
    belongs = functional.one_hot(torch.from_numpy(lessons.hazard[compared[known]]), lessons.hazards).float()
    largest = similarity.max(dim=1, keepdim=True).values.detach()
    near = torch.exp(similarity - largest) @ belongs / belongs.sum(dim=0).clamp(min=1).sqrt()
    right = torch.from_numpy(lessons.hazard[drawn[asked]])
    share = near.gather(1, right[:, None])[:, 0] / near.sum(dim=1).clamp(min=1e-9)
    there = belongs.sum(dim=0)[right] > 0  # a hazard of which nothing else was drawn teaches nothing
    return -(torch.log(share.clamp(min=_LEAST_SHARE)) * there).mean()


def _loss(margin: Any, leaning: Any, drawn: NDArray[np.int64], lessons: _Lessons, settings: TrainingSettings) -> Any:
    import torch
    from torch.nn import functional

    label = torch.from_numpy(lessons.is_harmful[drawn].astype(np.float32))
    weight = torch.from_numpy(lessons.weight[drawn])
    total = torch.zeros(())
    for said in (margin, leaning):
        wrong = functional.binary_cross_entropy_with_logits(said, label, reduction="none")
        sure = (1 - label) * functional.relu(said + 1) ** 2
        total = total + (wrong * weight).mean() + settings.penalty * sure.mean()
    return total


def _schedule(step: int, steps: int) -> float:
    """Share of the learning rate: a short warm-up, then a half cosine."""
    return min(1.0, (step + 1) / 15) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _arrays(net: Any) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
    found = {name: parameter.detach().numpy() for name, parameter in net.named_parameters()}
    matrices = {name: array for name, array in found.items() if not name.startswith("leaning")}
    matrices["first.weight"] = matrices["first.weight"] * _FEATURE_SCALE
    leaning = np.column_stack([found["leaning.weight"] * _VECTOR_SCALE, found["leaning.bias"]])
    return matrices, {side: leaning[at].astype(np.float32) for at, side in enumerate(_SIDES)}


def _sets(records: Sequence[Antiprompt]) -> dict[str, Any]:
    """Rows and licence of each source."""
    count = Counter(record.source for record in records)
    licence = {record.source: record.licence for record in records}
    return {source: {"rows": count[source], "licence": licence[source]} for source in sorted(count)}
