"""``antiprompt review``: the moderators' dashboard alone, in a process of its own."""

from __future__ import annotations

from gateway.app import create_dashboard
from gateway.commands.console import FAILURES, err, fail, settings_or_fail
from gateway.commands.listener import Server, listening
from gateway.policy import Policy
from gateway.policy_file import DEFAULT_POLICY_FILE
from gateway.settings import SettingsError
from gateway.telemetry import configure_logs


def review() -> None:
    """Serve the dashboard alone, on review.host and review.port (or port), beside gateways that share its Redis."""
    settings = settings_or_fail()
    configure_logs(format=settings.log_format, level=settings.log_level)
    try:
        if not settings.redis.outside:
            raise SettingsError(
                "the dashboard alone needs the Redis that its gateways share: set redis.url (ANTIPROMPT_REDIS__URL); "
                "a gateway with a Redis of its own serves /review itself"
            )
        Policy.from_yaml((settings.policy_file or DEFAULT_POLICY_FILE).read_text("utf-8"))
        host, port = settings.review.host, settings.review.port or settings.port
        server = Server(listening(create_dashboard(settings), settings, host, port, lifespan="on"))
        err.print(f"The dashboard is at http://{f'[{host}]' if ':' in host else host}:{port}/review", markup=False)
        server.run()
    except FAILURES as error:
        fail(str(error))
    if not server.started:
        fail("the dashboard did not start; the lines above say why")
