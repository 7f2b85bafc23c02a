from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.commands.keys import app

TOKEN = f"agk_0123456789ab_{'s3cret-_' * 5}"


@pytest.fixture(autouse=True)
def environment(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTIPROMPT_REDIS__URL", redis_url)
    monkeypatch.setenv("ANTIPROMPT_DATA_DIR", str(tmp_path / "data"))


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def listed() -> list[dict[str, object]]:
    keys: list[dict[str, object]] = json.loads(run("list", "--json").output)
    return keys


def test_a_key_from_a_secret_is_taken_over_once_and_its_secret_is_shown_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    for _ in range(2):
        adopted = run("adopt", "--token-file", str(file), "--tenant", "shop", "--json")
        assert adopted.exit_code == 0, adopted.output
        assert "s3cret" not in adopted.output
    (key,) = listed()
    assert (key["id"], key["tenant"], key["revoked_at"]) == ("0123456789ab", "shop", None)


def test_a_revoked_key_stays_revoked_when_it_is_taken_over_again() -> None:
    assert run("adopt", "--token-file", "-", "--tenant", "shop", stdin=TOKEN).exit_code == 0
    assert run("revoke", "0123456789ab").exit_code == 0
    assert run("adopt", "--token-file", "-", "--tenant", "shop", stdin=TOKEN).exit_code == 0
    assert listed()[0]["revoked_at"] is not None


@pytest.mark.parametrize("token", ["", "sk-abc", "agk_0123456789ab_too-short-to-be-a-secret", "x" * 5000])
def test_what_is_no_key_is_not_taken_over_and_not_repeated(token: str) -> None:
    refused = run("adopt", "--token-file", "-", "--tenant", "shop", stdin=token)
    assert refused.exit_code == 1
    assert "12 hexadecimal digits" in refused.output
    assert not token or token not in refused.output
    assert listed() == []
