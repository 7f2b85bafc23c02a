"""Which texts of a request are new and which were seen before, and what is screened together.

Every text the model would read is screened. Each is screened alone, and the texts of the run of trailing user turns
are screened joined as well, so that a request cut over several turns or parts is seen whole. A turn is *old* only if
it stands before the newest turn and was judged before for this tenant: an old turn that would be blocked goes
upstream as a placeholder, so that it neither locks the chat for ever nor comes in by the back door. A forged history
was never judged, so it is new text.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from gateway.screening import Subject
from gateway.wire.surface import Extracted, Role, Text

PLACEHOLDER = "[A message was removed here by the safety policy.]"

_PROMPT_CHARS = 2000
"""How much of the end of a prompt is kept as context for its answer; the encoder reads less than that."""

_REMEMBERED = (Role.USER, Role.ASSISTANT, Role.TOOL)


@dataclass(frozen=True, slots=True)
class Part:
    """One thing to screen: the texts at ``indexes`` of the request, joined where there are several."""

    subject: Subject
    indexes: tuple[int, ...]
    role: Role


class Conversation:
    """A request's texts in the order the model reads them, cut into turns."""

    def __init__(self, extracted: Extracted) -> None:
        self.texts: Sequence[Text] = extracted.texts
        turns = [text.turn for text in self.texts if text.turn >= 0]
        self.newest_turn = max(turns, default=-1)
        self._run = self._trailing_user_run()

    def _trailing_user_run(self) -> tuple[int, ...]:
        """Indexes of the texts of the last unbroken run of user turns."""
        run: list[int] = []
        for index in range(len(self.texts) - 1, -1, -1):
            text = self.texts[index]
            if text.turn < 0:
                continue
            if text.role is not Role.USER:
                break
            run.append(index)
        return tuple(reversed(run))

    @property
    def prompt(self) -> str | None:
        """What the reply answers: the trailing user turns, or the last user text before a tool's results."""
        run = self._run
        if not run:
            last = next((i for i in range(len(self.texts) - 1, -1, -1) if self.texts[i].role is Role.USER), None)
            run = () if last is None else (last,)
        return "\n".join(self.texts[i].text for i in run)[-_PROMPT_CHARS:] or None

    def may_be_old(self, index: int) -> bool:
        """Whether this text stands in an earlier turn that could have been judged before."""
        text = self.texts[index]
        return 0 <= text.turn < self.newest_turn and text.role in _REMEMBERED

    def parts(self) -> list[Part]:
        """Every text alone, and the trailing user run joined."""
        parts = list(self._singles())
        joined = self.joined(())
        if joined is not None:
            parts.append(joined)
        return parts

    def _singles(self) -> Iterator[Part]:
        asked: str | None = None
        for index, text in enumerate(self.texts):
            if not text.text or text.text.isspace():
                continue
            if text.role is Role.ASSISTANT:
                subject = Subject(text.text, "response", asked)
            else:
                subject = Subject(text.text, "request")
            if text.role is Role.USER:
                asked = text.text[-_PROMPT_CHARS:]
            yield Part(subject, (index,), text.role)

    def joined(self, without: Collection[int]) -> Part | None:
        """The trailing user run as one text, less the texts at ``without``; None where one text or none is left."""
        indexes = tuple(i for i in self._run if i not in without)
        if len(indexes) < 2:
            return None
        return Part(Subject("\n".join(self.texts[i].text for i in indexes), "request"), indexes, Role.USER)
