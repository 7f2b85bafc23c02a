"""Signed: exemplars in a file that proves who gave them out and that nobody changed it since.

One JSON object a line: a head (format, contents, who, when, licences, how many, the signer's public key), the
exemplars, and a signature over every byte before it (Ed25519, RFC 8032, of their SHA-256). An exemplar goes as text, or
as vectors only: then neither its words nor an id made of them leave the house, but what it is about can be told from
vectors, and only a bank of the same encoder can use them.

A key pair is OpenSSL's: ``openssl genpkey -algorithm ed25519 -out key.pem``, ``openssl pkey -in key.pem -pubout``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from antiprompt_bank.errors import BankError

FORMAT: Final = "antiprompt-exchange/1"
MAX_BYTES: Final = 512 << 20
MAX_LINE_BYTES: Final = 4 << 20
_MAX_WORDS: Final = 200

Contents = Literal["text", "vectors"]


class ExchangeRefused(BankError):
    """A file of exemplars cannot be trusted or used; the message says why. Nothing of it was taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a file says of itself. ``encoder`` is the id whose vectors it holds, None for text; ``created_at`` is UTC.

    ``origin`` names who gives the exemplars out; ``public_key`` is theirs (32 bytes, base64).
    """

    origin: str
    contents: Contents
    created_at: str
    records: int
    licences: tuple[str, ...]
    encoder: str | None
    public_key: str
    format: str = FORMAT


def private_key(path: Path) -> Ed25519PrivateKey:
    """The key of a PEM file. Raises ``ExchangeRefused``."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ExchangeRefused(f"{path} holds no private key that can be read without a password: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ExchangeRefused(f"{path} is no Ed25519 key: openssl genpkey -algorithm ed25519 -out {path}")
    return key


def public_key(path: Path) -> Ed25519PublicKey:
    """The public key of a PEM file. Raises ``ExchangeRefused``."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise ExchangeRefused(f"{path} holds no public key: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ExchangeRefused(f"{path} is no Ed25519 key: openssl pkey -in key.pem -pubout -out {path}")
    return key


def fingerprint(key: Ed25519PublicKey) -> str:
    """What two people compare, before one of them trusts the other's key: 32 hexadecimal digits."""
    return hashlib.sha256(_raw(key)).hexdigest()[:32]


def signed_file(
    rows: Sequence[Mapping[str, Any]],
    key: Ed25519PrivateKey,
    *,
    origin: str,
    created_at: str,
    encoder: str | None = None,
) -> bytes:
    """The bytes of a file of ``rows``; with ``encoder`` they are vectors. Raises ``ValueError``.

    Each row names its ``licence``.
    """
    if not origin.strip() or len(origin) > _MAX_WORDS:
        raise ValueError(f"say who gives the exemplars out, in at most {_MAX_WORDS} characters")
    head = Head(
        origin=origin,
        contents="text" if encoder is None else "vectors",
        created_at=created_at,
        records=len(rows),
        licences=tuple(sorted({str(row["licence"]) for row in rows})),
        encoder=encoder,
        public_key=base64.b64encode(_raw(key.public_key())).decode(),
    )
    body = _lines([asdict(head), *rows])
    return body + _lines([{"signature": base64.b64encode(key.sign(_message(body))).decode()}])


def read_signed(path: Path, trusted: Sequence[Ed25519PublicKey]) -> tuple[Head, list[dict[str, Any]]]:
    """Head and rows of a file, once its signature was found to be that of a key in ``trusted``.

    Raises ``ExchangeRefused`` for anything else; what the rows say is not looked at here.
    """
    body, last = _split(path)
    head = _head(path, body)
    signature = _signature(path, last)
    known = {base64.b64encode(_raw(key)).decode(): key for key in trusted}
    key = known.get(head.public_key)
    if key is None:
        raise ExchangeRefused(f"{path} is signed by a key that is not trusted ({_shown(head)}, {head.origin!r})")
    try:
        key.verify(signature, _message(body))
    except InvalidSignature:
        raise ExchangeRefused(f"{path} was changed after it was signed, or its signature is another file's") from None
    rows = [_parsed(path, number, line) for number, line in enumerate(body.splitlines()[1:], start=2)]
    if len(rows) != head.records:
        raise ExchangeRefused(f"{path} has {len(rows)} exemplars, but its head says {head.records}")
    return head, rows


def is_signed(path: Path) -> bool:
    """Whether a file says that it is one of these. Raises ``OSError``."""
    with path.open("rb") as file:
        return FORMAT.encode() in file.readline(MAX_LINE_BYTES)


def _split(path: Path) -> tuple[bytes, bytes]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ExchangeRefused(f"{path} has more than {MAX_BYTES >> 20} MiB")
        content = path.read_bytes()
    except OSError as error:
        raise ExchangeRefused(f"{path} cannot be read: {error}") from error
    if not content.endswith(b"\n") or content.count(b"\n") < 2:
        raise ExchangeRefused(f"{path} is cut off, or no signed file of exemplars: its last line is no signature")
    start = content.rindex(b"\n", 0, len(content) - 1) + 1
    return content[:start], content[start:]


def _head(path: Path, body: bytes) -> Head:
    row = _parsed(path, 1, body.partition(b"\n")[0])
    if row.get("format") != FORMAT:
        raise ExchangeRefused(f"{path} is no signed file of exemplars ({FORMAT})")
    try:
        head = Head(**{**row, "licences": tuple(row["licences"])})
        named: list[Any] = [head.origin, head.public_key, head.created_at, head.encoder or "", *head.licences]
        sound = all(isinstance(each, str) for each in named) and row["records"] == int(head.records)
        sound &= row["contents"] == ("text" if head.encoder is None else "vectors")
    except (TypeError, KeyError, ValueError) as error:
        raise ExchangeRefused(f"{path} has a head that cannot be read: {error}") from error
    if not sound or len(head.origin) > _MAX_WORDS:
        raise ExchangeRefused(f"{path} has a head that says what no head says")
    return head


def _signature(path: Path, last: bytes) -> bytes:
    row = _parsed(path, 0, last)
    try:
        return base64.b64decode(row["signature"], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise ExchangeRefused(f"{path} has no signature in its last line") from None


def _parsed(path: Path, number: int, line: bytes) -> dict[str, Any]:
    where = f"line {number}" if number else "the last line"
    if len(line) > MAX_LINE_BYTES:
        raise ExchangeRefused(f"{path}, {where}: longer than {MAX_LINE_BYTES >> 20} MiB")
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise ExchangeRefused(f"{path}, {where}: not JSON") from None
    if not isinstance(row, dict):
        raise ExchangeRefused(f"{path}, {where}: not an object")
    return row


def _shown(head: Head) -> str:
    try:
        return hashlib.sha256(base64.b64decode(head.public_key, validate=True)).hexdigest()[:32]
    except (ValueError, binascii.Error):
        return "which is no key"


def _message(body: bytes) -> bytes:
    return f"{FORMAT}\n".encode() + hashlib.sha256(body).digest()


def _raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def _lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows).encode()
