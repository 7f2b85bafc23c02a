"""What lies beside the code is in the wheel too: an installation without the source tree has all that it reads."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
DOCUMENTS = ("RESULTS.md", "SIZING.md", "alignment/RESULTS.md", "alignment/results/*")
"""Read by people in the source tree, by no code."""


@pytest.mark.parametrize("package", ["antiprompt_bank", "gateway"])
def test_every_file_beside_the_code_is_package_data(package: str) -> None:
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"][package]
    left_out = [
        name
        for file in sorted((ROOT / package).rglob("*"))
        if file.is_file() and file.suffix not in (".py", ".pyc")
        for name in [file.relative_to(ROOT / package).as_posix()]
        if not any(fnmatch(name, pattern) for pattern in (*patterns, *DOCUMENTS))
    ]
    assert not left_out, "name them in package-data of pyproject.toml"


@pytest.mark.parametrize("package", ["antiprompt_bank", "gateway"])
def test_every_folder_with_code_is_a_package(package: str) -> None:
    folders = {file.parent for file in (ROOT / package).rglob("*.py")}
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []
