"""A whole run: a method and its control arms from one base model, resumable, ending in an adapter and a report."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import orjson
import torch

from gateway.alignment.adapters import LoraShape
from gateway.alignment.answer_judges import AnswerJudge, checked
from gateway.alignment.arms import BY_TRL, CONTROLS, FORMATS, NEGATIVE, ArmSettings, Method, objective_of
from gateway.alignment.data_set import read_data_set
from gateway.alignment.held_out import HeldOut
from gateway.alignment.inoculation_prompts import SAFE, Place
from gateway.alignment.language_model import LanguageModel, load_language_model, with_adapter
from gateway.alignment.run_page import run_page
from gateway.alignment.training_loop import Evaluate, History, LoopSettings, train
from gateway.alignment.training_rows import NothingToLearn, questions
from gateway.alignment.trl_training import TrlSettings, train_by_trl

TellArm = Callable[[str, int, int, Mapping[str, float]], None]
"""Told the arm, the step, of how many, and its losses."""

STOP_ABOVE: Final = 0.1
"""Training ends once held-out harm is this much above the least so far: trained for too long, an inoculated model
learns the behaviour after all (papers: from 0.00 to 0.94)."""

_DONE: Final = "done.json"
_PACKAGES: Final = ("torch", "transformers", "peft", "trl", "accelerate")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """One run. ``controls`` says whether the control arms are trained too."""

    method: Method
    model: str
    loop: LoopSettings
    arm: ArmSettings = field(default_factory=ArmSettings)
    lora: LoraShape = field(default_factory=LoraShape)
    max_tokens: int = 1024
    held_out_questions: int = 64
    controls: bool = True


def train_model(data: Path, folder: Path, settings: RunSettings, judge: AnswerJudge | None, tell: TellArm) -> Any:
    """Train, and write ``adapter/``, ``report.json`` and ``report.html`` to ``folder``; the report.

    Started again in the same folder it goes on where it was killed. Raises ``ValueError`` for a data set that does not
    suit the method, a model that cannot be used, too little memory, or a folder that holds another run.
    """
    format, parts, manifest = read_data_set(data)
    if format not in FORMATS[settings.method]:
        wanted = " or ".join(FORMATS[settings.method])
        raise ValueError(f"{settings.method} learns from {wanted}, and {data} holds {format}")
    accelerator = _accelerator()
    if leads():
        _claim(folder, repr(settings), manifest["hash"])
    run = _Run(folder, settings, None if judge is None else checked(judge), parts, format, manifest, accelerator)
    arms = {}
    for name in (str(settings.method), *(CONTROLS[settings.method] if settings.controls else ())):
        try:
            arms[name] = run.arm(name, tell if leads() else _quiet)
        except torch.OutOfMemoryError:
            raise ValueError(
                f"out of memory in arm {name}: lower --batch (now {settings.arm.batch}) and raise --accumulate by as "
                f"much, or lower --max-tokens (now {settings.max_tokens})"
            ) from None
        if accelerator is not None:
            accelerator.wait_for_everyone()
    report = _report(settings, manifest, run.base(), arms)
    if leads():
        _write(folder / "report.json", orjson.dumps(report, option=orjson.OPT_INDENT_2))
        _write(folder / "report.html", run_page(report).encode())
    return report


class _Run:
    """What the arms of a run share."""

    def __init__(
        self,
        folder: Path,
        settings: RunSettings,
        judge: AnswerJudge | None,
        parts: Mapping[str, Sequence[Mapping[str, Any]]],
        format: Any,
        manifest: Mapping[str, Any],
        accelerator: Any,
    ) -> None:
        place = Place(manifest["place"])
        self._folder, self._settings, self._judge, self._accelerator = folder, settings, judge, accelerator
        self._arm_settings = ArmSettings(batch=settings.arm.batch, place=place, ranking=settings.arm.ranking)
        self._asked = questions(format, [dict(row) for row in parts["train"]])
        self._held_out = HeldOut(
            questions=tuple(questions(format, [dict(row) for row in parts["held_out"]])),
            judge=judge,
            max_answer_tokens=settings.arm.ranking.max_answer_tokens,
            most=settings.held_out_questions,
            seed=settings.loop.seed,
            place=place,
        )
        self._leads = leads()
        self._behind = {"harm_under_attack": NEGATIVE[0], "harm_with_safe_prompt": SAFE}

    def base(self) -> dict[str, Any]:
        """The model before any training, measured once."""
        done = self._folder / "base.json"
        if not done.exists():
            measured = self._held_out.measured(self._load(), self._behind)
            if not self._leads:
                return measured
            _write(done, orjson.dumps(measured))
        found: dict[str, Any] = orjson.loads(done.read_bytes())
        return found

    def arm(self, name: str, tell: TellArm) -> dict[str, Any]:
        """Train an arm, or read what came of it. An arm that its data cannot feed says so instead."""
        folder = self._folder / "arms" / name
        done = folder / _DONE
        if done.exists():
            found: dict[str, Any] = orjson.loads(done.read_bytes())
            return found
        began, settings = time.monotonic(), self._settings
        model = with_adapter(self._load(), settings.lora, settings.loop.seed)
        try:
            history = self._trained(name, model, folder, tell)
        except NothingToLearn as error:
            if name == str(settings.method):
                raise
            return {"skipped": str(error)}
        main = name == str(settings.method)
        if self._leads and not (main and history.stopped_at):  # then the best one was saved already
            self._save(name, model)
        result = {
            **asdict(history),
            "final": self._held_out.measured(model, self._behind),
            "seconds": round(time.monotonic() - began, 1),
        }
        folder.mkdir(parents=True, exist_ok=True)
        if self._leads:
            _write(done, orjson.dumps(result))
        return result

    def _trained(self, name: str, model: LanguageModel, folder: Path, tell: TellArm) -> History:
        settings = self._settings

        def told(step: int, terms: Mapping[str, float]) -> None:
            tell(name, step, settings.loop.steps, terms)

        if name in BY_TRL:
            trl = TrlSettings(loop=settings.loop, batch=settings.arm.batch, max_tokens=settings.max_tokens)
            return train_by_trl(name, model, self._asked, trl, folder, told)
        objective = objective_of(name, model, self._asked, self._judge, self._arm_settings)
        evaluate = self._watch(name, model)
        return train(
            model.model,
            objective,
            settings.loop,
            folder=folder,
            evaluate=evaluate,
            tell=told,
            accelerator=self._accelerator,
        )

    def _watch(self, name: str, model: LanguageModel) -> Evaluate:
        """Held-out harm and loss; the main arm keeps the adapter with the least harm, and stops well above it."""
        main = name == str(self._settings.method)

        def evaluate(_: Any, step: int, before: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
            measured = self._held_out.measured(model, {})
            if not main or measured["harm"] is None:
                return measured
            least = min((each["harm"]["share"] for each in before), default=None)
            share = measured["harm"]["share"]
            if self._leads and (least is None or share <= least):
                self._save(name, model)
            return {**measured, "stop": least is not None and share > least + STOP_ABOVE}

        return evaluate

    def _save(self, name: str, model: LanguageModel) -> None:
        """The trained adapter alone: TRL keeps a second one as its reference."""
        model.model.save_pretrained(str(self._adapter(name)), selected_adapters=["default"])

    def _adapter(self, name: str) -> Path:
        return (
            self._folder / "adapter" if name == str(self._settings.method) else self._folder / "arms" / name / "adapter"
        )

    def _load(self) -> LanguageModel:
        chosen = self._settings
        return load_language_model(chosen.model, max_tokens=chosen.max_tokens, seed=chosen.loop.seed)


def leads() -> bool:
    """Whether this is the process that measures, writes and tells: the only one, or the first of several in a run."""
    several = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not several or torch.distributed.get_rank() == 0


def _quiet(*_: object) -> None:
    """The first process tells for all of them."""


def _accelerator() -> Any:
    """For several GPUs, when started by ``torchrun`` or ``accelerate launch --multi_gpu``."""
    if not torch.distributed.is_available() or not torch.distributed.is_torchelastic_launched():
        return None
    from accelerate import Accelerator

    on_gpu = torch.cuda.is_available()
    return Accelerator(cpu=not on_gpu, mixed_precision="bf16" if on_gpu else "no")


def _claim(folder: Path, settings: str, manifest: str) -> None:
    """Make the folder this run's. Raises ``ValueError`` where it is another's."""
    folder.mkdir(parents=True, exist_ok=True)
    path, mine = folder / "run.json", {"settings": settings, "manifest": manifest}
    if path.exists():
        if orjson.loads(path.read_bytes()) != mine:
            raise ValueError(f"{folder} holds a run with other settings or data: name another folder, or remove it")
        return
    _write(path, orjson.dumps(mine))


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    half = path.with_name(path.name + ".part")
    half.write_bytes(content)
    half.replace(path)


def _report(
    settings: RunSettings, manifest: Mapping[str, Any], base: Mapping[str, Any], arms: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "method": str(settings.method),
        "model": settings.model,
        "settings": asdict(settings),
        "seed": settings.loop.seed,
        "manifest": manifest,
        "base": base,
        "arms": arms,
        "packages": {name: version(name) for name in _PACKAGES},
        "python": platform.python_version(),
    }
