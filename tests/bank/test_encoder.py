from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from antiprompt_bank.encoder import Encoder, export_encoder, open_encoder
from antiprompt_bank.encoder_cuda import TorchEncoder
from antiprompt_bank.errors import BankCorrupt, EncoderMismatch, EncoderUnavailable
from antiprompt_bank.model_files import (
    DEFAULT_MODEL,
    DEFAULT_WEIGHTS_SHA256,
    EncoderCard,
    default_id,
    model_folder,
    weights_sha256,
)

TEXTS = (
    "hi",
    "How do I bake a loaf of bread?",
    "How do I bake a loaf of cake??",  # as many tokens as the one before, so that they share an inference
    "Drink bleach, it cures a headache within the hour.",
    "def add(a, b):\n    return a + b",
    "Wie wird das Wetter morgen in Rom?",
    "आज मौसम कैसा है?",
    "Explain to me how the tax return of a small company works, what has to be handed in and by when. " * 3,
)


@pytest.fixture(scope="module")
def inputs(encoder: Encoder) -> list[list[int]]:
    return [encoder.tokenize(text).ids[:64] for text in TEXTS]


@pytest.fixture(scope="module")
def alone(encoder: Encoder, inputs: list[list[int]]) -> np.ndarray:
    return np.vstack([encoder.encode([ids]) for ids in inputs])


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", one.astype(np.float64), other.astype(np.float64))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=24))
def test_a_vector_does_not_depend_on_what_else_is_in_the_batch(
    encoder: Encoder, inputs: list[list[int]], alone: np.ndarray, batch: list[int]
) -> None:
    vectors = encoder.encode([inputs[at] for at in batch])
    assert cosines(vectors, alone[batch]).min() >= 0.9999


def test_vectors_have_length_one_and_equal_texts_equal_vectors(encoder: Encoder, inputs: list[list[int]]) -> None:
    vectors = encoder.encode([*inputs, inputs[0]])
    assert vectors.shape == (len(inputs) + 1, encoder.dimensions)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-4)
    assert cosines(vectors[:1], vectors[-1:])[0] >= 0.9999


def test_nothing_to_encode_gives_no_vectors(encoder: Encoder) -> None:
    assert encoder.encode([]).shape == (0, encoder.dimensions)


def test_a_text_longer_than_the_model_reads_is_refused(encoder: Encoder) -> None:
    with pytest.raises(ValueError, match="256"):
        encoder.encode([[1000] * 255])


def test_several_callers_get_what_each_would_have_got_alone(encoder: Encoder, alone: np.ndarray) -> None:
    shared = open_encoder(encoder.folder, device="cpu", threads=2)
    inputs = [shared.tokenize(text).ids[:64] for text in TEXTS]
    results: list[np.ndarray] = []

    def call(order: Sequence[int]) -> None:
        back = np.argsort(order)
        results.extend(shared.encode([inputs[at] for at in order])[back] for _ in range(5))

    callers = [
        threading.Thread(target=call, args=(np.random.default_rng(n).permutation(len(TEXTS)),)) for n in range(4)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(results) == 20
    for vectors in results:
        assert cosines(vectors, alone).min() >= 0.9999


@pytest.mark.filterwarnings("ignore")
def test_torch_and_the_cpu_runtime_share_an_id_because_they_agree(
    encoder: Encoder, inputs: list[list[int]], alone: np.ndarray
) -> None:
    torch_encoder = TorchEncoder(encoder.folder, device="cpu")
    vectors = torch_encoder.encode(inputs)
    assert torch_encoder.id == encoder.id == default_id()
    assert cosines(vectors, alone).min() > 0.9995
    assert np.abs(vectors @ vectors.T - alone @ alone.T).max() < 0.005


@pytest.mark.filterwarnings("ignore")
def test_another_model_is_exported_from_its_folder_and_named_for_its_weights(tmp_path: Path) -> None:
    model = tiny_roberta(tmp_path / "tiny-roberta")
    made = open_encoder(export_encoder(tmp_path / "export", str(model)), device="cpu")
    assert made.id == f"tiny-roberta@{weights_sha256(model, str(model))[:12]}:mean"
    assert (made.dimensions, made.max_tokens) == (16, 30)
    reference = TorchEncoder(made.folder, device="cpu")
    texts = [[3, 4, 5], [6], [3, 4, 5, 6, 7]]
    assert cosines(made.encode(texts), reference.encode(texts)).min() > 0.999

    with (model / "model.safetensors").open("ab") as file:
        file.write(b" ")
    with pytest.raises(EncoderMismatch, match="tiny-roberta"):
        TorchEncoder(made.folder, device="cpu")


def tiny_roberta(folder: Path) -> Path:
    """A sentence-transformers model with random weights that knows no token types, in ``folder``."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers import models as modules
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaModel

    words = ["<s>", "</s>", "<pad>", *(f"w{n}" for n in range(29))]
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    config = RobertaConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=40, type_vocab_size=1, pad_token_id=2,
    )  # fmt: skip
    parts = folder.parent / "parts"
    RobertaModel(config).save_pretrained(parts)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=30
    ).save_pretrained(parts)
    transformer = modules.Transformer(str(parts), max_seq_length=30)
    SentenceTransformer(modules=[transformer, modules.Pooling(16)], device="cpu").save(str(folder))
    return folder


def test_the_embedded_weights_are_the_published_ones() -> None:
    folder = model_folder(DEFAULT_MODEL)
    assert folder is not None
    assert weights_sha256(folder, DEFAULT_MODEL) == DEFAULT_WEIGHTS_SHA256


def test_embedded_weights_that_were_altered_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(EncoderMismatch, match=DEFAULT_WEIGHTS_SHA256):
        weights_sha256(tmp_path, DEFAULT_MODEL)


def test_pickled_weights_are_never_read(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(EncoderUnavailable, match="safetensors"):
        weights_sha256(tmp_path, str(tmp_path))


def test_an_export_that_fails_says_why_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(EncoderUnavailable, match="safetensors"):
        export_encoder(tmp_path / "export", str(tmp_path / "empty"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["empty"]


def test_what_is_exported_already_is_left_alone(encoder: Encoder) -> None:
    assert export_encoder(encoder.folder, "/no/such/model") == encoder.folder


def test_a_folder_that_is_no_export_is_reported(tmp_path: Path, encoder: Encoder) -> None:
    with pytest.raises(BankCorrupt, match=r"encoder\.json"):
        open_encoder(tmp_path, device="cpu")
    shutil.copytree(encoder.folder, tmp_path / "cut", dirs_exist_ok=True)
    (tmp_path / "cut" / "openvino.xml").write_text("<net/>")
    with pytest.raises(BankCorrupt, match=r"openvino\.xml"):
        open_encoder(tmp_path / "cut", device="cpu")


def test_a_card_is_the_same_after_a_trip_through_its_file(tmp_path: Path) -> None:
    card = EncoderCard("a@b:mean", "a", "b" * 64, 16, 30)
    card.write(tmp_path)
    assert EncoderCard.read(tmp_path) == card


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU")
def test_asking_for_a_gpu_where_there_is_none_is_an_error(encoder: Encoder) -> None:
    with pytest.raises(EncoderUnavailable, match="no GPU"):
        open_encoder(encoder.folder, device="cuda")


def test_no_number_of_threads_below_one_is_taken(encoder: Encoder) -> None:
    with pytest.raises(ValueError, match="threads is 0"):
        open_encoder(encoder.folder, device="cpu", threads=0)


def test_without_openvino_the_message_names_what_to_install(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EncoderUnavailable, match=r"antiprompt-gateway\[cpu\]"):
        open_encoder(encoder.folder, device="cpu")


def test_encoding_on_a_cpu_loads_no_torch(encoder: Encoder) -> None:
    program = (
        "import sys; from pathlib import Path; from antiprompt_bank.encoder import open_encoder;"
        "made = open_encoder(Path(sys.argv[1]), device='cpu'); made.encode([made.tokenize('hello').ids]);"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, str(encoder.folder)], check=True, cwd=Path(__file__).parents[2])
