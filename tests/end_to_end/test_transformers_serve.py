"""``transformers serve`` behind the gateway: a model server of others, with a tiny model that the tests make.

The model's weights are random and nothing is downloaded. Its server differs from OpenAI's in what a gateway must not
stumble over: streams end without ``[DONE]``, usage comes in the chunk that finishes, errors have a shape of their own,
and a response is streamed unless the request says that it shall not be.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import openai
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.end_to_end.conftest import MakeGateway
from tests.end_to_end.exemplars import BAD_REQUEST, GOOD_REQUEST
from tests.end_to_end.official import Method, Official
from tests.end_to_end.running_gateway import PATIENCE_S, RunningGateway, free_port
from tests.end_to_end.state import State

MODEL: Final = "tests/tiny"
_REVISION: Final = "0" * 40
_WORDS: Final = ("bread", "flour", "water", "salt", "yeast", "oven", "dough", "crust", "loaf", "bowl", "towel", "baker")
_CHAT_TEMPLATE: Final = "{% for message in messages %}{{ message['role'] }} {{ message['content'] }} {% endfor %}"


def _make_model(folder: Path) -> None:
    """A Llama of one layer that strings random words of ``_WORDS`` together."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(["<unk>", "<s>", "</s>", *_WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", bos_token="<s>", eos_token="</s>", chat_template=_CHAT_TEMPLATE
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=1024,
        bos_token_id=vocabulary["<s>"],
        eos_token_id=vocabulary["</s>"],
        pad_token_id=vocabulary["</s>"],
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def hugging_face_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder whose cache holds the model, as if it had been downloaded."""
    home = tmp_path_factory.mktemp("hugging_face")
    repository = home / "hub" / f"models--{MODEL.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(_REVISION)
    _make_model(repository / "snapshots" / _REVISION)
    return home


class ModelServer:
    """A running ``transformers serve``."""

    def __init__(self, home: Path) -> None:
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        self._log_file = home / "serve.log"
        command = [str(Path(sys.executable).with_name("transformers")), "serve", MODEL]
        options = ["--host", "127.0.0.1", "--port", str(self.port), "--device", "cpu"]
        offline = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        with self._log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, *options], env={**os.environ, **offline}, stdout=log, stderr=log
            )

    @property
    def log(self) -> str:
        return self._log_file.read_text("utf-8", "replace")

    @property
    def asked(self) -> int:
        """How many requests for text it has answered."""
        return self.log.count('"POST /v1/')

    def wait_until_ready(self) -> None:
        ends_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends_s:
            assert self._process.poll() is None, f"transformers serve ended:\n{self.log}"
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/health").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"transformers serve was not ready in time:\n{self.log}")

    def close(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def model_server(hugging_face_home: Path) -> Iterator[ModelServer]:
    server = ModelServer(hugging_face_home)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def key_and_gateway(model_server: ModelServer, make_gateway: MakeGateway) -> tuple[str, RunningGateway]:
    gateway = make_gateway(UPSTREAM__BASE_URL=model_server.base_url, UPSTREAM__API_KEY="sk-unused")

    async def key() -> str:
        async with State.beside(gateway.data_dir) as state:
            _, token = await state.new_key("refusal")
            return token

    return asyncio.run(key()), gateway


@pytest.fixture(params=["sync", "async"])
async def clients(
    request: pytest.FixtureRequest, model_server: ModelServer, key_and_gateway: tuple[str, RunningGateway]
) -> AsyncIterator[list[Official]]:
    """One that asks the model server itself, and one that asks through the gateway."""
    key, gateway = key_and_gateway
    is_async = request.param == "async"
    made = [Official(base, key, is_async=is_async) for base in (model_server.base_url, f"{gateway.url}/v1")]
    yield made
    for official in made:
        await official.close()


CHAT: Final[dict[str, Any]] = {"model": MODEL, "messages": [{"role": "user", "content": GOOD_REQUEST}]}
# The server names its replies after this header, so that two of them can be compared.
BOTH: Final[dict[str, Any]] = {"extra_headers": {"X-Request-Id": "request-1"}}
TEXTS: Final[dict[str, Method]] = {
    "chat": lambda c: c.chat.completions.create(**CHAT, **BOTH, max_tokens=24),
    "completion": lambda c: c.completions.create(model=MODEL, prompt=GOOD_REQUEST, **BOTH, max_tokens=24),
    "response": lambda c: c.responses.create(
        model=MODEL, input=GOOD_REQUEST, **BOTH, max_output_tokens=24, stream=False
    ),
}
STREAMS: Final[dict[str, Method]] = {
    "chat": lambda c: c.chat.completions.create(**CHAT, **BOTH, max_tokens=120, stream=True),
    "completion": lambda c: c.completions.create(model=MODEL, prompt=GOOD_REQUEST, **BOTH, max_tokens=120, stream=True),
    "response": lambda c: c.responses.create(
        model=MODEL, input=GOOD_REQUEST, **BOTH, max_output_tokens=120, stream=True
    ),
}


def _seen(reply: Any) -> Any:
    """A reply without the time it was made at."""
    seen = reply.to_dict()
    for each in (seen, seen.get("response", {})):
        each.pop("created", None)
        each.pop("created_at", None)
    return seen


async def test_its_models_are_listed(clients: list[Official]) -> None:
    for official in clients:
        assert [model.id for model in await official.read(lambda c: c.models.list())] == [MODEL]


@pytest.mark.parametrize("name", TEXTS)
async def test_its_replies_come_through_as_they_are(name: str, clients: list[Official]) -> None:
    direct, through = [_seen(await official.ask(TEXTS[name])) for official in clients]
    assert through == direct
    assert any(word in str(through) for word in _WORDS)


@pytest.mark.parametrize("name", STREAMS)
async def test_its_streams_come_through_event_by_event(name: str, clients: list[Official]) -> None:
    direct, through = [[_seen(each) for each in await official.read(STREAMS[name])] for official in clients]
    assert len(through) > 3
    assert through == direct


async def test_its_chat_stream_says_what_its_whole_reply_says(clients: list[Official]) -> None:
    through = clients[1]
    reply = await through.ask(lambda c: c.chat.completions.create(**CHAT, max_tokens=120))
    chunks = await through.read(STREAMS["chat"])
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == reply.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == reply.choices[0].finish_reason
    assert chunks[-1].usage == reply.usage


async def test_a_blocked_request_never_reaches_it(clients: list[Official], model_server: ModelServer) -> None:
    asked, through = model_server.asked, clients[1]
    bad = {"model": MODEL, "messages": [{"role": "user", "content": BAD_REQUEST}]}
    reply = await through.ask(lambda c: c.chat.completions.create(**bad))
    chunks = await through.read(lambda c: c.chat.completions.create(**bad, stream=True))
    assert reply.choices[0].finish_reason == chunks[-1].choices[0].finish_reason == "content_filter"
    await through.ask(TEXTS["chat"])
    assert model_server.asked == asked + 1


async def test_its_errors_come_through_as_they_are(clients: list[Official]) -> None:
    raised = []
    for official in clients:
        with pytest.raises(openai.UnprocessableEntityError) as error:
            await official.ask(lambda c: c.chat.completions.create(**CHAT, extra_body={"no_such_parameter": 1}))
        raised.append((error.value.message, error.value.body))
    assert raised[1] == raised[0]
