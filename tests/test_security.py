"""What SECURITY.md claims: each test it names exists; and what is no other test's: secrets, and reading without end."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)))

GENEROUS_S = 120
"""Reading any of these texts takes less than a second; what grows with the square of its length takes hours."""

LONG = {
    "marks over one letter": "a" + "\u0301" * 200_000,
    "zero width": "\u200b" * 200_000,
    "directions": "\u202e\u202c" * 100_000,
    "brackets": "(" * 200_000,
    "percent signs": "%" * 200_000,
    "one word": "a" * 200_000,
    "letters apart": "a " * 100_000,
    "base64 within base64": "QUFB" * 50_000,
    "hexadecimal": "41" * 100_000,
    "digits for letters": "1337" * 50_000,
    "line ends": "\n" * 200_000,
    "spaces before no end": "x" + " " * 200_000 + "y",
    "letters that grow when they are folded": "\ufdfa" * 20_000,
    "flags and joiners": "\U0001f3f4\u200d" * 50_000,
    "tags": "\U000e0041" * 100_000,
}

READ = """
import sys
from antiprompt_bank.blobs import blobs
from antiprompt_bank.model_files import DEFAULT_MODEL, model_folder
from antiprompt_bank.tokens import Tokeniser
from antiprompt_bank.views import views
from antiprompt_bank.windows import windows

text = sys.stdin.buffer.read().decode("utf-8")
tokeniser = Tokeniser(model_folder(DEFAULT_MODEL) / "tokenizer.json", 256)
readings = [(view, tokeniser.tokenize(view.text)) for view in views(text)]
cut = sum(len(list(windows(view, spans))) for view, spans in readings)
print(len(readings), cut, len(list(blobs(text, [view for view, _ in readings]))))
"""


@pytest.mark.parametrize(("file", "test"), NAMED, ids=[f"{file}::{test}" for file, test in NAMED])
def test_every_test_that_the_page_names_is_there(file: str, test: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert any(name.startswith("test_") for name in names)
    assert not test or test in names


def test_the_page_names_some() -> None:
    assert len(NAMED) > 20


@pytest.mark.parametrize("name", LONG)
def test_no_text_takes_for_ever_to_read(name: str) -> None:
    """In a process of its own, so that one that never ends is stopped."""
    done = subprocess.run(  # our own interpreter
        [sys.executable, "-c", READ], input=LONG[name].encode(), capture_output=True, timeout=GENEROUS_S, check=False
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    readings, cut, _ = map(int, done.stdout.split())
    assert 1 <= readings < 50
    assert cut <= 50 * len(LONG[name])


COMPARED = {
    "gateway/client_keys.py": "secret_hash",
    "gateway/moderator_sessions.py": "csrf_token",
    "gateway/review/log_in.py": "_form_token",
    "gateway/review/outside.py": "begun",
}


@pytest.mark.parametrize("file", COMPARED)
def test_secrets_are_compared_in_constant_time_only(file: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    calls = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert any(call.startswith("hmac.compare_digest(") and COMPARED[file] in call for call in calls)
    plain = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops)
    ]
    assert not [each for each in plain if COMPARED[file] in each]
