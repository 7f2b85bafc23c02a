import random
from collections.abc import Sequence

import torch

from gateway.alignment.experiments import toy
from gateway.alignment.objectives import Asked, Ranked, RankingSettings
from gateway.alignment.token_batches import Example, Ids
from tests.gateway.alignment.tiny import draw_one  # noqa: F401  # one thread

PLAIN, NEGATIVE, POSITIVE = (toy.BEGIN, 5), (toy.BEGIN, 50, 5), (toy.BEGIN, 51, 5)


def test_samples_come_from_the_sampling_prompts_and_are_scored_behind_the_plain_one() -> None:
    asked = Asked(PLAIN, ((NEGATIVE,), (POSITIVE,)), (((7, 8), 1.0), ((9,), -1.0)), about="it")
    judged: list[tuple[Asked, Ids]] = []

    def reward(found: Sequence[tuple[Asked, Ids]]) -> list[float]:
        judged.extend(found)
        return [-0.5] * len(found)

    seen: list[tuple[int, ...]] = []
    model = toy.new_model(0)
    model.register_forward_pre_hook(
        lambda _, args, given: seen.extend(map(tuple, given["input_ids"].tolist())), with_kwargs=True
    )
    replayed = Example((toy.BEGIN, 6), (6, toy.END))
    ranked = Ranked(
        lambda _: [asked], lambda _: [replayed], reward, RankingSettings(max_answer_tokens=4), toy.PAD, toy.END
    )
    loss, terms = ranked.loss(model, random.Random(0), torch.Generator().manual_seed(0))
    assert model.training
    assert set(terms) == {"lm", "rank"}
    assert loss.item() > 0
    assert {NEGATIVE, POSITIVE} <= set(seen)
    trained = [row for row in seen if len(row) > 3 or row[:2] == PLAIN]
    scored = [row for row in trained if row[:2] == PLAIN]
    assert len(scored) == 2 + len(judged)  # what was known, and each sample
    assert all(each is asked for each, _ in judged)
    for _, answer in judged:
        assert any(row[2 : 2 + len(answer) + 1] == (*answer, toy.END) for row in scored)


def test_the_same_random_numbers_give_the_same_loss() -> None:
    asked = Asked(PLAIN, ((NEGATIVE,),), (((7, 8), 1.0),))
    ranked = Ranked(lambda _: [asked], lambda _: [], lambda found: [-1.0] * len(found), RankingSettings(), 0, toy.END)
    losses = [
        ranked.loss(toy.new_model(0), random.Random(1), torch.Generator().manual_seed(1))[0].item() for _ in range(2)
    ]
    assert losses[0] == losses[1]


def test_a_model_that_is_shared_among_processes_samples_alone_and_scores_with_the_others() -> None:
    """How many tokens are sampled differs between processes; if each waited for the others, all would wait for ever."""

    class Shared(torch.nn.Module):  # type: ignore[misc]  # an untyped base
        """What DistributedDataParallel is to a model: it counts how often the processes would have to meet."""

        def __init__(self, module: torch.nn.Module) -> None:
            super().__init__()
            self.module, self.met = module, 0

        def forward(self, **given: torch.Tensor) -> object:
            self.met += 1
            return self.module(**given)

    asked = Asked(PLAIN, ((NEGATIVE,),), (((7, 8), 1.0),))
    ranked = Ranked(lambda _: [asked], lambda _: [], lambda found: [-1.0] * len(found), RankingSettings(), 0, toy.END)
    model = Shared(toy.new_model(0))
    ranked.loss(model, random.Random(1), torch.Generator().manual_seed(1))
    assert model.met == 1
