"""The compose file is valid, and keeps what an installation must keep: state on disk, nothing open, nothing as root."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway import __version__
from gateway.commands.settings import described
from gateway.redis_server import find_binary
from gateway.settings import CONFIG_VARIABLE, load_settings
from tests.docker.scripts import DOCKER, ROOT, tool

FILE = DOCKER / "compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("gateway-1", "gateway-2", "review", "worker")


def mounts(service: str) -> dict[str, str]:
    """What a service mounts where: place -> source."""
    pairs = [entry.split(":")[:2] for entry in SERVICES[service].get("volumes", ())]
    return {place: source for source, place in pairs}


def test_it_is_valid_by_the_schema_of_compose_files() -> None:
    command = [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_belongs_to_an_installation_is_there() -> None:
    expected = {"proxy", "gateway-1", "gateway-2", "review", "worker", "redis", "prometheus", "grafana"}
    assert set(SERVICES) == expected
    assert [SERVICES[name].get("command") for name in OURS] == [None, None, ["review"], ["worker"]]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_more_rights_than_it_needs_and_limits(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["deploy"]["resources"]["limits"]["memory"]
    assert service["pids_limit"]
    assert not {"privileged", "network_mode", "pid", "ipc", "cap_add", "devices"} & set(service)
    assert not any("docker.sock" in str(entry) for entry in service.get("volumes", ()))


@pytest.mark.parametrize("name", sorted(set(SERVICES) - set(OURS)))
def test_an_image_of_others_is_one_exact_version_and_is_checked(name: str) -> None:
    assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+(-[a-z]+)?", SERVICES[name]["image"])
    assert SERVICES[name]["healthcheck"]["test"]


@pytest.mark.parametrize("name", OURS)
def test_an_image_of_ours_is_built_from_a_target_that_exists(name: str) -> None:
    build = SERVICES[name]["build"]
    targets = re.findall(r"^FROM \S+ AS (\S+)$", (DOCKER / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    assert build["target"] in (*targets, "${WORKER:-cpu}")
    assert SERVICES[name]["image"] == f"antiprompt-gateway:{__version__}-{build['target']}"
    assert (FILE.parent / build["context"] / build["dockerfile"]).is_file()


def test_the_settings_are_settings_and_are_valid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in [variable for variable in os.environ if variable.startswith("ANTIPROMPT_")]:
        monkeypatch.delenv(variable)
    inside = dict(re.findall(r"(ANTIPROMPT_\w+)=(\S+)", (DOCKER / "Dockerfile").read_text("utf-8")))
    for name in OURS:
        for variable, value in {**inside, **SERVICES[name]["environment"]}.items():
            monkeypatch.setenv(variable, value)
        settings = load_settings()
        known = {variable for variable, _, _ in described(settings)}
        assert {*inside, *SERVICES[name]["environment"]} <= known
        assert settings.redis.outside
        assert settings.review.https
        grace_s = float(SERVICES[name]["stop_grace_period"].removesuffix("s"))
        assert grace_s > settings.drain_s
    mentioned = set(re.findall(r"ANTIPROMPT_[A-Z][A-Z_]+", FILE.read_text("utf-8")))
    assert mentioned - known - {CONFIG_VARIABLE} == set()


def test_each_process_has_a_folder_of_its_own_and_all_share_the_versions() -> None:
    assert len({mounts(name)["/data"] for name in OURS}) == len(OURS)
    assert {mounts(name)["/data/bank/made"] for name in OURS} == {"versions"}
    declared = set(COMPOSE["volumes"])
    used = {source for name in SERVICES for source in mounts(name).values() if not source.startswith(".")}
    assert used == declared


def test_every_file_that_is_mounted_exists_and_cannot_be_written() -> None:
    for name, service in SERVICES.items():
        for entry in service.get("volumes", ()):
            if entry.startswith("."):
                assert entry.endswith(":ro"), f"{name}: {entry}"
                assert (FILE.parent / entry.split(":")[0]).resolve().is_file(), f"{name}: {entry}"


def test_only_the_proxy_can_be_reached_from_elsewhere_and_only_where_one_says_so() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"proxy", "prometheus", "grafana"}
    assert published["proxy"] == ["${LISTEN:-127.0.0.1}:${PORT:-8080}:8080"]
    assert all(port.startswith("127.0.0.1:") for name in ("prometheus", "grafana") for port in published[name])
    assert COMPOSE["networks"]["state"] == {"internal": True}
    assert SERVICES["redis"]["networks"] == ["state"]
    assert [name for name in SERVICES if "state" in SERVICES[name]["networks"]] == [*OURS, "redis"]


def test_redis_as_it_is_started_keeps_every_write_before_it_answers(short_dir: Path) -> None:
    socket = short_dir / "redis.sock"
    command = [str(find_binary()), *SERVICES["redis"]["command"][1:]]
    here = ["--port", "0", "--unixsocket", str(socket), "--dir", str(short_dir)]
    with subprocess.Popen([*command, *here], stdout=subprocess.DEVNULL) as server:
        try:
            found = {name: setting(socket, name) for name in ("appendonly", "appendfsync", "maxmemory-policy", "save")}
        finally:
            server.terminate()
    assert found == {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction", "save": ""}


def setting(path: Path, name: str) -> str:
    """What CONFIG GET says, as soon as the server listens."""
    import redis

    ends_s = time.monotonic() + 60
    while True:
        try:
            with redis.Redis(unix_socket_path=str(path), decode_responses=True) as client:
                found: str = client.config_get(name)[name]  # type: ignore[index,assignment]
                return found
        except redis.ConnectionError:
            assert time.monotonic() < ends_s
            time.sleep(0.02)


# What the other files name.


def test_the_proxy_and_prometheus_know_every_process_that_listens() -> None:
    servers = re.findall(r"^ +server (\S+) (\S+):8080$", (DOCKER / "haproxy.cfg").read_text("utf-8"), re.MULTILINE)
    assert servers == [(name, name) for name in ("gateway-1", "gateway-2", "review")]
    prometheus = yaml.safe_load((DOCKER / "prometheus.yaml").read_text("utf-8"))
    jobs = {job["job_name"]: job["static_configs"][0]["targets"] for job in prometheus["scrape_configs"]}
    assert jobs["antiprompt"] == [f"{name}:8080" for name in ("gateway-1", "gateway-2", "review")]
    assert prometheus["rule_files"] == [place for place in mounts("prometheus") if "alerts" in place]


def test_grafana_finds_its_data_and_its_dashboard() -> None:
    (source,) = yaml.safe_load((DOCKER / "grafana/datasources.yaml").read_text("utf-8"))["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert set(SERVICES["grafana"]["networks"]) & set(SERVICES["prometheus"]["networks"])
    (provider,) = yaml.safe_load((DOCKER / "grafana/dashboards.yaml").read_text("utf-8"))["providers"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home in mounts("grafana")
    assert Path(home).parent == Path(provider["options"]["path"])


def test_a_file_with_secrets_is_not_committed_by_chance() -> None:
    assert "docker/gateway.env" in (ROOT / ".gitignore").read_text("utf-8").splitlines()


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("left out: promtool on docker/prometheus.yaml. apt-get install prometheus to have it")
    rules = next(source for place, source in mounts("prometheus").items() if "alerts" in place)
    text = (DOCKER / "prometheus.yaml").read_text("utf-8")
    here = text.replace("/etc/prometheus/alerts.yaml", str((FILE.parent / rules).resolve()))
    assert here != text
    configuration = tmp_path / "prometheus.yaml"
    configuration.write_text(here, "utf-8")
    done = subprocess.run([promtool, "check", "config", str(configuration)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rule files found" in done.stdout
