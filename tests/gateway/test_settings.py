"""Settings come from file and environment, within their limits, and nothing unknown passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.settings import Settings, SettingsError, load_settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.upper().startswith("ANTIPROMPT_"):
            monkeypatch.delenv(name)


def test_every_setting_has_a_default_and_a_description() -> None:
    settings = load_settings()
    for name, field in Settings.model_fields.items():
        group = getattr(settings, name)
        if hasattr(type(group), "model_fields"):
            for inner, described in type(group).model_fields.items():
                assert described.description, f"{name}.{inner} has no description"
        else:
            assert field.description, f"{name} has no description"


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("port: 9000\nupstream: {base_url: 'http://file/v1', read_timeout_s: 7}\n")
    monkeypatch.setenv("ANTIPROMPT_CONFIG", str(file))
    monkeypatch.setenv("ANTIPROMPT_UPSTREAM__BASE_URL", "https://environment/v1/")
    settings = load_settings()
    assert settings.port == 9000
    assert settings.upstream.base_url == "https://environment/v1"
    assert settings.upstream.read_timeout_s == 7


@pytest.mark.parametrize("name", ["ANTIPROMPT_UPSTREM", "ANTIPROMPT_UPSTREAM__BASE_UL", "ANTIPROMPT_PROT"])
def test_a_misspelt_variable_is_an_error_that_names_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(SettingsError, match=name.split("__")[-1].removeprefix("ANTIPROMPT_").lower()):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ANTIPROMPT_PORT", "99999"),
        ("ANTIPROMPT_SCREENING__THREADS", "0"),
        ("ANTIPROMPT_UPSTREAM__BASE_URL", "ftp://host"),
        ("ANTIPROMPT_UPSTREAM__BASE_URL", "https://user:secret@host/v1"),
        ("ANTIPROMPT_STREAM__HOLD", "none"),
    ],
)
def test_a_value_out_of_range_is_an_error(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert "secret" not in str(error.value)


def test_an_unknown_name_in_the_file_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("upstream: {base_ulr: x}\n")
    monkeypatch.setenv("ANTIPROMPT_CONFIG", str(file))
    with pytest.raises(SettingsError, match="base_ulr"):
        load_settings()


def test_secrets_do_not_show_when_settings_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTIPROMPT_UPSTREAM__API_KEY", "sk-very-secret")
    monkeypatch.setenv("ANTIPROMPT_REDIS__URL", "redis://:very-secret@host/0")
    settings = load_settings()
    assert "very-secret" not in repr(settings)
    assert "very-secret" not in settings.model_dump_json()
