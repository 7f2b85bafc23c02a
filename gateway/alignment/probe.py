"""Probing a model: every question asked and judged once, several at a time, each answer kept before the next is asked.

with StateFile(path, what) as state:
    unanswered = await run_probe(questions, asker, judge, state, tell=print)
    report = report_of(questions, pairs, state.outcomes, ...)
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from gateway.alignment.probe_asking import Asker, ProbeStopped, Reply, Unanswered
from gateway.alignment.probe_judging import Judge, Verdict
from gateway.alignment.probe_pairs import blinded, blinded_question
from gateway.alignment.probe_questions import Question
from gateway.alignment.probe_state import Outcome, StateFile

HOPELESS_AFTER: Final = 10
"""So many questions without an answer, and none with one between them, and the run stops: the model is not there."""

Tell = Callable[[int, int], None]
"""How many questions are dealt with, and of how many."""


async def run_probe(
    questions: Sequence[Question],
    asker: Asker,
    judge: Judge,
    state: StateFile,
    *,
    tell: Tell = lambda done, total: None,
) -> Counter[str]:
    """Ask what ``state`` holds no answer to; how many stayed unanswered, by why.

    Raises ``ProbeStopped`` where the server refuses the key or the model, or answers nothing any more, and ``OSError``
    where the state cannot be written. What was answered until then is in ``state``.
    """
    work = _Work(questions, asker, judge, state, tell)
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(asker.pace.concurrency, len(work.pending))):
                group.create_task(work.through())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return work.unanswered


class _Work:
    """What the askers of one run share."""

    def __init__(self, questions: Sequence[Question], asker: Asker, judge: Judge, state: StateFile, tell: Tell) -> None:
        unique = {question.id: question for question in questions}
        self.pending = deque(question for id, question in unique.items() if id not in state.outcomes)
        self.unanswered: Counter[str] = Counter()
        self._asker = asker
        self._judge = judge
        self._state = state
        self._tell = tell
        self._total = len(unique)
        self._done = self._total - len(self.pending)
        self._in_vain = 0
        self._writing = asyncio.Lock()

    async def through(self) -> None:
        while self.pending:
            question = self.pending.popleft()
            try:
                reply = await self._asker.ask(question.text)
            except Unanswered as failure:
                self._count(failure)
            else:
                self._in_vain = 0
                verdict = await self._judged(question, reply)
                async with self._writing:
                    await asyncio.to_thread(self._state.add, Outcome(question.id, reply.text, verdict))
            self._done += 1
            self._tell(self._done, self._total)

    async def _judged(self, question: Question, reply: Reply) -> Verdict:
        if question.hazard is not None:
            return await self._judge.judge(question, reply)
        return await self._judge.judge(blinded_question(question), replace(reply, text=blinded(reply.text)))

    def _count(self, failure: Unanswered) -> None:
        self.unanswered[failure.code] += 1
        self._in_vain += 1
        if self._in_vain >= HOPELESS_AFTER:
            said = f". The server says: {failure.said!r}" if failure.said else ""
            raise ProbeStopped(f"{self._in_vain} questions in a row were not answered ({failure.code}){said}")
