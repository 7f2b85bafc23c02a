"""DPO and KTO by TRL's own trainers, on the same questions as the other arms."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from transformers import TrainerCallback

from gateway.alignment.language_model import LanguageModel
from gateway.alignment.training_loop import History, LoopSettings, Tell
from gateway.alignment.training_rows import NothingToLearn, Question

BETA: Final = 0.1
_STATE: Final = "trainer_state.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrlSettings:
    loop: LoopSettings
    batch: int
    max_tokens: int
    beta: float = BETA


def preference_rows(kind: str, asked: Sequence[Question]) -> list[dict[str, Any]]:
    """Rows for TRL: pairs for ``dpo``, labelled answers for ``kto``. What has no use is left out."""
    rows: list[dict[str, Any]] = []
    for each in asked:
        prompt = [dict(message) for message in each.prompt]
        if kind == "kto":
            rows += [
                {"prompt": prompt, "completion": _assistant(text), "label": reward > 0}
                for text, reward in each.answers
                if reward
            ]
            continue
        good, bad = each.good, min(each.answers, key=lambda answer: answer[1], default=("", 0.0))
        if good is not None and bad[1] < 0:
            rows.append({"prompt": prompt, "chosen": _assistant(good), "rejected": _assistant(bad[0])})
    return rows


def train_by_trl(
    kind: str, model: LanguageModel, asked: Sequence[Question], settings: TrlSettings, folder: Path, tell: Tell | None
) -> History:
    """Train the adapter of ``model`` in place; checkpoints and resumption are the trainer's, in ``folder``.

    Raises ``NothingToLearn`` where the data set holds nothing to prefer.
    """
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

    rows = preference_rows(kind, asked)
    if not rows or (kind == "kto" and len({row["label"] for row in rows}) < 2):
        raise NothingToLearn(f"the data set holds no good beside bad answers for {kind} to learn from")
    history, loop = History(), settings.loop
    config, trainer = (DPOConfig, DPOTrainer) if kind == "dpo" else (KTOConfig, KTOTrainer)
    on_gpu = torch.cuda.is_available()
    arguments: Any = config(
        output_dir=str(folder),
        max_steps=loop.steps,
        per_device_train_batch_size=max(2, settings.batch),  # KTO compares within a batch
        gradient_accumulation_steps=loop.accumulate,
        learning_rate=loop.learning_rate,
        lr_scheduler_type="cosine" if loop.decay else "constant",
        weight_decay=loop.weight_decay,
        max_grad_norm=loop.max_gradient_norm,
        beta=settings.beta,
        max_length=settings.max_tokens,
        logging_steps=1,
        save_strategy="steps" if loop.checkpoint_every else "no",
        save_steps=loop.checkpoint_every or 1,
        save_total_limit=2,
        seed=loop.seed,
        bf16=on_gpu,
        use_cpu=not on_gpu,
        gradient_checkpointing=False,
        dataloader_pin_memory=on_gpu,
        disable_tqdm=True,
        report_to="none",
    )
    runs = trainer(
        model=model.model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=model.tokenizer,
        callbacks=[_Telling(tell)],
    )
    runs.train(resume_from_checkpoint=_whole_checkpoint(folder))
    for entry in runs.state.log_history:
        if "loss" in entry:
            history.losses.append({"step": entry["step"], "loss": float(entry["loss"])})
    return history


def _assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


class _Telling(TrainerCallback):  # type: ignore[misc]  # an untyped base
    def __init__(self, tell: Tell | None) -> None:
        self._tell = tell

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if self._tell is not None and logs and "loss" in logs:
            self._tell(state.global_step, {"loss": float(logs["loss"])})


def _whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end; what a kill left half-written is removed."""
    for found in sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.rpartition("-")[2])):
        try:
            json.loads((found / _STATE).read_text("utf-8"))  # the last file that a trainer writes
        except (OSError, ValueError):
            shutil.rmtree(found, ignore_errors=True)  # another process may be doing the same
        else:
            return str(found)
    return None
