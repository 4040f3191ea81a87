"""When the bound of CW shrinks, and with it perturbation and steps: against schedules computed by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from robust_asr.attacks.cw import CarliniWagner, OlivierCarliniWagner
from robust_asr.attacks.descent import adam_update
from robust_asr.threat.norms import maximum
from robust_asr.types import AudioBatch
from tests.listeners import four_words
from tests.robust_asr.attacks.oracles import (
    Quadratic,
    Target,
    seeds_of,
    spoken,
)
from tests.robust_asr.attacks.test_cw import QUICK, SMALL, sizes
from tests.robust_asr.attacks.victims import Peak, Scripted, silence, workload


def simulated(needed: float, *, num_iterations: int, **numbers: float) -> tuple[list[float], float | None]:
    """The bound after each look, and the last success: every sample moves by the learning rate up to the bound.

    A success shrinks it with its bound, and later steps as the bound.
    """
    peak, bound, best, bounds = 0.0, numbers["bound"], None, []
    for iteration in range(num_iterations + 1):
        if iteration % numbers["check_every"] == 0 or iteration == num_iterations:
            if peak >= needed:
                best, bound, peak = peak, numbers["decrease"] * min(bound, peak), numbers["decrease"] * peak
            bounds.append(bound)
        peak = min(peak + numbers["learning_rate"] * bound / numbers["bound"], bound)
    return bounds, best


def found_bounds(attack: CarliniWagner, victim: Peak, batch: AudioBatch) -> Tensor:
    """The bound after each look: runs of growing length are prefixes of each other. Shape: (looks, B)."""
    work = workload(victim, batch, attack.goal)
    counts = [1, *range(attack.check_every, attack.num_iterations + 1, attack.check_every)]
    return torch.stack([replace(attack, num_iterations=count).shrink(victim, work).limit for count in counts])


def test_bounds_computed_by_hand() -> None:
    # d after k updates is 0.01 k up to the bound; 0.04 succeeds at update 4, 0.032 at 6, 0.0256 no longer.
    attack = CarliniWagner(Target(), num_iterations=10, **SMALL)
    bounds = found_bounds(attack, Peak({40: 0.03}), silence(40))[1:, 0]
    assert bounds.tolist() == pytest.approx([0.05, 0.032, 0.0256, 0.0256, 0.0256])
    result = attack(Peak({40: 0.03}), silence(40), seeds=torch.tensor([1]))
    assert result.success.tolist() == [True] and sizes(result.batch, silence(40)).item() == pytest.approx(0.032)


@pytest.mark.parametrize("kind", [CarliniWagner, OlivierCarliniWagner])
@pytest.mark.parametrize("needed", [0.0, 0.001, 0.0307, 0.059, 0.9])
def test_schedules_against_the_simulation(kind: type[CarliniWagner], needed: float) -> None:
    attack = kind(Target(), num_iterations=130, num_draws=1)
    numbers = {name: getattr(attack, name) for name in SMALL}
    result = attack(Peak({40: needed}), silence(40), seeds=torch.tensor([1]))
    expected_bounds, best = simulated(needed, num_iterations=130, **numbers)
    state = attack.shrink(Peak({40: needed}), workload(Peak({40: needed}), silence(40), attack.goal))
    assert state.limit.item() == pytest.approx(expected_bounds[-1], rel=1e-5)
    assert result.success.item() == (best is not None)
    if best is not None:
        assert sizes(result.batch, silence(40)).item() == pytest.approx(best, rel=1e-5)


def test_a_success_shrinks_the_whole_perturbation_and_the_steps() -> None:
    # Every third sample is where it should be. The look after two updates succeeds, the third one does not.
    wanted = torch.tensor([0.0, 0.04, -0.04]).repeat(10)
    attack = CarliniWagner(Target(), **SMALL | {"decrease": 0.5})
    states = []
    for count in (2, 3):
        victim = Scripted(wanted, [{30: heard} for heard in (False, True, False)])
        states.append(replace(attack, num_iterations=count).shrink(victim, workload(victim, silence(30), attack.goal)))
    torch.testing.assert_close(states[0].best[0], 0.02 * wanted.sign())
    torch.testing.assert_close(states[0].delta, 0.5 * states[0].best)
    assert states[0].limit.item() == pytest.approx(0.01)


def test_steps_are_as_small_as_the_bound() -> None:
    # Beyond 0.005 it turns back, so that nothing but their size stops the steps.
    victim = Scripted(torch.full((30,), 0.005), [{30: heard} for heard in (False, True, False)])
    attack = CarliniWagner(Target(), num_iterations=3, **SMALL | {"decrease": 0.5})
    state = attack.shrink(victim, workload(victim, silence(30), attack.goal))
    mean, square = torch.zeros(2, 1)
    first, second, third = (
        adam_update(mean, square, torch.tensor([sign]), count=count) for count, sign in enumerate((-1.0, 1.0, 1.0), 1)
    )
    success = -0.01 * (first + second)
    bound = 0.5 * success
    torch.testing.assert_close(state.delta[0], (bound - 0.01 * bound / 0.05 * third).expand(30))


def test_each_utterance_has_its_own_bound() -> None:
    needed = {40: 0.03, 50: 0.045, 60: 0.9, 70: 0.0}
    attack, batch = CarliniWagner(Target(), num_iterations=12, **SMALL), silence(*needed)
    bounds = found_bounds(attack, Peak(needed), batch)[1:]
    for row, level in enumerate(needed.values()):
        expected = simulated(level, num_iterations=12, **SMALL)[0][1:]
        assert bounds[:, row].tolist() == pytest.approx(expected)
    result = attack(Peak(needed), batch, seeds=seeds_of(batch))
    assert result.success.tolist() == [True, True, False, True]
    assert result.iterations.tolist() == [12, 12, 12, 0]


def test_an_utterance_that_says_the_target_stays_as_it_is() -> None:
    recognizer, batch = four_words(), spoken(5)
    attack = CarliniWagner(Target(batch.texts[0]), num_iterations=10)
    result = attack(recognizer, batch, seeds=seeds_of(batch))
    assert result.success[0] and result.size[0] == 0 and result.iterations[0] == 0
    assert torch.equal(result.batch.waveforms[0], batch.waveforms[0])
    assert all(result.iterations[row] == 10 for row in range(5) if batch.texts[row] != batch.texts[0])


def test_who_is_done_leaves_the_batch_and_nobody_else_notices() -> None:
    needed = {40: 0.0, 50: 0.03, 60: 0.9}
    victim, batch = Peak(needed), silence(*needed)
    attack = CarliniWagner(Target(), num_iterations=10, max_decreases=2, **SMALL)
    result = attack(victim, batch, seeds=seeds_of(batch))
    # The first is done at update 0, the second with its second success at update 6; one row is the verdict's.
    assert victim.rows == [3] + [2] * 6 + [1] * 4 + [3]
    assert result.iterations.tolist() == [0, 6, 10]
    assert sizes(result.batch, batch).tolist() == pytest.approx([0, 0.032, 0.05])
    alone = attack(Peak(needed), batch.select([2]), seeds=seeds_of(batch)[2:])
    assert torch.equal(alone.batch.waveforms, result.batch.waveforms[2:])


def test_unsolved_utterances_return_the_lowest_loss() -> None:
    batch, wanted = silence(30, 20), 0.02 * torch.randn(30, generator=torch.Generator().manual_seed(0))
    victim = Scripted(wanted, [{30: False, 20: False}])
    attack = CarliniWagner(Target(), num_iterations=24, **SMALL | {"learning_rate": 0.013})
    losses = torch.stack(
        [
            victim.value(state.delta, batch.lengths, None)
            for count in range(1, 25)
            for state in [replace(attack, num_iterations=count).shrink(victim, workload(victim, batch, attack.goal))]
        ]
    )
    result = attack(victim, batch, seeds=seeds_of(batch))
    found = victim.value(result.batch.waveforms, batch.lengths, None)
    assert not result.success.any() and (losses[-1] > losses.amin(0)).all()
    torch.testing.assert_close(found, losses.amin(0), rtol=0, atol=0)


def test_a_success_is_kept_though_a_failure_had_a_lower_loss() -> None:
    # Heard at 0.02 only; the loss is lowest near 0.005, where the bound of 0.016 lets it go afterwards.
    victim = Scripted(torch.full((30,), 0.005), [{30: heard} for heard in (False, True, *[False] * 20)])
    attack = CarliniWagner(Target(), num_iterations=20, **SMALL | {"learning_rate": 0.02})
    state = attack.shrink(victim, workload(victim, silence(30), Target()))
    assert state.size.item() == maximum(state.best).item() > 0.005
    assert victim.value(state.best, torch.tensor([30]), None) > victim.value(state.delta, torch.tensor([30]), None)


def test_adam_is_adam() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.zeros(2, 5, requires_grad=True)
    optimizer, ours = torch.optim.Adam([values], lr=0.1), torch.zeros(2, 5)
    mean, square = torch.zeros(2, 2, 5)
    for count in range(1, 30):
        values.grad = torch.randn(2, 5, generator=generator) ** 3
        ours -= 0.1 * adam_update(mean, square, values.grad, count=count)
        optimizer.step()
        torch.testing.assert_close(ours, values.detach(), rtol=1e-5, atol=1e-6)


def test_norm_penalty_against_its_closed_form() -> None:
    # min ||d - w||^2 / 2 + l ||d|| is w shrunk by l in length.
    batch, wanted = silence(30), torch.linspace(-0.1, 0.2, 30)
    attack = CarliniWagner(
        Target(), bound=1, learning_rate=3e-3, num_iterations=900, sign_gradient=False, l2_weight=0.3
    )
    state = attack.shrink(Quadratic(wanted), workload(Quadratic(wanted), batch, Target()))
    expected = wanted * (1 - 0.3 / wanted.norm())
    torch.testing.assert_close(state.delta[0], expected, rtol=0, atol=1e-4)


def test_size_never_grows_after_the_first_success() -> None:
    batch = spoken(4, seed=5)
    work, previous = workload(four_words(), batch, QUICK.goal), torch.full((4,), torch.inf)
    for count in (20, 40, 60, 80, 100):
        state = replace(QUICK, num_iterations=count).shrink(four_words(), work)
        assert (state.size <= previous).all()
        assert torch.equal(maximum(state.best)[state.size.isfinite()], state.size[state.size.isfinite()])
        previous = state.size
