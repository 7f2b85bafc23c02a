from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from antiprompt_bank.model_files import DEFAULT_MODEL, model_folder
from antiprompt_bank.tokens import Tokeniser


@pytest.fixture(scope="module")
def bert() -> Tokeniser:
    folder = model_folder(DEFAULT_MODEL)
    assert folder is not None
    return Tokeniser(folder / "tokenizer.json", 256)


def roberta(folder: Path) -> Tokeniser:
    vocabulary = {"<s>": 0, "</s>": 1, "a": 2, "b": 3, "<unk>": 4}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    tokenizer.save(str(folder / "tokenizer.json"))
    return Tokeniser(folder / "tokenizer.json", 12)


def test_a_long_text_is_tokenised_whole_although_the_file_truncates_at_128(bert: Tokeniser) -> None:
    text = "bleach and " * 5000
    spans = bert.tokenize(text)
    assert len(spans.ids) > 10_000
    assert text[slice(*spans.offsets[-1])] == "and"


def test_a_short_text_is_not_padded(bert: Tokeniser) -> None:
    assert len(bert.tokenize("hello world").ids) == 2


def test_offsets_are_characters_of_the_text_as_it_was_written(bert: Tokeniser) -> None:
    text = "Ünïcode 😀 first, THEN more"
    assert [text[start:end] for start, end in bert.tokenize(text).offsets][-2:] == ["THEN", "more"]


def test_half_a_surrogate_pair_is_read_as_a_replacement_character(bert: Tokeniser) -> None:
    text = "before \ud800 after"
    assert [text[start:end] for start, end in bert.tokenize(text).offsets][-1] == "after"


def test_one_text_gets_berts_special_tokens(bert: Tokeniser) -> None:
    assert bert.framed([7, 8]) == [101, 7, 8, 102]


def test_the_template_of_another_family_of_models_is_read_off_its_file(tmp_path: Path) -> None:
    made = roberta(tmp_path)
    assert made.framed([2]) == [0, 2, 1]


def test_what_is_longer_than_the_model_reads_is_refused_and_never_cut(tmp_path: Path) -> None:
    made = roberta(tmp_path)
    assert made.room == 10
    assert len(made.framed([2] * 10)) == 12
    with pytest.raises(ValueError, match="13 tokens, but the encoder reads 12"):
        made.framed([2] * 11)
