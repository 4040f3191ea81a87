from __future__ import annotations

import pytest
import torch

from robust_asr.schedules import Noam, TriStage


def _optimizer() -> torch.optim.Optimizer:
    return torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=2.0)


def test_the_formula_step_by_step():
    optimizer = _optimizer()
    schedule = Noam(optimizer, width=16, warmup_steps=5)
    for step in range(1, 20):
        expected = 2 * 16**-0.5 * min(step**-0.5, step * 5**-1.5)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected)
        optimizer.step()
        schedule.step()


def test_goes_on_where_it_stopped():
    optimizers = [_optimizer(), _optimizer()]
    whole = Noam(optimizers[0], width=16, warmup_steps=5)
    for _ in range(7):
        optimizers[0].step()
        whole.step()
    resumed = Noam(optimizers[1], width=16, warmup_steps=5)
    resumed.load_state_dict(whole.state_dict())
    for schedule, optimizer in zip((whole, resumed), optimizers, strict=True):
        optimizer.step()
        schedule.step()
    assert whole.get_last_lr() == resumed.get_last_lr()


def test_a_warm_up_of_nothing_is_refused():
    with pytest.raises(ValueError, match="warmup_steps"):
        Noam(_optimizer(), width=16, warmup_steps=0)


def test_three_stages_step_by_step():
    optimizer = _optimizer()
    schedule = TriStage(optimizer, warmup_steps=4, hold_steps=3, decay_steps=5)
    expected = [0.01 + 0.99 * step / 4 for step in range(4)] + [1.0] * 3
    expected += [0.01 ** (step / 5) for step in range(6)] + [0.01] * 4
    for scale in expected:
        assert optimizer.param_groups[0]["lr"] == pytest.approx(2 * scale)
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("wrong", [{"warmup_steps": 0}, {"hold_steps": -1}, {"decay_steps": 0}])
def test_stages_of_nothing_are_refused(wrong: dict):
    with pytest.raises(ValueError, match="TriStage: warmup_steps"):
        TriStage(_optimizer(), **{"warmup_steps": 4, "hold_steps": 3, "decay_steps": 5, **wrong})
