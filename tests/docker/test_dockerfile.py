"""The Dockerfile is in order by hadolint and by rules of our own; nothing else than it needs gets into a build."""

from __future__ import annotations

import re
import subprocess

import pytest

from gateway.cli import app
from tests.docker.scripts import DOCKER, ROOT, tool

DOCKERFILE = (DOCKER / "Dockerfile").read_text("utf-8")
TARGETS = ("cpu", "gpu", "worker")


def instructions(name: str) -> list[str]:
    """The instructions of a stage, each on one line; comments and the blanks of continued lines are gone."""
    lines = "\n".join(line for line in DOCKERFILE.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\s*\\\n\s*", " ", lines)
    stages = re.split(r"^FROM ", joined, flags=re.MULTILINE)[1:]
    (found,) = [stage for stage in stages if stage.split("\n", 1)[0].endswith(f" AS {name}")]
    return [f"FROM {found.strip()}".split("\n")[0], *found.strip().split("\n")[1:]]


def lineage(name: str) -> list[str]:
    """The instructions that an image follows from, those of the stages below it first; not those it copies from."""
    own = instructions(name)
    parent = own[0].split()[1]
    return [*(lineage(parent) if f" AS {parent}\n" in DOCKERFILE else []), *own]


def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run([tool("hadolint"), str(DOCKER / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_shellcheck_has_nothing_to_say() -> None:
    scripts = [str(path) for path in DOCKER.glob("*.sh")]
    done = subprocess.run([tool("shellcheck"), *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_is_not_root_is_checked_and_starts_a_command_that_exists(target: str) -> None:
    made = lineage(target)
    assert [line for line in made if line.startswith("USER")] == ["USER 10001:10001"]
    assert sum(line.startswith("HEALTHCHECK") for line in made) == 1
    assert 'ENTRYPOINT ["antiprompt"]' in made
    command = [line for line in made if line.startswith("CMD ")][-1]
    assert command == ('CMD ["worker"]' if target == "worker" else 'CMD ["serve"]')
    commands = {found.name or getattr(found.callback, "__name__", "") for found in app.registered_commands}
    assert {"serve", "worker", "review"} <= commands


@pytest.mark.parametrize("target", TARGETS)
def test_only_what_the_base_needs_is_run_in_an_image_itself(target: str) -> None:
    (base,) = [line for line in lineage(target) if line.startswith("RUN")]
    assert "pip" not in base  # pip, its settings and its caches stay in the stages that install
    assert base.count("apt-get install") == 1
    assert all(not line.startswith("ARG") for line in lineage(target))  # nor does an argument stay in its history


def test_the_cpu_image_takes_nothing_from_a_stage_with_torch_but_the_bank() -> None:
    copied = [line for line in lineage("cpu") if line.startswith("COPY --from=")]
    assert copied == [
        "COPY --from=bank /seed /opt/antiprompt-seed",
        "COPY --from=cpu-installed /opt/antiprompt /opt/antiprompt",
    ]
    assert not any("torch" in line or "train" in line for line in instructions("cpu-installed"))


def test_everything_is_installed_at_the_versions_that_the_tests_passed_with() -> None:
    assert any("PIP_CONSTRAINT=/src/constraints.txt" in line for line in instructions("install"))
    for stage in ("bank", "cpu-installed", "worker-installed", "gpu-installed", "wheel"):
        assert instructions(stage)[0].startswith("FROM install "), stage


def test_the_base_is_one_version_and_can_be_another() -> None:
    (base,) = re.findall(r"^ARG BASE=(\S+)$", DOCKERFILE, flags=re.MULTILINE)
    assert re.fullmatch(r"debian:bookworm-\d{8}-slim", base)
    assert instructions("python")[0] == "FROM ${BASE} AS python"


def test_a_build_sees_what_is_copied_and_nothing_else() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line and line[0] != "#"]
    assert rules[0] == "*"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, flags=re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert let_in == copied
    assert all((ROOT / name).exists() for name in copied)
