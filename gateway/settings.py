"""Settings: the only reader of the environment and of the configuration file.

One frozen tree, built once at start and passed down as arguments. Every value can be set as an environment variable
(``ANTIPROMPT_`` + group + ``__`` + name, in capitals: ``ANTIPROMPT_UPSTREAM__BASE_URL``) or in the YAML file that
``ANTIPROMPT_CONFIG`` names; the environment wins. A name that no setting has is an error at start, so that a
misspelt one never passes for a default.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from platformdirs import user_data_path
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

PREFIX = "ANTIPROMPT_"
CONFIG_VARIABLE = "ANTIPROMPT_CONFIG"

Seconds = Annotated[float, Field(gt=0, le=86_400)]


class SettingsError(Exception):
    """A setting is unknown or out of its range; the message names it and says what it may be."""


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _is_local(host: str) -> bool:
    return host in ("localhost", "127.0.0.1", "::1")


class UpstreamSettings(_Group):
    """The model server behind the gateway."""

    base_url: str | None = Field(None, description="Base URL up to and with /v1. Unset: the demonstration model.")
    api_key: SecretStr | None = Field(
        None, description="Sent upstream in place of the caller's. Needed with client keys."
    )
    connect_timeout_s: Seconds = Field(5.0, description="Longest wait for a connection.")
    read_timeout_s: Seconds = Field(600.0, description="Longest silence while a reply is awaited or streamed.")
    total_timeout_s: Seconds = Field(3600.0, description="Longest a whole exchange may take.")
    max_connections: int = Field(1000, ge=1, le=100_000, description="Open connections to the model server.")
    connect_retries: int = Field(2, ge=0, le=10, description="Retries where the request provably never left.")
    breaker_failures: int = Field(20, ge=1, le=10_000, description="Failures in a row that open the circuit.")
    breaker_reset_s: Seconds = Field(5.0, description="How long an open circuit refuses before one trial.")
    max_reply_bytes: int = Field(32 << 20, ge=1024, le=1 << 30, description="Largest whole reply that is read.")
    max_event_bytes: int = Field(1 << 20, ge=1024, le=64 << 20, description="Largest single stream event.")

    @field_validator("base_url")
    @classmethod
    def _http_url(cls, value: str | None) -> str | None:
        if value is None or not value.strip():
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("must be an http or https URL without query, such as https://host/v1")
        if parts.username or parts.password:
            raise ValueError("must not carry a password; set upstream.api_key")
        return value.rstrip("/")


class RedisSettings(_Group):
    """Where state is kept."""

    url: SecretStr | None = Field(None, description="redis:// or rediss:// URL. Unset: a private server in data_dir.")
    sentinels: tuple[str, ...] = Field(
        (), description="Sentinels as host:port. They name the primary; redis.url gives its user, password and TLS."
    )
    sentinel_name: str = Field("mymaster", min_length=1, max_length=256, description="What Sentinels call the primary.")
    sentinel_password: SecretStr | None = Field(None, description="Password of the Sentinels, if they have one.")
    cluster_nodes: tuple[str, ...] = Field(
        (), description="Some nodes of a Redis Cluster as host:port; redis.url gives user, password and TLS."
    )
    wait_replicas: int = Field(
        0, ge=0, le=10, description="Replicas that must have a write before it is acknowledged (WAIT)."
    )
    timeout_s: Seconds = Field(2.0, description="Longest wait for one answer.")
    max_connections: int = Field(64, ge=1, le=10_000, description="Open connections to Redis; to each of its nodes.")

    @field_validator("sentinels", "cluster_nodes")
    @classmethod
    def _addresses(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            parts = urlsplit(f"//{value}")
            if not parts.hostname or parts.port is None or parts.netloc != value or parts.username is not None:
                raise ValueError(f"{value!r} is not host:port")
        return values

    @model_validator(mode="after")
    def _one_way_to_redis(self) -> RedisSettings:
        if self.sentinels and self.cluster_nodes:
            raise ValueError("sentinels and cluster_nodes exclude each other")
        if self.wait_replicas and not self.outside:
            raise ValueError("wait_replicas is for an outside Redis: the private server has no replicas")
        if (self.sentinels or self.cluster_nodes) and self.url is not None:
            url = urlsplit(self.url.get_secret_value())
            if url.scheme not in ("redis", "rediss"):
                raise ValueError("with sentinels or cluster_nodes, url is redis:// or rediss://")
            if self.cluster_nodes and url.path.strip("/") not in ("", "0"):
                raise ValueError("a cluster has one database: leave its number out of url")
        return self

    @property
    def outside(self) -> bool:
        """Whether Redis is somebody else's to run."""
        return self.url is not None or bool(self.sentinels or self.cluster_nodes)


class BankSettings(_Group):
    """Which bank and which encoder."""

    path: Path | None = Field(None, description="Folder of bank versions. Unset: built from the seed in data_dir.")
    remote: str | None = Field(
        None, description="fsspec URL that keeps all versions, as s3://bucket/bank; gateways fetch what they lack."
    )
    version: str | None = Field(None, description="Version to load. Unset: the published one.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the encoder runs.")
    model: str = Field(
        "all-MiniLM-L6-v2",
        description="Encoder of the seed bank: a sentence-transformers model by name or path (path has its own).",
    )
    seed: Path | None = Field(
        None, description="Folder with the seed bank as built before, as images carry it. Unset: built in data_dir."
    )
    adapter: Literal["none", "shipped"] | Path = Field(
        "shipped", description="What was trained on top of the encoder: none, the shipped one, or a folder of your own."
    )
    calibration_file: Path | None = Field(
        None, description="Fit that `antiprompt calibrate` wrote. Unset: calibration.json in data_dir, if it is there."
    )
    on_stale_calibration: Literal["shadow", "shipped", "refuse"] = Field(
        "shadow",
        description="With a fit of another bank or encoder: enforce nothing, use the bank's own, or never be ready.",
    )


class ScreeningSettings(_Group):
    """How texts are screened."""

    threads: int = Field(1, ge=1, le=256, description="Threads that encode. One per core that is spare.")
    max_batch_windows: int = Field(32, ge=1, le=65_536, description="Windows joined into one encoder call.")
    max_queue_windows: int = Field(2048, ge=1, le=10_000_000, description="Windows waiting; more is 429.")
    max_windows: int = Field(512, ge=1, le=1_000_000, description="Windows one request may need; more is 413.")
    timeout_s: Seconds = Field(10.0, description="Longest wait for a verdict; then the text counts as unscreened.")
    cache_entries: int = Field(50_000, ge=0, le=100_000_000, description="Screenings remembered. 0: none.")


class StreamSettings(_Group):
    """How streamed replies are held back."""

    hold: Literal["window", "whole"] = Field("window", description="Release window by window, or only a whole reply.")
    first_chars: int = Field(64, ge=1, le=100_000, description="New characters that make the first window due.")
    window_chars: int = Field(192, ge=16, le=100_000, description="New characters that make a later window due.")
    overlap_chars: int = Field(96, ge=0, le=100_000, description="Earlier characters screened again with new ones.")
    max_hold_ms: int = Field(1500, ge=1, le=600_000, description="Longest a received character waits for a window.")
    max_held_bytes: int = Field(4 << 20, ge=1024, le=1 << 30, description="Most a stream may hold; more ends it.")


class LimitSettings(_Group):
    """Bounds on what one caller can ask."""

    max_body_bytes: int = Field(8 << 20, ge=1024, le=1 << 30, description="Largest request body; more is 413.")
    max_header_bytes: int = Field(64 << 10, ge=1024, le=1 << 20, description="Largest request head; more is 431.")
    max_json_depth: int = Field(64, ge=4, le=512, description="Deepest nesting of a request body; more is 413.")
    max_texts: int = Field(10_000, ge=1, le=1_000_000, description="Texts in one request; more is 413.")
    max_concurrent: int = Field(2000, ge=1, le=1_000_000, description="Requests under way at once; more is 429.")
    body_timeout_s: Seconds = Field(30.0, description="Longest wait for a request body.")


class RouteSettings(_Group):
    """What passes beside the surfaces that are screened."""

    passed_through: tuple[str, ...] = Field((), description="Unscreened routes, as 'GET /v1/files'. A * ends a prefix.")
    hosted_tools: tuple[str, ...] = Field((), description="Tool types of the responses API that may run upstream.")
    stored_prompts: tuple[str, ...] = Field((), description="Ids of stored prompts that callers may use.")
    conversations: tuple[str, ...] = Field((), description="Ids of conversations that callers may use.")
    background: bool = Field(False, description="Whether background responses are allowed.")
    allowed_hosts: tuple[str, ...] = Field((), description="Host names served without keys, besides loopback's.")


class FlagSettings(_Group):
    """What users may flag, and how often."""

    per_key_per_hour: int = Field(600, ge=1, le=100_000_000, description="Flags by one key in an hour; more is 429.")
    per_end_user_per_hour: int = Field(60, ge=1, le=100_000_000, description="Flags by one end user in an hour.")
    max_spool_bytes: int = Field(256 << 20, ge=4096, le=1 << 40, description="Largest spool; a full one is 503.")


class HoldSettings(_Group):
    """Who is told what was decided about held content."""

    webhook_url: str | None = Field(None, description="Where decisions about held content are posted. Unset: nowhere.")
    webhook_secret: SecretStr | None = Field(
        None, min_length=16, description="Key of the signature (HMAC-SHA256) on each post."
    )
    webhook_timeout_s: float = Field(10.0, gt=0, le=300, description="Longest wait for the receiver's answer.")
    webhook_tries: int = Field(
        20, ge=1, le=1000, description="Tries, further and further apart (at most an hour), before one is given up."
    )

    @field_validator("webhook_url")
    @classmethod
    def _safe_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if not parts.hostname or parts.fragment or parts.username or parts.password:
            raise ValueError("must be a plain URL such as https://host/path")
        if parts.scheme != "https" and not (parts.scheme == "http" and _is_local(parts.hostname)):
            raise ValueError("must be https (http is for this machine alone)")
        return value

    @model_validator(mode="after")
    def _whole(self) -> HoldSettings:
        if (self.webhook_url is None) != (self.webhook_secret is None):
            raise ValueError("webhook_url and webhook_secret go together: a post that is not signed could be anybody's")
        return self


class StrikeSettings(_Group):
    """How the strikes of end users who are blocked fade; what follows from them stands in the policy."""

    half_life_s: float = Field(
        7 * 86_400.0, ge=60, le=31_536_000, description="Time in which a strike's weight halves. The same everywhere."
    )


class RetentionSettings(_Group):
    """How long exchanges are kept, so that a flag by id has its text."""

    exchange_ttl_s: int = Field(3600, ge=0, le=31_536_000, description="How long an exchange is kept. 0: never.")
    exchange_max_bytes: int = Field(256 << 20, ge=0, le=1 << 40, description="Most bytes of exchanges kept.")
    case_ttl_s: int = Field(7 * 86_400, ge=60, le=31_536_000, description="How long a case (no text) is kept.")
    traffic_texts: int = Field(
        2000, ge=0, le=100_000, description="Texts sampled as vectors, for influence reports. 0: none."
    )
    stream_entries: int = Field(
        100_000, ge=1000, le=500_000, description="Newest entries of each log that stay in Redis; older ones: archive."
    )
    archive: str | None = Field(
        None, description="Folder or fsspec URL for the older entries of the logs. Unset: archive in data_dir."
    )


class TracingSettings(_Group):
    """Traces for an OpenTelemetry collector (see ``gateway.tracing``)."""

    endpoint: str | None = Field(
        None, description="URL that takes OTLP over HTTP, such as http://host:4318/v1/traces. Unset: no traces."
    )
    authorization: SecretStr | None = Field(None, description="Sent to the collector as its Authorization header.")
    share: float = Field(1.0, ge=0, le=1, description="Share of the requests that is traced.")
    from_callers: bool = Field(
        False, description="Go on with a caller's trace (traceparent), which then also says whether it is recorded."
    )
    to_upstream: bool = Field(
        False, description="Send traceparent to the model server: ours, or without traces the caller's."
    )
    service_name: str = Field("antiprompt-gateway", min_length=1, max_length=200, description="Name in the traces.")
    timeout_s: float = Field(5.0, gt=0, le=60, description="Longest one send to the collector may take.")
    send_every_s: float = Field(2.0, ge=0.05, le=60, description="How often what has gathered is sent.")
    max_queue_spans: int = Field(8192, ge=64, le=1_000_000, description="Steps that wait to be sent; more are dropped.")

    @field_validator("endpoint")
    @classmethod
    def _http_url(cls, value: str | None) -> str | None:
        if value is None or not value.strip():
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment:
            raise ValueError("must be an http or https URL, such as http://host:4318/v1/traces")
        if parts.username or parts.password:
            raise ValueError("must not carry a password; set tracing.authorization")
        return value


class ReviewSettings(_Group):
    """The dashboard at /review, and who stays logged in for how long."""

    enabled: bool = Field(True, description="Whether the dashboard is served.")
    host: str = Field("127.0.0.1", description="Address of the dashboard's own listener.")
    port: int | None = Field(
        None, ge=1, le=65_535, description="Port of a listener for the dashboard alone. Unset: the gateway's own."
    )
    https: bool = Field(False, description="People reach it through https: cookies never travel without.")
    session_idle_s: int = Field(3600, ge=60, le=86_400, description="Idle time after which a person is logged out.")
    session_max_s: int = Field(43_200, ge=300, le=604_800, description="Longest a person stays logged in.")
    log_ins_per_minute: int = Field(10, ge=1, le=10_000, description="Log-ins tried on one account; more is 429.")
    log_ins_per_address: int = Field(30, ge=1, le=100_000, description="The same from one address, in a minute.")
    public_url: str | None = Field(
        None, description="Where people reach the dashboard, such as https://host. For OIDC."
    )
    oidc_issuer: str | None = Field(None, description="Identity provider (OpenID Connect) that people log in with.")
    oidc_client_id: str | None = Field(None, description="What the identity provider calls this dashboard.")
    oidc_client_secret: SecretStr | None = Field(None, description="The secret that goes with the client id.")
    oidc_claim: str = Field("email", description="Claim that names the account; an email must be a verified one.")

    @field_validator("public_url", "oidc_issuer")
    @classmethod
    def _safe_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if not parts.hostname or parts.query or parts.fragment or parts.username:
            raise ValueError("must be a plain URL such as https://host")
        if parts.scheme != "https" and not (parts.scheme == "http" and _is_local(parts.hostname)):
            raise ValueError("must be https (http is for this machine alone)")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _whole(self) -> ReviewSettings:
        if self.oidc_issuer is not None and None in (self.oidc_client_id, self.oidc_client_secret, self.public_url):
            raise ValueError("oidc_issuer needs oidc_client_id, oidc_client_secret and public_url")
        return self


class RetrainingSettings(_Group):
    """When workers make a new version of the bank, and what it must be worth."""

    min_exemplars: int = Field(50, ge=1, le=1_000_000, description="New exemplars that make a new version due.")
    max_wait_s: float = Field(
        86_400.0, gt=0, le=31_536_000, description="Longest that one new exemplar waits for a version."
    )
    max_false_positives: float = Field(
        0.01, ge=0, le=1, description="Most of the harmless held-out texts that a new version may hit."
    )
    held_out: Path | None = Field(
        None, description="Folder of labelled texts (*.jsonl) of your own that new versions are measured on too."
    )
    max_texts: int = Field(
        5000, ge=20, le=1_000_000, description="Held-out texts of each kind that a new version is measured on, at most."
    )
    train_adapter: bool = Field(False, description="Train an adapter on the exemplars for each new version.")
    claim_after_s: Seconds = Field(60.0, description="Silence after which another worker takes over a review.")
    max_tries: int = Field(5, ge=1, le=1000, description="Tries to learn a review before it is a dead letter.")
    retry_s: Seconds = Field(300.0, description="Wait after a version that could not be built.")


class AlignmentSettings(_Group):
    """What leaves as training data for a language model (``antiprompt align export``)."""

    redact: bool = Field(True, description="Take personal data (by its form) out of all exported texts.")
    most_alike: int = Field(8, ge=1, le=100_000, description="Rows that one family of look-alikes may have.")
    held_out_share: float = Field(0.1, ge=0, lt=1, description="Share of the families that is never trained on.")


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        nested_model_default_partial_update=True,
    )

    host: str = Field("127.0.0.1", description="Address to listen on. Other than loopback needs client keys.")
    port: int = Field(8080, ge=0, le=65_535, description="Port to listen on.")
    data_dir: Path = Field(
        default_factory=lambda: user_data_path("antiprompt"),
        description="Folder of state: Redis, bank, spool.",
    )
    policy_file: Path | None = Field(None, description="Policy YAML. Unset: the one that ships.")
    log_format: Literal["json", "console"] = Field("json", description="How log lines are written.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged.")
    drain_s: Seconds = Field(30.0, description="How long open streams may finish after SIGTERM.")
    upstream: UpstreamSettings = UpstreamSettings()
    redis: RedisSettings = RedisSettings()
    bank: BankSettings = BankSettings()
    screening: ScreeningSettings = ScreeningSettings()
    stream: StreamSettings = StreamSettings()
    limits: LimitSettings = LimitSettings()
    routes: RouteSettings = RouteSettings()
    flags: FlagSettings = FlagSettings()
    holds: HoldSettings = HoldSettings()
    strikes: StrikeSettings = StrikeSettings()
    retention: RetentionSettings = RetentionSettings()
    retraining: RetrainingSettings = RetrainingSettings()
    alignment: AlignmentSettings = AlignmentSettings()
    review: ReviewSettings = ReviewSettings()
    tracing: TracingSettings = TracingSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings


def load_settings(**overrides: Any) -> Settings:
    """Read file and environment. ``overrides`` stand below the environment. Raises ``SettingsError``."""
    _refuse_unknown_variables()
    values = {**_from_file(), **overrides}
    try:
        return Settings(**values)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)]
        raise SettingsError("settings are not valid:\n  " + "\n  ".join(lines)) from None


def _refuse_unknown_variables() -> None:
    """pydantic-settings lets a misspelt top-level variable pass; a gateway must not."""
    known = set(Settings.model_fields)
    for name in os.environ:
        if not name.upper().startswith(PREFIX) or name.upper() == CONFIG_VARIABLE:
            continue
        top = name[len(PREFIX) :].lower().split("__")[0]
        if top not in known:
            raise SettingsError(f"{name} is set, but there is no setting {top!r}; `antiprompt settings` lists them")


def _from_file() -> dict[str, Any]:
    path = os.environ.get(CONFIG_VARIABLE)
    if not path:
        return {}
    try:
        values = yaml.safe_load(Path(path).read_text("utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError(f"{CONFIG_VARIABLE}: {path} cannot be read: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(f"{CONFIG_VARIABLE}: {path} must hold a mapping of settings")
    return values
