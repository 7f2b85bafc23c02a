from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as other_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from antiprompt_bank.signed import (
    ExchangeRefused,
    _message,
    fingerprint,
    is_signed,
    private_key,
    public_key,
    read_signed,
    signed_file,
)

ROWS = [{"text": f"exemplar {number}, ä", "licence": "CC0-1.0", "source": "us"} for number in range(3)]


@pytest.fixture(scope="module")
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


@pytest.fixture
def written(key: Ed25519PrivateKey, tmp_path: Path) -> Callable[[bytes | None], Path]:
    """Writes a signed file, or other bytes in its place."""

    def write(content: bytes | None = None) -> Path:
        path = tmp_path / "given.jsonl"
        made = signed_file(ROWS, key, origin="us", created_at="2026-11-20T12:00:00+00:00")
        path.write_bytes(made if content is None else content)
        return path

    return write


def test_what_was_signed_is_read_by_whoever_trusts_the_key(
    key: Ed25519PrivateKey, written: Callable[[bytes | None], Path]
) -> None:
    path = written(None)
    assert is_signed(path)
    head, rows = read_signed(path, [Ed25519PrivateKey.generate().public_key(), key.public_key()])
    assert rows == ROWS
    assert (head.origin, head.contents, head.records, head.licences) == ("us", "text", 3, ("CC0-1.0",))


def test_a_changed_byte_is_refused_wherever_it_is(
    key: Ed25519PrivateKey, written: Callable[[bytes | None], Path]
) -> None:
    good = written(None).read_bytes()
    for at in range(0, len(good), 7):
        path = written(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(ExchangeRefused):
            read_signed(path, [key.public_key()])


def test_a_line_more_or_less_or_another_order_is_refused(
    key: Ed25519PrivateKey, written: Callable[[bytes | None], Path]
) -> None:
    head, first, second, third, signature = written(None).read_bytes().splitlines(keepends=True)
    for lines in (
        [head, first, second, signature],
        [head, first, second, third, third, signature],
        [head, second, first, third, signature],
        [head, first, second, third, b"\n", signature],
    ):
        with pytest.raises(ExchangeRefused, match="changed after it was signed"):
            read_signed(written(b"".join(lines)), [key.public_key()])


def test_a_file_without_a_signature_or_cut_off_is_refused(
    key: Ed25519PrivateKey, written: Callable[[bytes | None], Path]
) -> None:
    good = written(None).read_bytes()
    body = good[: good.rindex(b"\n", 0, -1) + 1]
    for content in (body, good[:-1], good[: len(good) // 2], b"", b"\n\n", b'{"text": "plain"}\n{"text": "lines"}\n'):
        with pytest.raises(ExchangeRefused, match=r"signature|cut off|not JSON|no signed file"):
            read_signed(written(content), [key.public_key()])


def test_a_key_that_is_not_trusted_is_refused_and_named(written: Callable[[bytes | None], Path]) -> None:
    with pytest.raises(ExchangeRefused, match="not trusted"):
        read_signed(written(None), [Ed25519PrivateKey.generate().public_key()])
    with pytest.raises(ExchangeRefused, match="not trusted"):
        read_signed(written(None), [])


def test_somebody_elses_signature_under_a_trusted_name_is_refused(
    key: Ed25519PrivateKey, written: Callable[[bytes | None], Path]
) -> None:
    forger = Ed25519PrivateKey.generate()
    forged = signed_file(ROWS, forger, origin="us", created_at="2026-11-20T12:00:00+00:00").splitlines(keepends=True)
    head = json.loads(forged[0])
    head["public_key"] = json.loads(written(None).read_bytes().splitlines()[0])["public_key"]
    path = written(json.dumps(head).encode() + b"\n" + b"".join(forged[1:]))
    with pytest.raises(ExchangeRefused, match="another file's"):
        read_signed(path, [key.public_key()])


@pytest.mark.parametrize(
    "change",
    [{"format": "other/1"}, {"contents": "both"}, {"encoder": "x"}, {"records": "3"}, {"licences": None}, {"more": 1}],
)
def test_a_head_that_says_what_no_head_says_is_refused(
    change: dict[str, object], key: Ed25519PrivateKey, written: Callable[[bytes | None], Path]
) -> None:
    head, *rows, _ = written(None).read_bytes().splitlines(keepends=True)
    path = written(_signed_anew([json.dumps({**json.loads(head), **change}).encode() + b"\n", *rows], key))
    with pytest.raises(ExchangeRefused):
        read_signed(path, [key.public_key()])


@pytest.mark.parametrize("line", [b"[1]", b"{", b"[" * 100_000])
def test_a_signed_line_that_is_no_object_is_refused(
    line: bytes, key: Ed25519PrivateKey, written: Callable[[bytes | None], Path]
) -> None:
    head, first, second, _, _ = written(None).read_bytes().splitlines(keepends=True)
    path = written(_signed_anew([head, first, second, line + b"\n"], key))
    with pytest.raises(ExchangeRefused, match="line 4"):
        read_signed(path, [key.public_key()])


def _signed_anew(lines: list[bytes], key: Ed25519PrivateKey) -> bytes:
    body = b"".join(lines)
    return body + json.dumps({"signature": base64.b64encode(key.sign(_message(body))).decode()}).encode() + b"\n"


def test_keys_are_openssls(key: Ed25519PrivateKey, tmp_path: Path) -> None:
    private, public = tmp_path / "key.pem", tmp_path / "public.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert fingerprint(private_key(private).public_key()) == fingerprint(public_key(public))
    assert len(fingerprint(key.public_key())) == 32
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    with pytest.raises(ExchangeRefused, match="without a password"):
        private_key(private)
    elliptic = other_key(SECP256R1())
    private.write_bytes(elliptic.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(elliptic.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(ExchangeRefused, match="no Ed25519 key"):
        private_key(private)
    with pytest.raises(ExchangeRefused, match="no Ed25519 key"):
        public_key(public)
    with pytest.raises(ExchangeRefused):
        public_key(tmp_path / "nowhere")


def test_a_file_says_who_gives_it_out(key: Ed25519PrivateKey) -> None:
    with pytest.raises(ValueError, match="who gives"):
        signed_file(ROWS, key, origin=" ", created_at="2026-11-20T12:00:00+00:00")
