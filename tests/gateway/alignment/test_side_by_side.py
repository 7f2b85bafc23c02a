"""Models side by side compute what transformers' Llama and peft's LoRA compute, each on its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from gateway.alignment.adapters import LoraShape, with_lora
from gateway.alignment.experiments import large, toy
from gateway.alignment.experiments.side_by_side import Shape, SideBySide, new_models, padded, with_adapters
from gateway.alignment.experiments.steps import imitation_losses, learning_steps
from gateway.alignment.losses import log_probs_of
from gateway.alignment.token_batches import Example, batch_of
from gateway.alignment.training_loop import LoopSettings
from tests.gateway.alignment.tiny import draw_one  # noqa: F401  # one thread

SHAPE = Shape(vocabulary=toy.VOCABULARY, hidden=32, feed_forward=48, layers=2, heads=4)
CPU = torch.device("cpu")
IDS = torch.randint(toy.VOCABULARY, (4, 3, 7), generator=torch.Generator().manual_seed(1))
THEIRS = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj"} | {
    name: f"mlp.{name}_proj" for name in ("gate", "up", "down")
}


def alone(models: SideBySide, at: int) -> Any:
    """One of the models as transformers' and peft's own."""
    seed = at // models.arms
    config = LlamaConfig(
        vocab_size=SHAPE.vocabulary, hidden_size=SHAPE.hidden, intermediate_size=SHAPE.feed_forward,
        num_hidden_layers=SHAPE.layers, num_attention_heads=SHAPE.heads, num_key_value_heads=SHAPE.heads,
        tie_word_embeddings=False, pad_token_id=toy.PAD, bos_token_id=toy.BEGIN, eos_token_id=toy.END,
    )  # fmt: skip
    mine = {name: weight[seed].detach() for name, weight in models.weights.items()}
    theirs = {
        "model.embed_tokens.weight": mine["embed"],
        "lm_head.weight": mine["head"].T,
        "model.norm.weight": mine["norm"],
    }
    for layer in range(SHAPE.layers):
        theirs[f"model.layers.{layer}.input_layernorm.weight"] = mine[f"{layer}_first_norm"]
        theirs[f"model.layers.{layer}.post_attention_layernorm.weight"] = mine[f"{layer}_second_norm"]
        for name, where in THEIRS.items():
            theirs[f"model.layers.{layer}.{where}.weight"] = mine[f"{layer}_{name}"].T
    model = LlamaForCausalLM(config)
    model.load_state_dict(theirs)
    if not models.adapters:
        return model
    model = with_lora(model, LoraShape(rank=8, alpha=16), 0)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            layer, which = name.split("layers.")[1].split(".")[0], name.split("_proj")[0].rsplit(".", 1)[1]
            side = "a" if "lora_A" in name else "b"
            weight.data = models.adapters[f"{layer}_{which}_{side}"][at].detach().T.contiguous()
    return model


def unlike(models: SideBySide) -> SideBySide:
    """With adapters that do something, each its own."""
    draw = torch.Generator().manual_seed(5)
    for weight in models.adapters.values():
        weight.data += torch.randn(weight.shape, generator=draw) * 0.05
    return models


def test_the_large_model_has_thirteen_million_weights() -> None:
    assert large.LARGE.shape.weights == 12_972_544
    models = new_models(SHAPE, [0, 1], CPU)
    assert sum(weight.numel() for weight in models.trained) == 2 * SHAPE.weights


@pytest.mark.parametrize("arms", [0, 2])
def test_every_model_computes_what_it_would_alone(arms: int) -> None:
    base = new_models(SHAPE, [3, 4], CPU)
    models = unlike(with_adapters(base, arms)) if arms else base
    ids = IDS[: models.models]
    together = models.logits(ids)
    for at in range(models.models):
        assert torch.allclose(together[at], alone(models, at)(ids[at]).logits, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_without_adapters_there_is_the_base_model() -> None:
    base = new_models(SHAPE, [3, 4], CPU)
    models = unlike(with_adapters(base, 2))
    with models.without_adapters():
        assert torch.allclose(models.logits(IDS)[2], base.logits(IDS[[0, 2]])[1], atol=1e-6)
    assert not torch.allclose(models.logits(IDS)[2], base.logits(IDS[[0, 2]])[1], atol=1e-3)


def test_log_probabilities_of_rows_of_many_lengths_are_those_of_each_alone() -> None:
    models = unlike(with_adapters(new_models(SHAPE, [3], CPU), 2))
    rows = [[Example((1, 5), (6, 7, 3)), Example((1, 60, 9, 11), (8, 3))], [Example((1, 9), (8, 9, 10, 3))]]
    log_probs, tokens = models.log_probs(rows, toy.PAD)
    assert tokens.tolist() == [[3, 2], [4, 0]]
    assert log_probs[1, 1] == 0
    for at, some in enumerate(rows):
        found, _ = log_probs_of(alone(models, at), batch_of(some, toy.PAD))
        assert torch.allclose(log_probs[at, : len(some)], found, atol=1e-5)


def test_a_step_together_is_the_step_of_each_alone() -> None:
    """Equal weights after two steps, clipped gradients among them: no model sees another's loss or gradient."""
    models = unlike(with_adapters(new_models(SHAPE, [3], CPU), 2))
    single = [alone(models, at) for at in range(2)]
    rows = [[Example((1, 5), (6, 7, 3))], [Example((1, 9), (8, 9, 10, 3)), Example((1, 60), (8, 3))]]
    settings = LoopSettings(steps=2, learning_rate=1e-2, max_gradient_norm=0.5)
    ids, labels = padded(rows, toy.PAD)
    for learn in learning_steps(models, settings):
        learn(imitation_losses(models, ids, labels))
    for at, model in enumerate(single):
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        optimiser = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.01)
        for _ in range(2):
            log_probs, tokens = log_probs_of(model, batch_of(rows[at], toy.PAD))
            (-log_probs.sum() / tokens.sum()).backward()
            torch.nn.utils.clip_grad_norm_(trained, 0.5)
            optimiser.step()
            optimiser.zero_grad()
        assert torch.allclose(models.logits(IDS[:2])[at], model(IDS[at]).logits, atol=2e-3)


def test_answers_follow_each_models_own_prompts_whatever_their_length() -> None:
    """Models that are sure of what comes next: sampling leaves no choice, so every place must be the right one."""
    models = new_models(SHAPE, [3, 4], CPU)
    models.weights["head"].data *= 3000
    prompts = [[(1, 5, 6), (1, 70)], [(1, 5), (1, 33, 34, 35, 36)]]
    said = models.answers(prompts, end=toy.END, max_tokens=4, generator=torch.Generator().manual_seed(0))
    for at, (mine, answers) in enumerate(zip(prompts, said, strict=True)):
        model = alone(models, at)
        for prompt, answer in zip(mine, answers, strict=True):
            whole = list(prompt)
            for _ in range(4):
                token = int(model(torch.tensor([whole])).logits[0, -1].argmax())
                if token == toy.END:
                    break
                whole.append(token)
            assert answer == tuple(whole[len(prompt) :])


def test_a_gradient_that_is_no_number_is_said() -> None:
    models = new_models(SHAPE, [0], CPU)
    models.weights["head"].data[:] = float("nan")
    ids, labels = padded([[Example((1, 5), (6, 3))]], toy.PAD)
    learn = next(learning_steps(models, LoopSettings(steps=1)))
    with pytest.raises(ValueError, match="lower the learning rate"):
        learn(imitation_losses(models, ids, labels))
