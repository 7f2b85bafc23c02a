"""Which texts of a request are new and which were seen before, and what is screened together.

Every text the model would read is screened. Each is screened alone, and the texts of each unbroken run of user turns
are screened joined as well, so that a request cut over several turns or parts is seen whole. A turn is *old* only if
it stands before the newest turn and was judged before for this tenant: an old turn that would be blocked goes
upstream as a placeholder, so that it neither locks the chat for ever nor comes in by the back door. Of a run that was
blocked as a whole, its newest text is what makes way. A forged history was never judged, so it is new text.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from gateway.screening import Subject
from gateway.wire.surface import Extracted, Role, Text

PLACEHOLDER = "[A message was removed here by the safety policy.]"

_PROMPT_CHARS = 2000
"""How much of the end of a prompt is kept as context for its answer; the encoder reads less than that."""

_LOOKED_BACK = 8
"""How many of the earlier states of a long run of user turns are looked up: what each costs grows with the run."""

_REMEMBERED = (Role.USER, Role.ASSISTANT, Role.TOOL)


@dataclass(frozen=True, slots=True)
class Part:
    """One thing to screen: the texts at ``indexes`` of the request, joined where there are several."""

    subject: Subject
    indexes: tuple[int, ...]
    role: Role

    def edited(self, text: str) -> Part:
        """The same part with another text."""
        return replace(self, subject=replace(self.subject, text=text))


class Conversation:
    """A request's texts in the order the model reads them, cut into turns."""

    def __init__(self, extracted: Extracted) -> None:
        self.texts: Sequence[Text] = extracted.texts
        turns = [text.turn for text in self.texts if text.turn >= 0]
        self.newest_turn = max(turns, default=-1)
        self._runs = self._user_runs()

    def _user_runs(self) -> list[tuple[int, ...]]:
        """Indexes of the texts of each unbroken run of user turns; the last is empty where another speaks last."""
        runs: list[list[int]] = [[]]
        for index, text in enumerate(self.texts):
            if text.turn < 0:
                continue
            if text.role is Role.USER:
                runs[-1].append(index)
            elif runs[-1]:
                runs.append([])
        return [tuple(run) for run in runs]

    @property
    def prompt(self) -> str | None:
        """What the reply answers: the trailing user turns, or the last user text before a tool's results."""
        run = self._runs[-1]
        if not run:
            last = next((i for i in range(len(self.texts) - 1, -1, -1) if self.texts[i].role is Role.USER), None)
            run = () if last is None else (last,)
        return "\n".join(self.texts[i].text for i in run)[-_PROMPT_CHARS:] or None

    def may_be_old(self, index: int) -> bool:
        """Whether this text stands in an earlier turn that could have been judged before."""
        text = self.texts[index]
        return 0 <= text.turn < self.newest_turn and text.role in _REMEMBERED

    def parts(self) -> list[Part]:
        """Every text alone, and each run of user turns joined."""
        return [*self._singles(), *self.joined_runs()]

    def joined_runs(self, without: Collection[int] = ()) -> list[Part]:
        """Each run of user turns as one text, less the texts at ``without``, where several texts are left."""
        left = (tuple(index for index in run if index not in without) for run in self._runs)
        return [self._joined(run) for run in left if len(run) > 1]

    def as_asked_before(self) -> list[Part]:
        """The trailing run as it stood after each of its last earlier turns: what was judged as a whole then."""
        run = self._runs[-1]
        ends = [at for at in range(2, len(run)) if self.texts[run[at]].turn != self.texts[run[at - 1]].turn]
        return [self._joined(run[:end]) for end in ends[-_LOOKED_BACK:]]

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

    def _joined(self, indexes: tuple[int, ...]) -> Part:
        return Part(Subject("\n".join(self.texts[i].text for i in indexes), "request"), indexes, Role.USER)
