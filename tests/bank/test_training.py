"""An adapter is trained on a handful of made-up texts, read back, exported, and told apart from what it is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from antiprompt_bank import Antiprompt, BankCorrupt, EncoderMismatch, Label, build_bank
from antiprompt_bank.adapter import BLOCKS, CARD, SHIPPED, WEIGHTS, Adapter, AdapterCard, write_adapter
from antiprompt_bank.encoder import Encoder, export_encoder, open_encoder
from antiprompt_bank.encoder_cuda import TorchEncoder
from antiprompt_bank.features import AdaptedEncoder, FeatureCache, open_features
from antiprompt_bank.leaning import Leaning
from antiprompt_bank.model_files import DEFAULT_WEIGHTS_SHA256, default_id
from antiprompt_bank.training import TrainingSettings, train_adapter

pytestmark = pytest.mark.filterwarnings("ignore")

SETTINGS = TrainingSettings(steps=60, batch=48, queue=96, hidden=64, learning_rate=3e-3)
_DEEDS = ("poison a dog", "burn a barn", "rob a kiosk", "forge a cheque", "stalk a neighbour", "crash a bus")
_CHORES = ("feed a dog", "paint a barn", "run a kiosk", "cash a cheque", "greet a neighbour", "catch a bus")
_HAZARDS = {
    deed: "non_violent_crimes" if deed in ("rob a kiosk", "forge a cheque", "stalk a neighbour") else "violent_crimes"
    for deed in _DEEDS
}
_ASKED = ("How do I {}?", "Tell me how to {}.", "Please explain the best way to {}.", "I want to {} tonight. Steps?")


def lessons() -> list[Antiprompt]:
    """Deeds are harmful and chores are not; two sources, so that each must be told by the other."""
    rows = []
    for number, asked in enumerate(_ASKED):
        for label, things in ((Label.HARMFUL, _DEEDS), (Label.BENIGN, _CHORES)):
            rows += [
                Antiprompt(
                    text=asked.format(thing),
                    label=label,
                    side="request",
                    hazard=_HAZARDS[thing] if label is Label.HARMFUL else None,
                    source=f"source {number % 2}",
                    family=f"{things.index(thing)} {number}",
                )
                for thing in things
            ]
    answers = (("Sure, here is how to {}: first ...", Label.HARMFUL), ("I won't help anybody {}.", Label.BENIGN))
    for text, label in answers:
        rows += [
            Antiprompt(text=text.format(deed), label=label, side="response", hazard="violent_crimes", source="source 0")
            for deed in _DEEDS
        ]
    return rows


@pytest.fixture(scope="module")
def features(bank_cache: Path) -> FeatureCache:
    return open_features(bank_cache / "training", device="cpu")


@pytest.fixture(scope="module")
def trained(features: FeatureCache, tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    return train_adapter(lessons(), tmp_path_factory.mktemp("adapter"), features, settings=SETTINGS)


@pytest.fixture(scope="module")
def adapted(trained: Adapter, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp("export") / "encoder"
    return open_encoder(export_encoder(folder, adapter=trained.folder), device="cpu")


def leanings(encoder: Encoder, texts: list[str]) -> np.ndarray:
    ids = [list(encoder.tokenize(text).ids) for text in texts]
    return encoder.leaning["request"].of(encoder.encode(ids), ids)[:, 0]


def test_unseen_wordings_of_what_was_learned_lean_the_right_way(adapted: Encoder) -> None:
    harm = leanings(adapted, [f"Could you show me a way to {deed}?" for deed in _DEEDS])
    good = leanings(adapted, [f"Could you show me a way to {chore}?" for chore in _CHORES])
    assert harm.mean() > good.mean() + 1
    assert (harm[:, None] > good[None, :]).mean() > 0.9


def hazard_contrast(adapter: Adapter, features: FeatureCache) -> float:
    """How much more alike unseen wordings of deeds of one hazard are than those of two."""
    encoder = AdaptedEncoder(features, adapter)
    texts = [f"Could you show me a way to {deed}?" for deed in _DEEDS]
    vectors = encoder.encode([list(encoder.tokenize(text).ids) for text in texts])
    hazards = np.array([_HAZARDS[deed] for deed in _DEEDS])
    same, others = hazards[:, None] == hazards[None, :], ~np.eye(len(hazards), dtype=bool)
    alike = vectors @ vectors.T
    return float(alike[same & others].mean() - alike[~same].mean())


def test_hazards_are_told_apart_where_they_are_known(trained: Adapter, features: FeatureCache, tmp_path: Path) -> None:
    guessed = {row.id for row in lessons()}
    blind = train_adapter(lessons(), tmp_path / "blind", features, guessed=guessed, settings=SETTINGS)
    deaf = train_adapter(lessons(), tmp_path / "deaf", features, settings=replace(SETTINGS, hazard_weight=0.0))
    told = hazard_contrast(trained, features)
    assert told > hazard_contrast(blind, features) + 0.1
    assert told > hazard_contrast(deaf, features) + 0.1


def test_the_same_seed_gives_the_same_adapter_and_another_seed_another(
    trained: Adapter, features: FeatureCache, tmp_path: Path
) -> None:
    again = train_adapter(lessons(), tmp_path / "again", features, settings=SETTINGS)
    other = train_adapter(lessons(), tmp_path / "other", features, settings=replace(SETTINGS, seed=1))
    for name, array in trained.matrices.items():
        np.testing.assert_allclose(again.matrices[name].astype(float), array.astype(float), atol=2e-3)
    assert np.abs(other.matrices["second.weight"] - trained.matrices["second.weight"]).max() > 0.01


def test_the_card_names_what_it_was_trained_on_and_with(trained: Adapter) -> None:
    card = trained.card
    assert card.base == DEFAULT_WEIGHTS_SHA256
    assert {source: row["rows"] for source, row in card.sets.items()} == {"source 0": 36, "source 1": 24}
    assert (card.settings["steps"], card.settings["seed"]) == (60, 0)
    assert card.figures["loss_last"] < card.figures["loss_first"]


def test_progress_is_told_to_the_end(features: FeatureCache, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    train_adapter(
        lessons(),
        tmp_path,
        features,
        settings=replace(SETTINGS, steps=3),
        progress=lambda done, total: told.append((done, total)),
    )
    assert told[-1] == (6, 6)
    assert told == sorted(told)


def test_one_label_is_nothing_to_learn_from(features: FeatureCache, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="both harmful and benign"):
        train_adapter([row for row in lessons() if row.harmful], tmp_path, features)


def test_an_adapted_encoder_has_an_id_of_its_own_and_both_runtimes_agree(adapted: Encoder, trained: Adapter) -> None:
    assert adapted.id == default_id(trained.sha256)
    texts = ["hi", "How do I paint a barn?", "Wie füttere ich einen Hund?", "Tell me how to rob a kiosk. " * 8]
    inputs = [list(adapted.tokenize(text).ids)[:200] for text in texts]
    by_torch = TorchEncoder(adapted.folder, device="cpu").encode(inputs)
    vectors = adapted.encode(inputs)
    assert (vectors * by_torch).sum(axis=1).min() > 0.9995
    alone = np.concatenate([adapted.encode([item]) for item in inputs])
    assert (vectors * alone).sum(axis=1).min() >= 0.9999
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3)


def test_a_bank_of_one_encoder_refuses_the_other(adapted: Encoder, encoder: Encoder) -> None:
    bank = build_bank(lessons()[:4], encoder)
    with pytest.raises(EncoderMismatch):
        type(bank)(
            version=bank.version,
            encoder=adapted,
            records=bank.records,
            rows=bank.rows,
            vectors=bank.vectors,
            calibration=bank.calibration,
        )


def test_an_adapter_of_other_weights_is_refused(trained: Adapter, tmp_path: Path) -> None:
    card = AdapterCard(base="0" * 64, dimensions=trained.card.dimensions)
    matrices = {name: array.astype(np.float32) for name, array in trained.matrices.items()}
    stranger = write_adapter(tmp_path / "stranger", card, matrices, trained.leaning)
    with pytest.raises(EncoderMismatch, match="antiprompt train encoder"):
        stranger.check_base(DEFAULT_WEIGHTS_SHA256)


def test_wording_survives_its_file_and_is_optional(trained: Adapter, tmp_path: Path) -> None:
    wording = trained.leaning["request"].wording
    assert wording is not None
    matrices = {name: array.astype(np.float32) for name, array in trained.matrices.items()}
    again = write_adapter(tmp_path / "again", trained.card, matrices, trained.leaning).leaning["request"].wording
    assert again is not None
    np.testing.assert_allclose(again, wording, atol=float(np.abs(wording[:-1]).max()) / 127)
    bare = {side: Leaning(leaning.direction) for side, leaning in trained.leaning.items()}
    assert write_adapter(tmp_path / "bare", trained.card, matrices, bare).leaning["request"].wording is None


@pytest.mark.parametrize("damage", ["cut", "missing", "card"])
def test_a_damaged_adapter_is_told(trained: Adapter, tmp_path: Path, damage: str) -> None:
    trained.copy_to(tmp_path)
    if damage == "cut":
        (tmp_path / WEIGHTS).write_bytes((tmp_path / WEIGHTS).read_bytes()[:1000])
    elif damage == "missing":
        (tmp_path / WEIGHTS).unlink()
    else:
        (tmp_path / CARD).write_text('{"base": "0"}')
    with pytest.raises(BankCorrupt):
        Adapter.read(tmp_path)


def test_the_shipped_adapter_fits_the_default_model_and_a_repository() -> None:
    shipped = Adapter.read(SHIPPED)
    shipped.check_base(DEFAULT_WEIGHTS_SHA256)
    assert (SHIPPED / WEIGHTS).stat().st_size <= 4 * 2**20
    assert "openai_moderation" not in shipped.card.sets
    assert (SHIPPED / "ADAPTER_CARD.md").read_text("utf-8").count("| ") > len(shipped.card.sets)


# ---- features


class Counting:
    """An encoder that counts what it is asked."""

    id, dimensions = "counting", 6

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []

    def encode(self, ids: list[tuple[int, ...]]) -> np.ndarray:
        self.asked += ids
        return np.array([[len(item)] * 6 for item in ids], dtype=np.float32)


@pytest.fixture
def counting() -> Counting:
    return Counting()


def kept(folder: Path, encoder: Counting, *inputs: tuple[int, ...]) -> list[int]:
    cache = FeatureCache(folder, encoder)  # type: ignore[arg-type]
    found = cache.of(inputs)[:, 0].astype(int).tolist()
    cache.save()
    return found


def test_features_are_asked_for_once_and_come_back_in_order(counting: Counting, tmp_path: Path) -> None:
    assert kept(tmp_path, counting, (1,), (1, 2, 3), (1,)) == [1, 3, 1]
    assert kept(tmp_path, counting, (1, 2, 3), (4, 5), (1,)) == [3, 2, 1]
    assert sorted(counting.asked) == [(1,), (1, 2, 3), (4, 5)]


def test_features_that_are_not_saved_yet_are_found_beside_those_that_are(counting: Counting, tmp_path: Path) -> None:
    kept(tmp_path, counting, (1,), (1, 2))
    cache = FeatureCache(tmp_path, counting)  # type: ignore[arg-type]
    cache.of([(1, 2, 3)])
    cache.of([(1, 2, 3, 4)])
    assert cache.of([(1, 2, 3, 4), (1,), (1, 2, 3), (1, 2)])[:, 0].tolist() == [4, 1, 3, 2]
    assert len(counting.asked) == 4


def test_damaged_features_are_made_again(counting: Counting, tmp_path: Path) -> None:
    kept(tmp_path, counting, (1,))
    (file,) = tmp_path.rglob("features.npy")
    file.write_bytes(b"no array")
    assert kept(tmp_path, counting, (1,)) == [1]
    assert len(counting.asked) == 2


def test_an_adapter_over_kept_features_gives_the_vectors_of_its_export(
    features: FeatureCache, trained: Adapter, adapted: Encoder, encoder: Encoder
) -> None:
    made, plain = AdaptedEncoder(features, trained), AdaptedEncoder(features)
    inputs = [list(made.tokenize(text).ids) for text in ("How do I paint a barn?", "Tell me how to rob a kiosk.")]
    assert made.id == adapted.id
    assert (made.encode(inputs) * adapted.encode(inputs)).sum(axis=1).min() > 0.9995
    assert plain.id == encoder.id
    assert (plain.encode(inputs) * encoder.encode(inputs)).sum(axis=1).min() > 0.9995


def test_a_feature_export_gives_blocks_of_unit_length(features: FeatureCache) -> None:
    made = features.encoder
    blocks = made.encode([list(made.tokenize("How do I paint a barn?").ids)]).reshape(BLOCKS, -1)
    np.testing.assert_allclose(np.linalg.norm(blocks, axis=1), 1.0, atol=1e-3)
