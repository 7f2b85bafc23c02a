"""Numbers about the reviews: how many, how fast, how much people agree, and what policy got wrong. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import median

from gateway.flag_records import Source
from gateway.review_records import Decision, Numbers, Review


def numbers_of(reviews: Sequence[Review], by_state: Mapping[str, int], filed: int, decided: int) -> Numbers:
    """Numbers over ``reviews``; those that were undone count only towards agreement, as somebody's opinion."""
    standing = [review for review in reviews if review.stands and review.decision is not Decision.ESCALATE]
    waited = [seconds for review in standing for seconds in review.waited_s]
    judged: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for review in standing:
        for source, hazard in zip(review.sources, review.hazards, strict=True):
            if source == Source.POLICY and hazard is not None:
                judged[hazard] += 1
                wrong[hazard] += review.decision is Decision.DISMISS
    return Numbers(
        by_state=dict(by_state),
        filed=filed,
        decided=decided,
        reviews=len(standing),
        review_s_median=median(waited) if waited else None,
        agreement=_agreement(reviews),
        false_hits={hazard: wrong[hazard] / count for hazard, count in judged.items()},
        flags_by_hazard=dict(judged),
        by_moderator=dict(Counter(review.moderator for review in standing)),
    )


def _agreement(reviews: Sequence[Review]) -> float | None:
    """Of the flags that at least two people decided, the share on which all decided alike."""
    said: defaultdict[str, dict[str, Decision]] = defaultdict(dict)
    for review in sorted(reviews, key=lambda review: review.at):
        if review.decision is not Decision.ESCALATE:
            for flag_id in review.flag_ids:
                said[flag_id][review.moderator] = review.decision
    shared = [set(decisions.values()) for decisions in said.values() if len(decisions) > 1]
    return sum(len(decisions) == 1 for decisions in shared) / len(shared) if shared else None
