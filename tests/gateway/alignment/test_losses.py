import math

import pytest
import torch

from gateway.alignment.experiments import toy
from gateway.alignment.losses import (
    Ranking,
    answer_log_probs,
    language_model_loss,
    likelihood_gain,
    log_probs_of,
    neat_loss,
    ranking_loss,
)
from gateway.alignment.token_batches import IGNORED, Example, batch_of


def ranking(*pairs: tuple[float, int]) -> Ranking:
    return Ranking(torch.tensor([reward for reward, _ in pairs]), torch.tensor([prompt for _, prompt in pairs]))


def test_only_the_answers_tokens_are_counted_and_the_sum_is_theirs() -> None:
    batch = batch_of([Example((1, 2), (3, 1)), Example((2,), (3,))], pad=0)
    assert batch.labels.tolist() == [[IGNORED, IGNORED, 3, 1], [IGNORED, 3, IGNORED, IGNORED]]
    assert batch.mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    logits = torch.zeros(2, 4, 4)
    logits[0, 1, 3] = math.log(3)  # after (1, 2): 3 has half of it
    log_probs, tokens = answer_log_probs(logits, batch.labels)
    assert tokens.tolist() == [2, 1]
    assert log_probs.tolist() == pytest.approx([math.log(1 / 2) + math.log(1 / 4), math.log(1 / 4)])
    assert language_model_loss(log_probs, tokens).item() == pytest.approx((math.log(2) + 2 * math.log(4)) / 3)
    first = language_model_loss(log_probs, tokens, torch.tensor([True, False]))
    assert first.item() == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_the_ranking_loss_is_the_mean_hinge_over_pairs_of_one_prompt() -> None:
    scores = torch.tensor([-2.0, -1.0, -1.5, -9.0])
    found = ranking((1.0, 0), (-1.0, 0), (-0.5, 0), (0.0, 1))
    # pairs: 0 over 1: 1 + m, 0 over 2: 0.5 + 0.75 m, 2 over 1: 0.5 + 0.25 m; the fourth stands alone
    assert ranking_loss(scores, found, 0.0).item() == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert ranking_loss(scores, found, 1.0).item() == pytest.approx((2 + 1.25 + 0.75) / 3)
    assert ranking_loss(torch.tensor([-1.0, -9.0]), ranking((1.0, 0), (-1.0, 0)), 1.0).item() == 0


def test_equal_rewards_are_no_pair() -> None:
    assert ranking_loss(torch.tensor([-1.0, -5.0]), ranking((1.0, 0), (1.0, 0)), 1.0).item() == 0


def test_the_best_answer_of_each_prompt_is_imitated_unless_it_is_worth_nothing() -> None:
    found = ranking((-1.0, 0), (0.5, 0), (1.0, 0), (1.0, 0), (0.0, 1), (-1.0, 1), (0.1, 2))
    assert found.best().tolist() == [False, False, True, False, False, False, True]


def test_neat_adds_both_terms_and_lambda_zero_leaves_the_best_of() -> None:
    log_probs, tokens = torch.tensor([-4.0, -1.0]), torch.tensor([4, 2])
    found = ranking((1.0, 0), (-1.0, 0))
    whole, lm, rank = neat_loss(log_probs, tokens, found, ranking_weight=2.0, margin=1.0)
    assert lm.item() == pytest.approx(1.0)
    assert rank.item() == pytest.approx(-0.5 + 1.0 + 1.0)
    assert whole.item() == pytest.approx(1.0 + 2 * 1.5)
    without, *_ = neat_loss(log_probs, tokens, found, ranking_weight=0.0, margin=1.0)
    assert without.item() == pytest.approx(1.0)
    unnormalised = neat_loss(log_probs, tokens, found, ranking_weight=1.0, margin=0.0, gamma=0.0)[2]
    assert unnormalised.item() == pytest.approx(3.0)


def test_only_bad_answers_are_not_imitated() -> None:
    log_probs, tokens = torch.tensor([-4.0, -1.0]), torch.tensor([4, 2])
    whole, lm, _ = neat_loss(log_probs, tokens, ranking((-0.5, 0), (-1.0, 0)), ranking_weight=0.0, margin=1.0)
    assert lm.item() == whole.item() == 0


def test_a_long_example_loses_the_start_of_its_prompt_then_the_end_of_its_answer() -> None:
    example = Example((1, 2, 3), (4, 5))
    assert example.cut(9) == example
    assert example.cut(3) == Example((3,), (4, 5))
    assert example.cut(1) == Example((), (4,))


def test_the_gain_is_the_difference_of_mean_log_probabilities() -> None:
    model = toy.new_model(0)
    plain = [Example((1, 5), (6, 7, 3)), Example((1, 9), (8, 3))]
    behind = [Example((1, 60, 5), (6, 7, 3)), Example((1, 60, 9), (8, 3))]

    def score(example: Example) -> float:
        log_probs, tokens = log_probs_of(model, batch_of([example], 0))
        return float((log_probs / tokens).item())

    wanted = sum(score(b) - score(a) for a, b in zip(plain, behind, strict=True)) / 2
    assert likelihood_gain(model, plain, behind, 0) == pytest.approx(wanted, abs=1e-5)
    assert likelihood_gain(model, plain, behind, 0, rows=1) == pytest.approx(wanted, abs=1e-5)
    assert likelihood_gain(model, plain, plain, 0) == 0
