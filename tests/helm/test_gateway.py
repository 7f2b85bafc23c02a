"""What the chart starts is the gateway as it is: every variable is a setting, every argument one of its commands."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from helm_python import HelmError
from typer.testing import CliRunner

from gateway.chosen_bank import versions_folder
from gateway.cli import app
from gateway.client_keys import split_token
from gateway.commands.settings import described
from gateway.commands.worker import ALIVE
from gateway.policy import Policy
from gateway.settings import CONFIG_VARIABLE, PREFIX, Settings, load_settings
from tests.helm.pods import environment
from tests.helm.rendering import CHART, EXAMPLES, OUR_IMAGE, Release, Workload, example, rendered
from tests.helm.rules import SECRET_NAME

each_example = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)

SECRETS: Final = {
    "redis-url": "rediss://user:word@redis.example:7000",
    "redis-password": "word",
    "sentinel-password": "word",
    "upstream-api-key": "sk-1",
    "oidc-client-secret": "word",
}


def ours(release: Release) -> list[tuple[Workload, Mapping[str, Any]]]:
    """Containers that run the command of the project's own images."""
    found = ((workload, container) for workload in release.workloads() for container in workload.containers)
    return [(w, c) for w, c in found if OUR_IMAGE in c["image"] and "command" not in c]


def settings_of(release: Release, component: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Settings:
    """The settings that the main container of a component reads."""
    for name in [name for name in os.environ if name.upper().startswith(PREFIX)]:
        monkeypatch.delenv(name)
    (container,) = release.workload(component).pod["containers"]
    for name, value in environment(container, SECRETS).items():
        monkeypatch.setenv(name, value)
    file = folder / "settings.yaml"
    file.write_text(release.one("ConfigMap", "-config")["data"]["settings.yaml"], encoding="utf-8")
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    return load_settings()


# Settings.


@each_example
def test_every_variable_of_ours_is_a_setting(path: Path) -> None:
    known = {variable for variable, _, _ in described(Settings())} | {CONFIG_VARIABLE}
    release = example(path)
    named = {name for workload in release.workloads() for c in workload.containers for name in environment(c, SECRETS)}
    assert {name for name in named if name.upper().startswith(PREFIX)} - known == set()
    assert "ANTIPROMPT_DATA_DIR" in named


def test_no_setting_that_is_a_secret_can_be_written_into_values() -> None:
    """They come by reference: from where the chart names a Secret, or by ``extraEnv``."""
    secret = {name for name, _, _ in described(Settings()) if _is_secret(name)}
    assert "ANTIPROMPT_UPSTREAM__API_KEY" in secret
    assert [name for name in secret if not SECRET_NAME.search(name)] == []
    for variable in secret:
        group, name = variable.removeprefix(PREFIX).lower().split("__")
        with pytest.raises(HelmError) as refused:
            rendered({"settings": {group: {name: "told"}}})
        assert f"/settings/{group}/{name}" in str(refused.value)


def _is_secret(variable: str) -> bool:
    group: Any = Settings
    *groups, name = variable.removeprefix(PREFIX).lower().split("__")
    for each in groups:
        group = group.model_fields[each].annotation
    return "SecretStr" in str(group.model_fields[name].annotation)


@each_example
def test_every_container_reads_settings_that_are_valid(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    release = example(path)
    components = {workload.component for workload, _ in ours(release)}
    assert "gateway" in components
    for component in components:
        with monkeypatch.context() as patch:
            settings = settings_of(release, component, patch, tmp_path)
        assert settings.host == "0.0.0.0"
        assert settings.redis.outside or component in ("setup", "calibration")  # which need none


def test_values_arrive_as_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    release = example(CHART / "examples" / "production.yaml")
    with monkeypatch.context() as patch:
        gateway = settings_of(release, "gateway", patch, tmp_path)
    assert gateway.upstream.base_url == "https://models.example.org/v1"
    assert gateway.upstream.api_key is not None
    assert gateway.redis.sentinel_name == "antiprompt"
    assert len(gateway.redis.sentinels) == 3
    assert gateway.redis.wait_replicas == 1
    assert gateway.retention.exchange_ttl_s == 0
    assert gateway.log_level == "warning"
    assert not gateway.review.enabled
    assert gateway.bank.path == Path("/bank")
    with monkeypatch.context() as patch:
        review = settings_of(release, "review", patch, tmp_path)
    assert (review.review.https, review.review.oidc_issuer) == (True, "https://login.example.org")
    with monkeypatch.context() as patch:
        worker = settings_of(release, "worker", patch, tmp_path)
    assert worker.retraining.min_exemplars == 1_000_000  # the CronJob makes versions


@pytest.mark.parametrize(
    ("name", "address"), [("minimal", "redis://:word@antiprompt-redis:6379/0"), ("redis-url", SECRETS["redis-url"])]
)
def test_redis_is_reached_by_its_url(name: str, address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = settings_of(example(CHART / "examples" / f"{name}.yaml"), "gateway", monkeypatch, tmp_path)
    assert settings.redis.url is not None
    assert settings.redis.url.get_secret_value() == address


def test_redis_as_a_cluster_is_reached_by_its_nodes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    release = example(CHART / "examples" / "redis-cluster.yaml")
    settings = settings_of(release, "gateway", monkeypatch, tmp_path)
    assert settings.redis.cluster_nodes[0] == "redis-0.example.org:7000"


def test_versions_in_an_object_store_are_fetched_to_where_the_gateway_looks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    release = example(CHART / "examples" / "object-store.yaml")
    for component in ("gateway", "review", "worker", "retraining"):
        with monkeypatch.context() as patch:
            settings = settings_of(release, component, patch, tmp_path)
        (container,) = release.workload(component).pod["containers"]
        assert settings.bank.remote == "s3://safety/bank"
        mounted = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
        assert any(versions_folder(settings).is_relative_to(path) for path in mounted - {"/data"})
        assert container["envFrom"] == [{"secretRef": {"name": "bank-store"}}]
    assert release.workload("worker").kind == "StatefulSet"  # reviews are kept beside the versions


def test_gpus_are_asked_for_used_and_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    release = example(CHART / "examples" / "gpu.yaml")
    pod = release.workload("gateway").pod
    (container,) = pod["containers"]
    assert container["image"].partition("@")[2].startswith("sha256:")
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["resources"]["limits"]["memory"] == "8Gi"
    assert pod["nodeSelector"] == {"pool": "gpu"}
    assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert pod["runtimeClassName"] == "nvidia"
    assert settings_of(release, "gateway", monkeypatch, tmp_path).bank.device == "cuda"
    assert "nvidia.com/gpu" not in str(release.workload("review").pod)


# Commands.


@each_example
def test_every_argument_belongs_to_a_command_of_ours(path: Path) -> None:
    for workload, container in ours(example(path)):
        # Asked for help, a command first reads its other arguments and then does nothing.
        told = CliRunner().invoke(app, [*container["args"], "--help"])
        assert told.exit_code == 0, f"{workload.name}: {container['args']}\n{told.output}"


def test_an_argument_that_no_command_has_would_be_told() -> None:
    for arguments in (["serf"], ["serve", "--fast"], ["bank", "begin"]):
        assert CliRunner().invoke(app, [*arguments, "--help"]).exit_code != 0


def test_the_bundled_redis_is_the_one_that_compose_starts() -> None:
    (container,) = example(CHART / "examples" / "minimal.yaml").workload("redis").pod["containers"]
    compose = yaml.safe_load((CHART.parents[1] / "docker" / "compose.yaml").read_text("utf-8"))
    assert container["image"] == f"docker.io/library/{compose['services']['redis']['image']}"


def test_a_worker_is_watched_by_the_file_that_it_touches() -> None:
    (container,) = example(CHART / "examples" / "gpu.yaml").workload("worker").pod["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert (
            f"{environment(container, SECRETS)['ANTIPROMPT_DATA_DIR']}/{ALIVE}"
            in container[probe]["exec"]["command"][-1]
        )


def test_the_readmes_client_key_has_the_form_of_one() -> None:
    text = (CHART / "README.md").read_text("utf-8")
    (form,) = re.findall(r'client-key="(.+?)"', text)
    made = re.sub(r"\$\(openssl rand -hex (\d+)\)", lambda found: "0f" * int(found[1]), form)
    _, secret = split_token(made) or ("", "")
    assert len(secret) >= 32, made


# Policy and roll-outs.


def test_a_policy_arrives_whole_and_a_change_of_it_rolls_the_gateways() -> None:
    policy = "mode: shadow\nrules:\n  - {name: all, hazard: '*', side: any, risk_at_least: 0.9, action: block}\n"
    release, other, plain = rendered({"policy": policy}), rendered({"policy": policy.replace("0.9", "0.8")}), rendered()
    assert yaml.safe_load(release.one("ConfigMap", "-config")["data"]["policy.yaml"]) == yaml.safe_load(policy)
    sums = {_checksum(each, "gateway") for each in (release, other, plain)}
    assert len(sums) == 3
    assert _checksum(rendered(), "gateway") == _checksum(plain, "gateway")
    assert "ANTIPROMPT_POLICY_FILE" not in environment(plain.workload("gateway").pod["containers"][0], SECRETS)


def _checksum(release: Release, component: str) -> str:
    template = release.workload(component).owner["spec"]["template"]
    checksum: str = template["metadata"]["annotations"]["checksum/config"]
    return checksum


@each_example
def test_a_policy_of_an_example_can_be_used(path: Path) -> None:
    text = example(path).one("ConfigMap", "-config")["data"].get("policy.yaml")
    assert text is None or Policy.from_yaml(text).version


@pytest.mark.parametrize("longest_s", [1, 900, 3600, 86_370])
def test_a_roll_out_cuts_no_stream(longest_s: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    release = rendered({"upstream": {"totalTimeoutSeconds": longest_s}})
    workload = release.workload("gateway")
    settings = settings_of(release, "gateway", monkeypatch, tmp_path)
    wait_s = workload.pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert settings.upstream.total_timeout_s == longest_s
    assert settings.drain_s >= longest_s  # no exchange lasts longer
    assert workload.pod["terminationGracePeriodSeconds"] >= wait_s + settings.drain_s + 10
    assert workload.owner["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_a_jobs_name_changes_with_what_it_does_and_with_nothing_else() -> None:
    values = {"bank": {"store": "volume"}}
    names = [
        rendered({**values, **more}).one("Job")["metadata"]["name"]
        for more in ({}, {"gateway": {"replicas": 9}}, {"image": {"tag": "0.2.0"}})
    ]
    assert names[0] == names[1] != names[2]
