from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from typer.testing import CliRunner, Result

from gateway.commands.moderators import app

PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def environment(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Settings for a command; and logging afterwards as it was, since commands set it up for their own process."""
    monkeypatch.setenv("ANTIPROMPT_REDIS__URL", redis_url)
    monkeypatch.setenv("ANTIPROMPT_DATA_DIR", str(tmp_path / "data"))
    configured, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.configure(**configured)
    root.handlers[:] = handlers
    root.setLevel(level)


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def test_an_account_is_made_listed_changed_and_closed() -> None:
    assert "no account yet" in run("list").output
    made = run("create", "mia", "--role", "lead", "--password-stdin", stdin=f"{PASSWORD}\n")
    assert made.exit_code == 0, made.output
    assert run("role", "mia", "analyst").exit_code == 0
    assert run("disable", "mia").exit_code == 0
    listed = run("list", "--json").output
    (account,) = json.loads(listed)
    assert (account["name"], account["role"]) == ("mia", "analyst")
    assert account["disabled_at"] is not None
    for secret in (PASSWORD, "argon2", "stamp"):
        assert secret not in listed


def test_a_password_is_never_taken_from_nowhere() -> None:
    for arguments, stdin in ((("create", "mia"), ""), (("create", "mia", "--password-stdin"), "short\n")):
        refused = run(*arguments, stdin=stdin)
        assert refused.exit_code == 1
        assert "Traceback" not in refused.output
    assert json.loads(run("list", "--json").output) == []


@pytest.mark.parametrize("arguments", [("role", "mia", "admin"), ("disable", "mia"), ("enable", "mia")])
def test_what_is_not_there_is_told_in_a_sentence(arguments: tuple[str, ...]) -> None:
    refused = run(*arguments)
    assert refused.exit_code == 1
    assert "no account 'mia'" in refused.output
