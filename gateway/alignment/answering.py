"""What a model answers: sampled token by token, prompts of one length together, reproducible from a generator."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch

from gateway.alignment.token_batches import Ids


def answers(
    model: Any,
    prompts: Sequence[Ids],
    *,
    end: int,
    max_tokens: int,
    generator: torch.Generator,
    temperature: float = 1.0,
    batch: int = 256,
) -> list[Ids]:
    """One answer for each prompt, without the token ``end``; cut at ``max_tokens``.

    Prompts of one length share a batch, so nothing is padded. ``generator`` lives on the CPU, so the same seed draws
    the same way on every device up to the model's own arithmetic. The model is left in evaluation mode.
    """
    model.eval()
    device = next(model.parameters()).device
    by_length: dict[int, list[int]] = defaultdict(list)
    for at, prompt in enumerate(prompts):
        by_length[len(prompt)].append(at)
    found: list[Ids] = [()] * len(prompts)
    for length in sorted(by_length):
        places = by_length[length]
        for first in range(0, len(places), batch):
            some = places[first : first + batch]
            ids = torch.tensor([prompts[at] for at in some], device=device)
            with torch.no_grad():
                drawn = _continued(model, ids, end, max_tokens, generator, temperature)
            for at, row in zip(some, drawn, strict=True):
                found[at] = tuple(row[: row.index(end)] if end in row else row)
    return found


def _continued(
    model: Any, ids: torch.Tensor, end: int, max_tokens: int, generator: torch.Generator, temperature: float
) -> list[list[int]]:
    past, given = None, ids
    done = torch.zeros(len(ids), dtype=torch.bool)
    drawn = []
    for _ in range(max_tokens):
        said = model(input_ids=given, past_key_values=past, use_cache=True)
        past = said.past_key_values
        logits = said.logits[:, -1].float().cpu()
        if temperature > 0:
            token = torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=generator)
        else:
            token = logits.argmax(-1, keepdim=True)
        token[done] = end
        drawn.append(token)
        done |= token[:, 0] == end
        if bool(done.all()):
            break
        given = token.to(ids.device)
    rows: list[list[int]] = torch.cat(drawn, 1).tolist()
    return rows
