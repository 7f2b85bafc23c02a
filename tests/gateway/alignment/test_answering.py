import torch

from gateway.alignment.answering import answers
from gateway.alignment.experiments import toy
from gateway.alignment.token_batches import Ids
from tests.gateway.alignment.tiny import draw_one  # noqa: F401  # one thread

PROMPTS: list[Ids] = [(toy.BEGIN, 5, 6), (toy.BEGIN, 7), (toy.BEGIN, 8, 9), (toy.BEGIN,)]


def said(**changed: object) -> list[Ids]:
    given = {"end": toy.END, "max_tokens": 6, "generator": torch.Generator().manual_seed(3), **changed}
    return answers(toy.new_model(0), PROMPTS, **given)  # type: ignore[arg-type]


def test_the_same_seed_gives_the_same_answers_in_order_of_the_prompts() -> None:
    first = said()
    assert said() == first
    assert len(first) == len(PROMPTS)
    assert all(toy.END not in answer and len(answer) <= 6 for answer in first)


def test_greedy_answers_do_not_depend_on_the_batch() -> None:
    assert said(temperature=0.0, batch=1) == said(temperature=0.0)


def test_greedy_answers_are_what_the_model_finds_likeliest() -> None:
    model = toy.new_model(0)
    (answer,) = answers(model, PROMPTS[:1], end=toy.END, max_tokens=3, generator=torch.Generator(), temperature=0.0)
    context = list(PROMPTS[0])
    for token in answer:
        with torch.no_grad():
            likeliest = int(model(input_ids=torch.tensor([context])).logits[0, -1].argmax())
        assert token == likeliest
        context.append(token)


def test_no_prompts_no_answers() -> None:
    assert answers(toy.new_model(0), [], end=0, max_tokens=3, generator=torch.Generator()) == []
