"""Containers of the chart as processes on this machine: the same arguments and variables, other paths and addresses."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx

from gateway.redis_server import find_binary
from gateway.settings import PREFIX
from tests.end_to_end.running_gateway import free_port
from tests.helm.rendering import Release

PATIENCE_S: Final = 600.0  # five processes start at once, on a machine that may be busy
CLIENT_KEY: Final = f"agk_0123456789ab_{'k' * 32}"
PASSWORD: Final = base64.b16encode(b"of the bundled Redis").decode()


def environment(container: Mapping[str, Any], secrets: Mapping[str, str]) -> dict[str, str]:
    """What Kubernetes would set: Secrets' keys looked up, references to earlier variables replaced."""
    values: dict[str, str] = {}
    for variable in container.get("env", ()):
        if "valueFrom" in variable:
            values[variable["name"]] = secrets[variable["valueFrom"]["secretKeyRef"]["key"]]
        else:
            values[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda found: values[found[1]], variable["value"])
    return values


class Pods:
    """The pods of a release with a bundled Redis. ``seed`` is the bank that the images carry."""

    def __init__(self, release: Release, folder: Path, seed: Path) -> None:
        self.release = release
        self.folder = folder
        self.ports: dict[str, int] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._seed = seed
        self._redis_port = free_port()
        (folder / "config").mkdir()
        for name, text in release.one("ConfigMap", "-config")["data"].items():
            (folder / "config" / name).write_text(text, encoding="utf-8")
        (folder / "secrets").mkdir()
        (folder / "secrets" / "client-key").write_text(f"{CLIENT_KEY}\n")

    def here(self, text: str, component: str) -> str:
        """A path or an address of the cluster, as it is here."""
        text = text.replace("antiprompt-redis:6379", f"127.0.0.1:{self._redis_port}")
        text = re.sub(r"^/(secrets|bank)\b", rf"{self.folder}/\1", text)
        text = re.sub(r"^/etc/antiprompt\b", f"{self.folder}/config", text)
        return re.sub(r"(?<![\w/])/data\b", f"{self.folder}/data-{component}", text)

    def variables(self, component: str, container: Mapping[str, Any]) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)}
        given = environment(container, {"redis-password": PASSWORD})
        found = {name: self.here(value, component) for name, value in given.items()}
        port = str(self.ports.setdefault(component, free_port()))
        return {**inherited, **found, f"{PREFIX}PORT": port, f"{PREFIX}BANK__SEED": str(self._seed)}

    def start_redis(self) -> None:
        """The server with the chart's own arguments; answers when this returns."""
        (container,) = self.release.workload("redis").pod["containers"]
        given = environment(container, {"redis-password": PASSWORD})
        arguments = [re.sub(r"\$\((\w+)\)", lambda found: given[found[1]], each) for each in container["args"]]
        (self.folder / "data-redis").mkdir()
        listening = ["--port", str(self._redis_port), "--bind", "127.0.0.1", "--logfile", "redis.log"]
        command = [str(find_binary()), *(self.here(each, "redis") for each in arguments), *listening]
        self.processes["redis"] = subprocess.Popen(command)

    def run(self, component: str, name: str) -> None:
        """A container until it ends, which it must do well."""
        containers = self.release.workload(component).containers
        (container,) = [each for each in containers if each["name"] == name]
        arguments = [self.here(each, component) for each in container["args"]]
        done = subprocess.run(
            [sys.executable, "-m", "gateway.cli", *arguments],
            env=self.variables(component, container),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, f"{component} {arguments}: {done.stdout}{done.stderr}"

    def start(self, component: str) -> None:
        (container,) = self.release.workload(component).pod["containers"]
        with (self.folder / f"{component}.log").open("wb") as log:
            self.processes[component] = subprocess.Popen(
                [sys.executable, "-m", "gateway.cli", *container["args"]],
                env=self.variables(component, container),
                stdout=log,
                stderr=log,
            )

    def url(self, component: str, path: str) -> str:
        return f"http://127.0.0.1:{self.ports[component]}{path}"

    def passes(self, component: str, probe: str) -> bool:
        """What a probe of the component's container finds now."""
        (container,) = self.release.workload(component).pod["containers"]
        asked: Mapping[str, Any] = container[probe]
        if "exec" in asked:
            command = [self.here(each, component) for each in asked["exec"]["command"]]
            return subprocess.run(command, stderr=subprocess.DEVNULL, timeout=PATIENCE_S).returncode == 0
        try:
            return httpx.get(self.url(component, asked["httpGet"]["path"]), timeout=PATIENCE_S).is_success
        except httpx.TransportError:
            return False

    def wait_for(self, component: str, probe: str = "readinessProbe") -> None:
        ends_s = time.monotonic() + PATIENCE_S
        while not self.passes(component, probe):
            assert self.processes[component].poll() is None, self.log(component)
            assert time.monotonic() < ends_s, self.log(component)
            time.sleep(0.1)

    def log(self, component: str) -> str:
        file = self.folder / f"{component}.log"
        return file.read_text("utf-8", "replace") if file.exists() else ""

    def stop(self, component: str) -> int:
        """SIGTERM, as Kubernetes ends a container; the exit status."""
        process = self.processes.pop(component)
        process.terminate()
        return process.wait(PATIENCE_S)

    def close(self) -> None:
        for component in [*self.processes]:
            self.stop(component)
