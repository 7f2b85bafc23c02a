from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from typer.testing import CliRunner, Result

from antiprompt_bank import Antiprompt, Bank, BankStore, Label, State, build_bank
from antiprompt_bank.encoder import Encoder
from antiprompt_bank.signed import ExchangeRefused, private_key, signed_file
from antiprompt_bank.withheld import is_withheld
from gateway.cli import app
from gateway.commands.bank_exchange import imported, received
from tests.bank.conftest import bank_cache, encoder, exemplars, small_bank  # noqa: F401  # one small bank for all
from tests.bank.words import WordEncoder


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """A key and its public half, as files."""
    key = Ed25519PrivateKey.generate()
    private, public = tmp_path / "key.pem", tmp_path / "public.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def theirs(small_bank: Bank, tmp_path: Path) -> Path:  # noqa: F811
    store = BankStore(tmp_path / "theirs")
    store.publish(store.save(small_bank))
    return store.root


@pytest.fixture
def ours(encoder: Encoder, tmp_path: Path) -> BankStore:  # noqa: F811
    store = BankStore(tmp_path / "ours")
    own = Antiprompt(text="How do I forge a passport?", label=Label.HARMFUL, side="request", hazard="privacy")
    store.publish(store.save(build_bank([own], encoder)))
    return store


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Runs ``antiprompt bank`` over a folder of versions."""
    monkeypatch.setenv("ANTIPROMPT_DATA_DIR", str(tmp_path / "data"))

    def run(folder: Path, *arguments: str) -> Result:
        monkeypatch.setenv("ANTIPROMPT_BANK__PATH", str(folder))
        return CliRunner().invoke(app, ["bank", *map(str, arguments)])

    return run


def new_version(done: Result, store: BankStore) -> Bank:
    assert done.exit_code == 0, done.output
    return store.load(json.loads(done.stdout)["version"], device="cpu")


def test_text_goes_from_one_bank_to_another_in_quarantine(at, theirs: Path, ours: BankStore, keys, tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "given.jsonl"
    assert at(theirs, "export", file, "--signed", keys[0], "--origin", "them").exit_code == 0
    bank = new_version(at(ours.root, "import", file, "--trust", keys[1], "--json"), ours)
    came = [record for record in bank.records if record.source.endswith("by them")]
    known = BankStore(theirs).load(device="cpu").records
    assert {record.id for record in came} == {record.id for record in known if record.state is State.LIVE}
    assert {record.state for record in came} == {State.QUARANTINE}
    assert all(record.licence for record in came)
    again = json.loads(at(ours.root, "import", file, "--trust", keys[1], "--json", "--dry-run").stdout)
    assert (again["version"], again["files"][0]["origin"]) == (None, "them")


def test_vectors_go_without_words_and_only_to_the_same_encoder(  # type: ignore[no-untyped-def]
    at, theirs: Path, ours: BankStore, keys, tmp_path
) -> None:
    file = tmp_path / "given.jsonl"
    assert at(theirs, "export", file, "--signed", keys[0], "--origin", "them", "--vectors").exit_code == 0
    for record in BankStore(theirs).load(device="cpu").records:
        assert json.dumps(record.text) not in file.read_text()
    bank = new_version(at(ours.root, "import", file, "--trust", keys[1], "--json"), ours)
    came = [record for record in bank.records if is_withheld(record)]
    assert came
    assert {record.state for record in came} == {State.QUARANTINE}
    head, *rows = (json.loads(line) for line in file.read_text().splitlines()[:-1])
    other = signed_file(rows, private_key(keys[0]), origin="them", created_at=head["created_at"], encoder="other@0")
    file.write_bytes(other)
    refused = at(ours.root, "import", file, "--trust", keys[1])
    assert refused.exit_code == 1
    assert "vectors of other@0" in " ".join(refused.output.split())


def test_what_is_not_to_be_trusted_changes_nothing(at, theirs: Path, ours: BankStore, keys, tmp_path) -> None:  # type: ignore[no-untyped-def]
    file, stranger = tmp_path / "given.jsonl", tmp_path / "stranger.pem"
    at(theirs, "export", file, "--signed", keys[0], "--origin", "them")
    public = Ed25519PrivateKey.generate().public_key()
    stranger.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    good = file.read_bytes()
    for content, arguments, why in (
        (good, [], "--trust"),
        (good, ["--trust", stranger], "not trusted"),
        (good.replace(b"live", b"livE", 1), ["--trust", keys[1]], "changed after it was signed"),
        (b'{"text": "plain lines", "label": "harmful"}\n' * 3, ["--trust", keys[1]], "no signed file"),
    ):
        file.write_bytes(content)
        refused = at(ours.root, "import", file, *arguments)
        assert refused.exit_code == 1
        assert why in " ".join(refused.output.split())
    assert len(ours.versions()) == 1


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (
            {"text": "x", "label": "harmful", "side": "request", "hazard": "privacy", "source": "s", "licence": " "},
            "names",
        ),
        ({"text": "x", "label": "harmful", "side": "request", "source": "s", "licence": "CC0-1.0"}, "needs a hazard"),
        ({"text": "x", "label": "benign", "side": "request", "licence": "CC0-1.0"}, "'source' is missing"),
        (
            {"text": "x", "label": "benign", "side": "request", "source": "s", "licence": "CC0-1.0", "twin": {}},
            "no text",
        ),
        ({"text": "x", "label": [], "side": "request", "source": "s", "licence": "CC0-1.0"}, "label"),
    ],
)
def test_a_signed_row_that_is_no_exemplar_is_refused_with_its_line(
    row: dict[str, object], why: str, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    file = tmp_path / "given.jsonl"
    file.write_bytes(signed_file([row], private_key(keys[0]), origin="them", created_at="2026-11-20T12:00:00+00:00"))
    own = Antiprompt(text="forge a passport", label=Label.HARMFUL, side="request", hazard="privacy")
    with pytest.raises(ExchangeRefused, match=f"line 2: .*{why}"):
        imported(received([file], [keys[1]])[0], build_bank([own], WordEncoder()))


def test_an_export_is_signed_by_a_key_and_names_who_gives_it(at, theirs: Path, keys, tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "given.jsonl"
    for arguments, why in (
        (["--signed", keys[1], "--origin", "them"], "no private key"),
        (["--signed", keys[0]], "who gives"),
        (["--signed", keys[0], "--origin", "them", "--licence", "WTFPL"], "no live exemplar"),
        (["--vectors"], "--signed"),
    ):
        refused = at(theirs, "export", file, *arguments)
        assert refused.exit_code == 1
        assert why in " ".join(refused.output.split())
        assert not file.exists()
