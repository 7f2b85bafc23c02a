from pathlib import Path

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from gateway.alignment.adapters import LoraShape
from gateway.alignment.language_model import TINY, LanguageModel, load_language_model, tiny_tokenizer, with_adapter
from tests.gateway.alignment.tiny import draw_one  # noqa: F401  # one thread

ASKED = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "héllo"}]


def tiny(path: str = TINY) -> LanguageModel:
    return load_language_model(path, max_tokens=256, seed=0)


def test_an_example_is_the_chat_template_with_only_the_answer_learned() -> None:
    model = tiny()
    example = model.example(ASKED, "wörld")
    whole = model.tokenizer.decode(list(example.prompt + example.answer))
    assert whole == "<begin>system\nbe brief<end><begin>user\nhéllo<end><begin>assistant\nwörld<end>"
    assert model.text(example.answer) == "wörld"
    assert example.answer[-1] == model.end
    assert example.prompt == model.prompt(ASKED)


def test_what_a_template_writes_behind_the_end_is_not_learned() -> None:
    model = tiny()
    model.tokenizer.chat_template = model.tokenizer.chat_template.replace("'<end>' }}", "'<end>\\n' }}")
    assert model.text(model.answer(ASKED, "fine")) == "fine"
    assert model.answer(ASKED, "fine")[-1] == model.end


def test_a_template_that_changes_the_prompt_once_it_is_answered_is_refused() -> None:
    model = tiny()
    model.tokenizer.chat_template = "{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(ValueError, match="writes the prompt anew"):
        model.answer(ASKED, "fine")


def test_a_saved_model_is_loaded_and_the_adapter_is_all_that_is_trained(tmp_path: Path) -> None:
    first = tiny()
    first.model.save_pretrained(tmp_path)
    first.tokenizer.save_pretrained(tmp_path)
    model = with_adapter(tiny(str(tmp_path)), LoraShape(2, 4), seed=1)
    assert model.prompt(ASKED) == first.prompt(ASKED)
    trained = [name for name, weight in model.model.named_parameters() if weight.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    assert {name.split(".")[-4] for name in trained} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip


def test_folders_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no causal language model"):
        tiny(str(tmp_path / "nothing"))
    tokenizer = tiny_tokenizer()
    GPT2LMHeadModel(
        GPT2Config(vocab_size=100, n_positions=8, n_embd=8, n_layer=1, n_head=1, bos_token_id=1, eos_token_id=2)
    ).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="token 258, and its model knows 100 tokens only"):
        tiny(str(tmp_path))
    tokenizer.chat_template = None
    (tmp_path / "chat_template.jinja").unlink()
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no chat template"):
        tiny(str(tmp_path))
