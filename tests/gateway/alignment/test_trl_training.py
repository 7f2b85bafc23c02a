from pathlib import Path

import pytest
import torch

from gateway.alignment.adapters import LoraShape
from gateway.alignment.language_model import TINY, LanguageModel, load_language_model, with_adapter
from gateway.alignment.training_loop import LoopSettings
from gateway.alignment.training_rows import NothingToLearn, Question
from gateway.alignment.trl_training import TrlSettings, preference_rows, train_by_trl
from tests.gateway.alignment.tiny import draw_one  # noqa: F401  # one thread

pytestmark = pytest.mark.filterwarnings(  # of TRL and what it uses, about each other
    "ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning"
)

SETTINGS = TrlSettings(
    loop=LoopSettings(steps=4, learning_rate=1e-2, checkpoint_every=2, seed=1), batch=2, max_tokens=128
)
ASKED = [
    Question(({"role": "user", "content": f"question {at}"},), ((f"good {at}", 1.0), (f"BAD {at}", -1.0)))
    for at in range(8)
]


def fresh() -> LanguageModel:
    return with_adapter(load_language_model(TINY, max_tokens=128, seed=0), LoraShape(2, 4), seed=0)


def weights(model: LanguageModel) -> dict[str, torch.Tensor]:
    return {name: each.detach() for name, each in model.model.named_parameters() if ".default." in name}


@pytest.mark.parametrize("kind", ["dpo", "kto"])
def test_a_run_cut_off_while_it_wrote_a_checkpoint_goes_on_from_the_one_before(kind: str, tmp_path: Path) -> None:
    whole = fresh()
    told: list[int] = []
    history = train_by_trl(kind, whole, ASKED, SETTINGS, tmp_path, lambda step, _: told.append(step))
    assert told == [1, 2, 3, 4]
    assert [each["step"] for each in history.losses] == told
    (tmp_path / "checkpoint-4" / "trainer_state.json").write_text("{")
    told.clear()
    model = fresh()
    train_by_trl(kind, model, ASKED, SETTINGS, tmp_path, lambda step, _: told.append(step))
    assert told == [3, 4]
    for name, weight in weights(model).items():
        torch.testing.assert_close(weight, weights(whole)[name], rtol=1e-4, atol=1e-6)
    assert any(weight.abs().sum() > 0 for name, weight in weights(model).items() if "lora_B" in name)


def test_without_bad_beside_good_answers_there_is_nothing_to_prefer(tmp_path: Path) -> None:
    good = [Question(each.prompt, each.answers[:1]) for each in ASKED]
    for kind in ("dpo", "kto"):
        with pytest.raises(NothingToLearn, match=kind):
            train_by_trl(kind, fresh(), good, SETTINGS, tmp_path, None)
    assert preference_rows("dpo", good) == []
