from __future__ import annotations

from pathlib import Path

import pytest
import torch

from robust_asr import checkpoint
from robust_asr.search.language_model import LANGUAGE_MODEL, LanguageModel
from robust_asr.text import CharacterTokenizer

TEXTS = ["ABBA", "", "C", "CAB"]


def _model(**options: object) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(CharacterTokenizer("ABC "), **({"width": 6, "num_layers": 2} | options)).eval()


def test_loss_is_the_sum_over_the_steps():
    model = _model().double()
    losses = model.loss(model.targets(TEXTS))
    for text, loss in zip(TEXTS, losses, strict=True):
        state, previous, total = model.initial_state(1), 0, 0.0
        for token in [*model.tokenizer.encode(text), 0]:
            log_probs, state = model.step(torch.tensor([previous]), state)
            torch.testing.assert_close(log_probs.logsumexp(1), torch.zeros(1).double())
            total -= float(log_probs[0, token])
            previous = token
        assert float(loss) == pytest.approx(total)
        assert float(model.loss(model.targets([text]))) == pytest.approx(total), "alone as in a batch"


def test_states_are_rearranged():
    model = _model()
    _, state = model.step(torch.tensor([1, 2, 3]), model.initial_state(3))
    rows = torch.tensor([2, 0, 2, 1])
    tokens = torch.tensor([1, 1, 2, 3])
    found, after = model.step(tokens, state[rows])
    assert after.shape == (4, 2, 2, 6)
    for row in range(4):
        _, alone = model.step(torch.tensor([[1, 2, 3][rows[row]]]), model.initial_state(1))
        torch.testing.assert_close(found[row], model.step(tokens[row : row + 1], alone)[0][0])


def test_saved_and_loaded(tmp_path: Path):
    model, path = _model(), tmp_path / "language.ckpt"
    checkpoint.save(model, path, name=LANGUAGE_MODEL)
    loaded = checkpoint.load_part(path, LANGUAGE_MODEL, LanguageModel)
    assert torch.equal(loaded.loss(loaded.targets(TEXTS)), model.loss(model.targets(TEXTS)))


def test_bfloat16_is_near():
    model = _model()
    with torch.autocast("cpu", torch.bfloat16):
        rough = model.loss(model.targets(TEXTS))
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, model.loss(model.targets(TEXTS)), rtol=0.02, atol=0.1)


@pytest.mark.parametrize("wrong", [{"width": 0}, {"num_layers": 0}, {"dropout": 1.0}])
def test_a_value_out_of_range_is_named(wrong: dict):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        _model(**wrong)
