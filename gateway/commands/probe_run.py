"""One run of ``antiprompt probe``: which questions, who answers, who judges, and where the answers are kept."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from pydantic import SecretStr
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from antiprompt_bank import Bank
from gateway.alignment.probe import Tell, run_probe
from gateway.alignment.probe_asking import Asker, Pace, asking_settings
from gateway.alignment.probe_flags import send_failures
from gateway.alignment.probe_judging import RUBRIC, BankJudge, Judge, ModelJudge
from gateway.alignment.probe_pairs import Pair, bias_questions
from gateway.alignment.probe_questions import Question, Sample, sampled
from gateway.alignment.probe_report import Report, report_of
from gateway.alignment.probe_state import StateFile
from gateway.calibration import calibration_for
from gateway.commands.console import connected, err
from gateway.flags import FlagStore
from gateway.http_client import HttpClient
from gateway.settings import Settings
from gateway.upstream import Upstream

_JUDGING: dict[str, Any] = {"temperature": 0}


@dataclass(frozen=True, slots=True)
class Model:
    """A model by its name, on a server. The key goes to that server alone."""

    name: str
    upstream: str
    key: SecretStr | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the command was asked for. ``state`` None: a file in ``data_dir``, removed when all was answered."""

    model: Model
    judge: Model | None
    system: str | None
    parameters: Mapping[str, Any]
    pace: Pace
    timeout_s: float
    threshold: float
    sample: Sample
    bias: bool
    state: Path | None


class Run:
    """A probe with a plan. Use ``state`` as a context manager around ``measure``.

    Raises ``ValueError`` where no antiprompt fits the plan, and what ``calibration_for`` raises.
    """

    def __init__(self, plan: Plan, settings: Settings, bank: Bank) -> None:
        self._plan = plan
        self._settings = settings
        self._bank = bank
        self._questions: list[Question] = sampled(bank.records, plan.sample)
        if not self._questions:
            raise ValueError("no antiprompt of the bank fits: take other hazards, kinds, languages or severities")
        self._pairs: list[Pair] = []
        if plan.bias:
            questions, self._pairs = bias_questions()
            self._questions += questions
        calibration = calibration_for(settings, bank)
        self._bank_judge = BankJudge(bank, calibration, plan.threshold)
        judged = self._bank_judge.name if plan.judge is None else f"{plan.judge.name}, else {self._bank_judge.name}"
        self._what: dict[str, Any] = {
            "model": plan.model.name,
            "upstream": plan.model.upstream,
            "bank": bank.version,
            "calibration": calibration.status,
            "judge": judged,
            "system": plan.system,
            "parameters": dict(plan.parameters),
            "sample": plan.sample.to_json(),
            "bias": plan.bias,
        }
        name = hashlib.sha256(orjson.dumps(self._what, option=orjson.OPT_SORT_KEYS)).hexdigest()[:24]
        self.state = StateFile(plan.state or settings.data_dir / "probes" / f"{name}.jsonl", self._what)

    async def measure(self) -> Report:
        """Ask, judge and count. Raises what ``run_probe`` raises; all that was answered is kept for another try."""
        async with AsyncExitStack() as stack:
            asker = await self._asker(stack, self._plan.model, self._plan.parameters, self._plan.system)
            judge: Judge = self._bank_judge
            if self._plan.judge is not None:
                judge = ModelJudge(await self._asker(stack, self._plan.judge, _JUDGING, RUBRIC), self._bank_judge)
            with _progress() as tell:
                unanswered: Counter[str] = await run_probe(self._questions, asker, judge, self.state, tell=tell)
        return report_of(
            self._questions,
            self._pairs,
            self.state.outcomes,
            what=self._what,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            unanswered=unanswered,
        )

    async def send(self, report: Report) -> int:
        """File the failures as flags; how many. Raises ``StateUnavailable``."""
        async with connected(self._settings) as redis:
            flags = FlagStore(redis, None)
            await flags.start()
            try:
                return await send_failures(
                    report.failures, flags, model=self._plan.model.name, bank_version=self._bank.version
                )
            finally:
                await flags.close()

    def over(self, report: Report) -> None:
        """The report is written: the next run asks anew, unless questions stayed open or the file was named."""
        if self._plan.state is None and report.answered == report.asked:
            self.state.remove()

    async def _asker(
        self, stack: AsyncExitStack, model: Model, parameters: Mapping[str, Any], system: str | None
    ) -> Asker:
        settings = asking_settings(model.upstream, model.key, self._plan.pace, self._plan.timeout_s)
        http = await stack.enter_async_context(HttpClient(settings))
        upstream = Upstream(http, settings.base_url or "", settings.api_key)
        return Asker(upstream, model.name, pace=self._plan.pace, parameters=parameters, system=system)


@contextmanager
def _progress() -> Iterator[Tell]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("Asking", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
