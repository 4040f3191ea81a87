"""CW against schedules computed by hand and against recognisers whose answer is a known function of the perturbation."""

from __future__ import annotations

import copy
import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from robust_asr.attacks.cw import CarliniWagner, OlivierCarliniWagner
from robust_asr.attacks.descent import adam_update
from robust_asr.attacks.goals import Untargeted
from robust_asr.configuration import describe
from robust_asr.norms import euclidean, maximum
from robust_asr.threat import SNR, Linf
from robust_asr.types import AudioBatch
from tests.robust_asr.attacks.oracles import (
    Breaking,
    Quadratic,
    Stochastic,
    Target,
    audio_batch,
    listener,
    seeds_of,
    spoken,
)
from tests.robust_asr.attacks.victims import Peak, Scripted, silence, workload
from tests.robust_asr.test_contract import assert_unchanged, snapshot

SMALL = {"bound": 0.05, "learning_rate": 0.01, "check_every": 2, "decrease": 0.8}
# One second of work a test: fewer iterations than anybody would report.
QUICK = CarliniWagner(Target("NO GO"), bound=0.1, num_iterations=100)


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


def sizes(attacked: AudioBatch, batch: AudioBatch) -> Tensor:
    return maximum(attacked.waveforms - batch.waveforms)


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


def test_defaults_are_the_published_numbers() -> None:
    names = ("bound", "learning_rate", "num_iterations", "check_every", "decrease", "num_draws", "success_draws")
    carlini, olivier = (
        [getattr(kind(Target()), name) for name in names] for kind in (CarliniWagner, OlivierCarliniWagner)
    )
    assert carlini == [2000 / 32768, 100 / 32768, 1000, 10, 0.8, 1, 1]
    assert olivier == [0.06, 1e-3, 1000, 1, 0.5, 16, 1]
    assert carlini[:2] == pytest.approx([0.061, 3.05e-3], rel=1e-2)


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
    recognizer, batch = listener(), spoken(5)
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


def test_untargeted() -> None:
    attack = CarliniWagner(Untargeted(), num_iterations=60, bound=0.1)
    batch = spoken(3, seed=4)
    result = attack(listener(), batch, seeds=seeds_of(batch))
    assert attack.name == "CW untargeted" and result.success.all()
    assert all(heard != text for heard, text in zip(result.hypotheses, batch.texts, strict=True))


def test_strength_on_a_trained_recogniser() -> None:
    batch = spoken(6, seed=5)
    first = replace(QUICK, max_decreases=1)(listener(), batch, seeds=seeds_of(batch))
    last = QUICK(listener(), batch, seeds=seeds_of(batch))
    assert last.success.sum() >= 4 and torch.equal(first.success, last.success)
    before, after = (sizes(result.batch, batch)[last.success] for result in (first, last))
    assert (after <= before).all() and (after < before).any()
    assert (first.iterations <= last.iterations).all() and (first.iterations < 100).any()


def test_size_never_grows_after_the_first_success() -> None:
    batch = spoken(4, seed=5)
    work, previous = workload(listener(), batch, QUICK.goal), torch.full((4,), torch.inf)
    for count in (20, 40, 60, 80, 100):
        state = replace(QUICK, num_iterations=count).shrink(listener(), work)
        assert (state.size <= previous).all()
        assert torch.equal(maximum(state.best)[state.size.isfinite()], state.size[state.size.isfinite()])
        previous = state.size


@pytest.mark.parametrize("threat", [Linf(0.02), SNR(20.0)])
def test_a_threat_model_holds_besides(threat: object) -> None:
    batch = spoken(3, seed=5)
    result = replace(QUICK, threat=threat, num_iterations=30)(listener(), batch, seeds=seeds_of(batch))
    assert threat.contains(result.batch.waveforms, batch).all() and (result.size > 0).all()


def test_padded_batch_equals_alone() -> None:
    # In float64: in float32 a sample whose gradient is within rounding of zero may move either way, and others follow it.
    recognizer, batch = copy.deepcopy(listener()).double(), spoken(6, seed=5)
    batch = replace(batch, waveforms=batch.waveforms.double())
    assert len(set(batch.lengths.tolist())) > 1
    attack = replace(QUICK, num_iterations=50)
    together = attack(recognizer, batch, seeds=seeds_of(batch))
    for row, length in enumerate(batch.lengths.tolist()):
        alone = attack(recognizer, batch.select([row]), seeds=seeds_of(batch)[[row]])
        difference = alone.batch.waveforms[0] - together.batch.waveforms[row, :length]
        assert difference.abs().max() < 1e-12 and alone.success[0] == together.success[row]
        assert not together.batch.waveforms[row, length:].any()


def test_padded_batch_is_close_to_alone_in_float32() -> None:
    batch, attack = spoken(6, seed=5), replace(QUICK, num_iterations=20)
    together = attack(listener(), batch, seeds=seeds_of(batch))
    for row, length in enumerate(batch.lengths.tolist()):
        alone = attack(listener(), batch.select([row]), seeds=seeds_of(batch)[[row]])
        difference = alone.batch.waveforms[0] - together.batch.waveforms[row, :length]
        assert (difference.abs() > 1e-6).float().mean() < 0.02
        torch.testing.assert_close(alone.loss[0], together.loss[row], rtol=1e-2, atol=1e-2)


def test_padded_batch_equals_alone_exactly_where_the_recogniser_is_exact() -> None:
    batch, wanted = audio_batch([700, 300, 512]), torch.randn(700, generator=torch.Generator().manual_seed(1))
    attack = CarliniWagner(Target(), num_iterations=30, **SMALL)
    victim = Scripted(wanted, [{700: False, 300: False, 512: False}])
    work = workload(victim, batch, attack.goal)
    together = attack.shrink(victim, work)
    for row, length in enumerate(batch.lengths.tolist()):
        alone = attack.shrink(victim, work.select(torch.tensor([row])))
        assert torch.equal(alone.delta[0], together.delta[row, :length])
        assert not together.delta[row, length:].any()


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_the_same_before_and_after(training: bool) -> None:
    # Defects 2 and 3.
    recognizer, batch = listener(), spoken(2, seed=6)
    recognizer.train(training)
    before = snapshot(recognizer)
    replace(QUICK, num_iterations=12)(recognizer, batch, seeds=seeds_of(batch))
    assert_unchanged(before, recognizer)
    recognizer.eval()


class Lucky(Stochastic):
    """Hears "NO" in the draws whose seed is divisible by ``divisor``; keeps the draws that it was asked."""

    def __init__(self, weights: Tensor, divisor: int) -> None:
        super().__init__(weights)
        self.divisor = divisor
        self.asked: list[Tensor] = []

    def transcribe(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor) -> list:
        self.asked.append(seeds)
        heard = super().transcribe(waveforms, lengths, seeds=seeds)
        lucky = (seeds % self.divisor == 0).tolist()
        return [replace(one, text="NO" if flag else "LOW") for one, flag in zip(heard, lucky, strict=True)]


@pytest.mark.parametrize(("num_draws", "success_draws"), [(1, 1), (4, 1), (4, 4), (2, 5)])
def test_draws_are_counted_and_all_different(num_draws: int, success_draws: int) -> None:
    # Defect 12.
    victim, batch = Lucky(torch.ones(50), 2**62), audio_batch([50, 30])
    attack = CarliniWagner(
        Target(), num_iterations=7, check_every=3, num_draws=num_draws, success_draws=success_draws, bound=0.01
    )
    attack.shrink(victim, workload(victim, batch, attack.goal))
    assert sum(victim.rows) == 2 * 8 * num_draws
    # Looks after 0, 3, 6 and 7 updates.
    asked = torch.cat(victim.asked)
    assert len(asked) == 2 * 4 * success_draws == len(asked.unique())
    state = attack.shrink(victim, workload(victim, batch, attack.goal))
    assert state.forwards.tolist() == [8 * num_draws + 4 * success_draws] * 2


def test_success_on_a_fraction_of_the_draws() -> None:
    batch, victim = audio_batch([50]), Lucky(torch.ones(50), 3)
    numbers = {"num_iterations": 3, "check_every": 3, "success_draws": 30}
    work = workload(victim, batch, Target())
    for fraction, expected in ((0.1, True), (0.9, False)):
        state = CarliniWagner(Target(), success_fraction=fraction, **numbers).shrink(victim, work)
        assert state.size.isfinite().item() == expected


def test_a_recogniser_without_chance_is_asked_once() -> None:
    victim, batch = Peak({40: 0.9}), silence(40)
    victim.stochastic = False
    state = CarliniWagner(Target(), num_iterations=5, num_draws=16, success_draws=8).shrink(
        victim, workload(victim, batch, Target())
    )
    assert sum(victim.rows) == 6 and sum(victim.looks) == 2 and state.forwards.tolist() == [8]


def test_loud_audio_stays_within_full_scale() -> None:
    batch = AudioBatch(torch.tensor([[1.0, -1.0, 0.99, 0.0]]), torch.tensor([4]), ("LOW",), ("loud",))
    result = CarliniWagner(Target(), num_iterations=20, **SMALL)(Peak({4: 2.0}), batch, seeds=seeds_of(batch))
    torch.testing.assert_close(result.batch.waveforms, torch.tensor([[1.0, -0.95, 1.0, 0.05]]))


def test_a_bound_of_zero_changes_nothing() -> None:
    batch = spoken(2, seed=5)
    result = replace(QUICK, bound=0.0)(listener(), batch, seeds=seeds_of(batch))
    assert torch.equal(result.batch.waveforms, batch.waveforms) and result.iterations.tolist() == [0, 0]


@pytest.mark.parametrize("length", [1, 320])
def test_silence_and_very_short_audio(length: int) -> None:
    batch = AudioBatch(torch.zeros(2, 4000), torch.tensor([4000, length]), ("GO", "GO"), ("silent", "short"))
    result = replace(QUICK, num_iterations=20)(listener(), batch, seeds=seeds_of(batch))
    assert result.batch.waveforms.isfinite().all() and result.notes[0] == ""
    assert "does not fit" in result.notes[1] and result.iterations.tolist() == [20, 0]
    assert euclidean(result.batch.waveforms)[0] > 0


def test_a_gradient_that_breaks_stops_its_utterance_only() -> None:
    batch = silence(30, 20)
    batch.waveforms[1, 0] = -0.5
    attack = CarliniWagner(Target(), num_iterations=30, **SMALL | {"check_every": 10})
    result = attack(Breaking(-torch.ones(30), 0.025), batch, seeds=seeds_of(batch))
    assert result.batch.waveforms.isfinite().all()
    assert "no longer finite" in result.notes[0] and result.notes[1] == ""
    # 0.03 is beyond the break: three updates, and the next look at update 10 lets go of it.
    assert result.iterations.tolist() == [3, 30]


def test_described_and_compared_as_values() -> None:
    attack = OlivierCarliniWagner(Target(), num_iterations=3)
    description = describe(attack)
    assert description["class_path"].endswith("OlivierCarliniWagner")
    assert description["init_args"]["num_draws"] == 16 and len(description["init_args"]) == 15
    assert attack == replace(attack) and hash(attack) == hash(replace(attack)) and attack != QUICK


def test_columns_are_those_of_the_papers_table() -> None:
    table = Path(__file__).parents[3] / "robust_asr" / "paper_results" / "olivier2021_table2_cw.csv"
    with table.open() as lines:
        row = next(row for row in csv.DictReader(lines) if row["attack"] == "CW")
    columns = OlivierCarliniWagner(Target()).columns()
    assert {name: row[name] for name in columns if name != "knowledge"} == {
        name: value for name, value in columns.items() if name != "knowledge"
    }


@pytest.mark.parametrize(
    "change",
    [
        {"bound": -0.1},
        {"bound": float("nan")},
        {"learning_rate": 0.0},
        {"num_iterations": 0},
        {"check_every": 0},
        {"decrease": 1.0},
        {"max_decreases": 0},
        {"num_draws": 0},
        {"success_draws": 0},
        {"success_fraction": 0.0},
        {"l2_weight": float("inf")},
        {"max_samples": 0},
        {"knowledge": "some"},
        {"threat": 0.1},
        {"goal": "NO"},
    ],
)
def test_arguments_out_of_range_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        CarliniWagner(**{"goal": Target()} | change)
