"""A model is asked, judged and told apart from others, over real sockets."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

from antiprompt_bank import Bank
from gateway.alignment.probe import HOPELESS_AFTER, run_probe
from gateway.alignment.probe_asking import Pace, ProbeStopped
from gateway.alignment.probe_pairs import CONTRASTS, REQUESTS, Contrast, Group
from gateway.alignment.probe_questions import Sample, sampled
from gateway.alignment.probe_report import Gap, Report
from tests.fakes import ScriptedUpstream, error, hang
from tests.gateway.alignment.probing import (
    HAZARDS,
    PER_HAZARD,
    REFUSAL,
    asked,
    asking,
    bad_answer,
    bank_judge,
    chance,
    failing_at,
    hazard_of,
    probed,
    records,
    replying,
    state_in,
)

FAST = Pace(concurrency=8, tries=2, first_wait_s=0.001)
QUESTIONS = sampled(records(), Sample())
RELIGION = CONTRASTS[1:2]


def found(report: Report) -> list[tuple[str, str, str]]:
    return [(gap.group, gap.other, gap.measure) for gap in report.biased]


async def test_a_model_that_fails_at_two_hazards_is_named_so(probed_bank: Bank, tmp_path: Path) -> None:
    report = await probed(failing_at("privacy", "elections"), probed_bank, tmp_path)
    assert sorted(report.failing) == ["elections", "privacy"]
    rates = {each.name: (each.failed.hits, each.failed.of) for each in report.hazards}
    assert rates == {hazard: (PER_HAZARD * (hazard in ("privacy", "elections")), PER_HAZARD) for hazard in HAZARDS}
    assert {each.name: each.failed.of for each in report.kinds} == {
        "misleading": 6,
        "adversarial": 6,
        "ambiguous": 6,
        "plain": 18,
    }
    assert (report.total.failed.hits, report.total.refused.hits) == (12, 24)
    assert {failure.question.hazard for failure in report.failures} == {"elections", "privacy"}


async def test_a_model_that_refuses_everything_fails_nowhere(probed_bank: Bank, tmp_path: Path) -> None:
    report = await probed(lambda text: REFUSAL, probed_bank, tmp_path)
    assert (report.failing, report.failures) == ((), ())
    assert report.total.refused.share == 1


# Groups of people.


async def test_a_group_that_is_refused_more_often_is_found(probed_bank: Bank, tmp_path: Path) -> None:
    def speak(text: str) -> str:
        return REFUSAL if "Muslim" in text and chance(0.6, text) else "Gladly, here it is."

    report = await probed(speak, probed_bank, tmp_path, CONTRASTS[1:4])
    assert found(report) == [("Muslims", "Christians", "refused")]
    (gap,) = report.biased
    assert gap.adjusted < 0.01
    assert gap.points > 30
    assert gap.only_other == 0


async def test_a_group_about_which_worse_is_said_is_found(probed_bank: Bank, tmp_path: Path) -> None:
    def speak(text: str) -> str:
        return bad_answer("hate") if "immigrant" in text else "Gladly, here it is."

    report = await probed(speak, probed_bank, tmp_path, CONTRASTS[3:4])
    assert found(report) == [("immigrants", "locals", "flagged")]


async def test_twenty_runs_of_an_unbiased_model_raise_no_alarm(probed_bank: Bank, tmp_path: Path) -> None:
    for run in range(20):

        def speak(text: str, run: int = run) -> str:
            return REFUSAL if chance(0.3, run, text) else "Gladly, here it is."

        report = await probed(speak, probed_bank, tmp_path, RELIGION)
        assert report.gaps[0].group_rate.of == len(REQUESTS)
        assert 0 < report.gaps[0].group_rate.hits < len(REQUESTS)
        assert found(report) == []


async def test_what_the_bank_thinks_of_a_group_is_not_laid_to_the_model(probed_bank: Bank, tmp_path: Path) -> None:
    """The bank knows a harmful sentence about neighbours; the model says the same of both groups."""
    contrast = Contrast("test", Group("a Muslim", "Muslims"), Group("a Christian", "Christians"))

    def speak(text: str) -> str:
        return "those Muslims are vermin" if "Muslim" in text else "those Christians are vermin"

    report = await probed(speak, probed_bank, tmp_path, (contrast,))
    flagged: Gap = report.gaps[1]
    assert flagged.measure == "flagged"
    assert (flagged.only_group, flagged.only_other) == (0, 0)
    assert flagged.group_rate == flagged.other_rate


# Going on, and giving up.


async def test_a_run_that_was_killed_goes_on_and_asks_nothing_answered_again(tmp_path: Path) -> None:
    heard: list[str] = []
    dies_at = 5

    def speak(text: str) -> object:
        heard.append(text)
        return hang() if len(heard) == dies_at + 1 else REFUSAL

    command = [sys.executable, "-m", "tests.gateway.alignment.probing_process"]
    async with ScriptedUpstream() as upstream:
        upstream.on("/chat/completions", replying(speak))  # type: ignore[arg-type]
        places = [upstream.base_url, str(tmp_path / "state.jsonl"), str(tmp_path / "encoder")]
        first = await asyncio.create_subprocess_exec(*command, *places)
        await upstream.arrived(dies_at + 1, within_s=120)
        first.kill()
        assert await first.wait() == -signal.SIGKILL
        second = await asyncio.create_subprocess_exec(*command, *places)
        await upstream.arrived(len(QUESTIONS) + 1, within_s=120)
        assert await second.wait() == 0
    assert Counter(heard) - Counter(question.text for question in QUESTIONS) == Counter([heard[dies_at]])
    assert len(heard) == len(QUESTIONS) + 1
    with state_in(tmp_path) as state:
        assert set(state.outcomes) == {question.id for question in QUESTIONS}


async def test_what_stays_unanswered_is_counted_and_asked_again_next_time(probed_bank: Bank, tmp_path: Path) -> None:
    def down_for_hate(text: str) -> object:
        return error(503) if hazard_of(text) == "hate" else REFUSAL

    async with ScriptedUpstream() as upstream, asking(upstream, FAST) as asker:
        upstream.on("/chat/completions", replying(down_for_hate))  # type: ignore[arg-type]
        with state_in(tmp_path) as state:
            assert await run_probe(QUESTIONS, asker, bank_judge(probed_bank), state) == {"http_503": PER_HAZARD}
        upstream.on("/chat/completions", replying(failing_at("hate")))
        before = len(upstream.requests)
        with state_in(tmp_path) as state:
            assert await run_probe(QUESTIONS, asker, bank_judge(probed_bank), state) == {}
            assert len(state.outcomes) == len(QUESTIONS)
        assert {hazard_of(asked(each)) for each in upstream.requests[before:]} == {"hate"}
        assert len(upstream.requests) == before + PER_HAZARD


async def test_a_server_that_answers_nothing_ends_the_run(probed_bank: Bank, tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, asking(upstream, Pace(concurrency=2, tries=1)) as asker:
        upstream.on("/chat/completions", error(400, "max_tokens is not supported"))
        with state_in(tmp_path) as state:
            with pytest.raises(ProbeStopped, match="max_tokens is not supported"):
                await run_probe(QUESTIONS, asker, bank_judge(probed_bank), state)
            assert not state.outcomes
        assert HOPELESS_AFTER <= len(upstream.requests) <= HOPELESS_AFTER + 2


async def test_progress_is_told(probed_bank: Bank, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    async with ScriptedUpstream() as upstream, asking(upstream, FAST) as asker:
        upstream.on("/chat/completions", replying(failing_at()))
        with state_in(tmp_path) as state:
            await run_probe(QUESTIONS, asker, bank_judge(probed_bank), state, tell=lambda *each: told.append(each))
    assert told == [(number, len(QUESTIONS)) for number in range(1, len(QUESTIONS) + 1)]
