"""A causal language model from a folder, its adapter, and conversations as the tokens it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from gateway.alignment.adapters import LoraShape, with_lora
from gateway.alignment.token_batches import Example, Ids

TINY: Final = "tiny:random"
"""A model of a few thousand random weights that reads bytes: nothing to download, for tests and first tries."""

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """A model with its tokenizer; ``max_tokens`` is how much of an example it is shown."""

    model: Any
    tokenizer: Any
    max_tokens: int

    @property
    def pad(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(self.end if pad is None else pad)

    @property
    def end(self) -> int:
        return int(self.tokenizer.eos_token_id)

    def prompt(self, messages: Messages) -> Ids:
        """The tokens before the answer, in the model's own chat template."""
        return self._tokens(self._templated(messages, True))

    def answer(self, messages: Messages, text: str) -> Ids:
        """The tokens of an answer to these messages, with the one that ends it."""
        before = self._templated(messages, True)
        whole = self._templated([*messages, {"role": "assistant", "content": text}], False)
        if not whole.startswith(before):
            raise ValueError("the model's chat template writes the prompt anew once it is answered: it cannot be used")
        ids = self._tokens(whole[len(before) :])
        ends = [at for at, token in enumerate(ids) if token == self.end]
        return ids[: ends[-1] + 1] if ends else (*ids, self.end)  # what a template writes after the end is not learned

    def example(self, messages: Messages, text: str) -> Example:
        return Example(self.prompt(messages), self.answer(messages, text)).cut(self.max_tokens)

    def text(self, ids: Ids) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def _templated(self, messages: Messages, ask: bool) -> str:
        plain = [dict(message) for message in messages]
        return str(self.tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=ask))

    def _tokens(self, text: str) -> Ids:
        return tuple(self.tokenizer(text, add_special_tokens=False).input_ids)


def load_language_model(path: str, *, max_tokens: int, seed: int) -> LanguageModel:
    """A model from a folder in Hugging Face's layout, or ``tiny:random``; on the GPU in bf16 where there is one.

    Nothing is downloaded and no code of the folder runs. Raises ``ValueError`` for a folder without a causal model,
    a tokenizer that does not belong to it, or one without a chat template.
    """
    if path == TINY:
        return LanguageModel(_tiny_model(seed), tiny_tokenizer(), max_tokens)
    on_gpu = torch.cuda.is_available()
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            path, local_files_only=True, dtype=torch.bfloat16 if on_gpu else torch.float32
        )
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} holds no causal language model with its tokenizer: {error}") from None
    if tokenizer.chat_template is None:
        raise ValueError(f"the tokenizer of {path} has no chat template: add chat_template.jinja to the folder")
    if tokenizer.eos_token_id is None:
        raise ValueError(f"the tokenizer of {path} names no token that ends an answer (eos_token)")
    known, largest = model.get_input_embeddings().num_embeddings, max(tokenizer.get_vocab().values())
    if largest >= known:
        raise ValueError(f"the tokenizer of {path} gives out token {largest}, and its model knows {known} tokens only")
    return LanguageModel(model.to("cuda") if on_gpu else model, tokenizer, max_tokens)


def with_adapter(language_model: LanguageModel, shape: LoraShape, seed: int) -> LanguageModel:
    """The same with a fresh adapter, and only that to train."""
    return replace(language_model, model=with_lora(language_model.model, shape, seed))


def tiny_tokenizer() -> Any:
    """Reads bytes; its template writes each message as <begin>role, a line break, the text and <end>."""
    special = ("<pad>", "<begin>", "<end>")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={text: at for at, text in enumerate((*special, *letters))}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    named = dict(zip(("pad_token", "bos_token", "eos_token"), special, strict=True))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)
    fast.chat_template = (
        "{% for message in messages %}{{ '<begin>' + message['role'] + '\\n' + message['content'] + '<end>' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<begin>assistant\\n' }}{% endif %}"
    )
    return fast


def _tiny_model(seed: int) -> Any:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=259,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            tie_word_embeddings=True,
        )
    )
