"""The second stage against schedules computed by hand, and both stages on a trained recogniser."""

from __future__ import annotations

import copy
import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from robust_asr.attacks.cw import CarliniWagner
from robust_asr.attacks.descent import State
from robust_asr.attacks.imperceptible import Imperceptible
from robust_asr.attacks.psychoacoustics import masking_excess, masking_thresholds
from robust_asr.gradients import input_gradient
from robust_asr.storage.describe import describe
from robust_asr.threat.norms import maximum
from robust_asr.types import AudioBatch
from tests.listeners import four_words
from tests.robust_asr.attacks.oracles import Breaking, Linear, Target, audio_batch, seeds_of, spoken
from tests.robust_asr.attacks.victims import Scripted, silence, workload
from tests.robust_asr.test_contract import assert_unchanged, snapshot
from tests.toys import ToyCTC

QUICK = Imperceptible(Target("NO GO"), bound=0.1, num_iterations=80, masking_iterations=80, masking_learning_rate=3e-4)
LENGTHS = (3000, 2500)


def excess(attacked: AudioBatch, batch: AudioBatch) -> Tensor:
    return masking_excess(attacked.waveforms - batch.waveforms, masking_thresholds(batch.waveforms, batch.lengths))


def second_stage(attack: Imperceptible, victim: Scripted, batch: AudioBatch, *, start: Tensor | None = None) -> State:
    """Only that, from a given perturbation; its first look is look 0."""
    victim.looks = 0
    start = torch.zeros_like(batch.waveforms) if start is None else start
    return attack.hide(victim, workload(victim, batch, attack.goal), State.at(start))


def scripted(*rows: str, wanted: Tensor | None = None) -> Scripted:
    """One string of + (heard) and - an utterance, one character a look."""
    looks = [
        {length: row[look] == "+" for length, row in zip(LENGTHS, rows, strict=True)} for look in range(len(rows[0]))
    ]
    generator = torch.Generator().manual_seed(2)
    return Scripted(0.1 * torch.randn(LENGTHS[0], generator=generator) if wanted is None else wanted, looks)


def started(batch: AudioBatch) -> Tensor:
    """A perturbation that is heard, so that no l_theta is zero. Shape: (B, T)."""
    return 0.5 * audio_batch(LENGTHS, seed=7).waveforms + 0 * batch.waveforms


def test_alpha_computed_by_hand() -> None:
    batch = audio_batch(LENGTHS)
    # Looks after 0, 10, 20, ... 100 updates: multiples of 20 raise where heard, multiples of 50 lower where not.
    victim = scripted("+++--+-+-+-", "-++--------")
    expected = {
        10: (0.05, 0.05),
        20: (0.05 * 1.2, 0.05 * 1.2),
        40: (0.05 * 1.2, 0.05 * 1.2),
        50: (0.05 * 1.2, 0.05 * 1.2 * 0.8),
        60: (0.05 * 1.2, 0.05 * 1.2 * 0.8),
        100: (0.05 * 1.2 * 0.8, 0.05 * 1.2 * 0.8**2),
    }
    for count, alphas in expected.items():
        state = second_stage(Imperceptible(Target(), masking_iterations=count), victim, batch, start=started(batch))
        assert state.alpha.tolist() == pytest.approx(alphas), count


def test_alpha_does_not_fall_below_its_floor() -> None:
    attack = Imperceptible(Target(), masking_iterations=100, alpha=6e-4)
    state = second_stage(attack, scripted("-" * 11, "-" * 11), audio_batch(LENGTHS))
    assert state.alpha.tolist() == pytest.approx([5e-4] * 2)


@pytest.mark.parametrize(("alpha", "quietest"), [(1e-3, 4), (0.0, 1)])
def test_the_quietest_success_is_kept_else_the_last(alpha: float, quietest: int) -> None:
    # With alpha the perturbation becomes quieter, without it louder.
    batch, marks = audio_batch(LENGTHS, level=0.01), ("-++-+-", "------")
    attack = Imperceptible(Target(), masking_iterations=50, masking_learning_rate=2e-3, alpha=alpha, lowest_alpha=0)
    thresholds = masking_thresholds(batch.waveforms, batch.lengths)
    looks = [(0, started(batch), masking_excess(started(batch), thresholds))]
    for count in range(10, 51, 10):
        delta = second_stage(
            replace(attack, masking_iterations=count), scripted(*marks), batch, start=started(batch)
        ).delta
        looks.append((count, delta, masking_excess(delta, thresholds)))
    state = second_stage(attack, scripted(*marks), batch, start=started(batch))
    heard = [look for mark, look in zip(marks[0], looks, strict=True) if mark == "+"]
    best = min(heard, key=lambda look: look[2][0])
    assert len({look[2][0].item() for look in heard}) == 3 and best is looks[quietest]
    assert torch.equal(state.best[0], best[1][0]) and state.lowest[0] == best[2][0]
    assert torch.equal(state.best[1], looks[-1][1][1]) and state.lowest[1].isinf()


def test_the_learning_rate_falls_to_a_tenth() -> None:
    # A constant gradient and no masking term: Adam moves each sample by the learning rate.
    batch = silence(*LENGTHS)
    attack = Imperceptible(
        Target(),
        masking_iterations=20,
        check_every=5,
        slow_after=13,
        alpha=0,
        lowest_alpha=0,
        masking_learning_rate=1e-3,
    )
    state = attack.hide(
        Linear(-torch.ones(3000), 1e9), workload(Linear(-torch.ones(3000)), batch, Target()), State.at(batch.waveforms)
    )
    assert maximum(state.delta).tolist() == pytest.approx([13e-3 + 7e-4] * 2, rel=1e-4)


@pytest.mark.parametrize("two_adam", [False, True])
@pytest.mark.parametrize("qin_gain_bug", [False, True])
def test_updates_against_torch(two_adam: bool, qin_gain_bug: bool) -> None:
    batch, victim = audio_batch(LENGTHS), scripted("-", "-")
    attack = Imperceptible(
        Target(), masking_iterations=7, masking_learning_rate=1e-3, two_adam=two_adam, qin_gain_bug=qin_gain_bug
    )
    thresholds = masking_thresholds(batch.waveforms, batch.lengths)
    values = started(batch).requires_grad_(True)
    optimizer = torch.optim.Adam([values], lr=1e-3)
    for _ in range(7):
        delta = values.detach()
        pull = input_gradient(lambda heard: victim.value(heard, batch.lengths, None), batch.waveforms + delta)[1]
        push = 0.05 * input_gradient(lambda d: masking_excess(d, thresholds, qin_gain_bug=qin_gain_bug), delta)[1]
        for gradient in (pull, push) if two_adam else (pull + push,):
            values.grad = gradient
            optimizer.step()
        with torch.no_grad():
            values.clamp_(-attack.bound, attack.bound)
            values[1, LENGTHS[1] :] = 0
    state = second_stage(attack, victim, batch, start=started(batch))
    torch.testing.assert_close(state.delta, values.detach(), rtol=1e-4, atol=1e-6)


def test_defaults_are_the_published_numbers() -> None:
    attack = Imperceptible(Target())
    first = CarliniWagner(Target())
    for name in ("bound", "learning_rate", "num_iterations", "check_every", "decrease", "sign_gradient"):
        assert getattr(attack, name) == getattr(first, name)
    assert (attack.masking_iterations, attack.masking_learning_rate, attack.slow_after) == (4000, 1 / 32768, 3000)
    assert (attack.alpha, attack.raise_every, attack.raise_by) == (0.05, 20, 1.2)
    assert (attack.lower_every, attack.lower_by, attack.lowest_alpha) == (50, 0.8, 5e-4)


def test_quieter_than_the_first_stage_and_still_heard() -> None:
    # Defects 1 and 4: utterances of different lengths, complex spectra.
    batch = spoken(5, seed=5)
    assert len(set(batch.lengths.tolist())) > 1
    first = CarliniWagner(Target("NO GO"), bound=0.1, num_iterations=80)(four_words(), batch, seeds=seeds_of(batch))
    # So few that none becomes inaudible, which would end it early.
    result = replace(QUICK, masking_iterations=20)(four_words(), batch, seeds=seeds_of(batch))
    assert first.success.all() and result.success.all()
    assert (excess(result.batch, batch) < 0.2 * excess(first.batch, batch)).all()
    assert result.iterations.tolist() == [100] * 5 and result.forwards.tolist() == [102] * 5


def test_padded_batch_equals_alone() -> None:
    # In float64, as in CW.
    recognizer, batch = copy.deepcopy(four_words()).double(), spoken(4, seed=5)
    batch = replace(batch, waveforms=batch.waveforms.double())
    attack = replace(QUICK, num_iterations=20, masking_iterations=30)
    together = attack(recognizer, batch, seeds=seeds_of(batch))
    for row, length in enumerate(batch.lengths.tolist()):
        alone = attack(recognizer, batch.select([row]), seeds=seeds_of(batch)[[row]])
        difference = alone.batch.waveforms[0] - together.batch.waveforms[row, :length]
        assert difference.abs().max() < 1e-12 and not together.batch.waveforms[row, length:].any()


def test_second_stage_alone_equals_padded() -> None:
    batch, attack = audio_batch(LENGTHS), Imperceptible(Target(), masking_iterations=30)
    together = second_stage(attack, scripted("-+-+", "-++-"), batch, start=started(batch))
    for row, length in enumerate(LENGTHS):
        start = started(batch)[[row], :length]
        alone = second_stage(attack, scripted("-+-+", "-++-"), batch.select([row]), start=start)
        torch.testing.assert_close(alone.best[0], together.best[row, :length], rtol=0, atol=1e-6)
        assert not together.best[row, length:].any()


def test_the_model_is_the_same_before_and_after() -> None:
    recognizer, batch = four_words(), spoken(2, seed=6)
    recognizer.train()
    before = snapshot(recognizer)
    replace(QUICK, num_iterations=10, masking_iterations=10)(recognizer, batch, seeds=seeds_of(batch))
    assert_unchanged(before, recognizer)
    recognizer.eval()


def test_an_utterance_that_says_the_target_stays_as_it_is() -> None:
    batch = spoken(3)
    attack = Imperceptible(Target(batch.texts[0]), num_iterations=10, masking_iterations=10)
    result = attack(four_words(), batch, seeds=seeds_of(batch))
    assert torch.equal(result.batch.waveforms[0], batch.waveforms[0]) and result.success[0]
    assert result.iterations[0] == 0 and result.iterations[1:].tolist() == [20, 20]


def test_a_bound_of_zero_changes_nothing() -> None:
    batch = spoken(2, seed=5)
    result = replace(QUICK, bound=0.0)(four_words(), batch, seeds=seeds_of(batch))
    assert torch.equal(result.batch.waveforms, batch.waveforms)


def test_silence_very_short_and_infeasible() -> None:
    batch = AudioBatch(
        torch.zeros(4, 8000),
        torch.tensor([8000, 320, 200, 8000]),
        ("GO",) * 4,
        ("silent", "0.02 s", "one frame", "tones"),
    )
    batch.waveforms[1, :320] = spoken(1).waveforms[0, :320]
    batch.waveforms[3] = spoken(5, seed=3).waveforms[0].repeat(4)[:8000]
    attack = replace(QUICK, goal=Target("NO"), num_iterations=40, masking_iterations=40)
    # Of log energies silence has no gradient; a convolution of the waveform has one.
    result = attack(ToyCTC().eval(), batch, seeds=seeds_of(batch))
    assert result.batch.waveforms.isfinite().all()
    assert "does not fit" in result.notes[2] and torch.equal(result.batch.waveforms[2], batch.waveforms[2])
    assert [result.notes[row] for row in (0, 1, 3)] == [""] * 3
    assert result.iterations.tolist() == [80, 80, 0, 80]


def test_a_gradient_that_breaks_stops_its_utterance_only() -> None:
    batch = silence(3000, 2500)
    batch.waveforms[1, 0] = -0.5
    attack = Imperceptible(Target(), num_iterations=10, learning_rate=0.01, masking_iterations=10)
    result = attack(Breaking(-torch.ones(3000), 0.025), batch, seeds=seeds_of(batch))
    assert result.batch.waveforms.isfinite().all()
    assert "no longer finite" in result.notes[0] and result.notes[1] == ""
    assert result.iterations.tolist() == [3, 20]


def test_a_gradient_that_breaks_in_the_second_stage_leaves_the_perturbation_there() -> None:
    batch = silence(3000)
    attack = Imperceptible(
        Target(),
        num_iterations=1,
        learning_rate=0.01,
        masking_iterations=20,
        masking_learning_rate=0.01,
        alpha=0,
        lowest_alpha=0,
    )
    result = attack(Breaking(-torch.ones(3000), 0.025), batch, seeds=seeds_of(batch))
    assert maximum(result.batch.waveforms).item() == pytest.approx(0.03, rel=1e-5)
    assert "no longer finite" in result.notes[0] and result.iterations.tolist() == [3]


def test_who_is_inaudible_leaves_the_batch_and_nobody_else_notices() -> None:
    batch, attack = audio_batch(LENGTHS), Imperceptible(Target(), masking_iterations=20)
    start = started(batch)
    start[0] = 0
    victim = scripted("+++", "-+-")
    state = second_stage(attack, victim, batch, start=start)
    assert victim.rows == [2] + [1] * 20 and state.iterations.tolist() == [0, 20]
    assert not state.best[0].any() and state.lowest[0] == 0
    alone = second_stage(attack, scripted("+++", "-+-"), batch.select([1]), start=start[1:, :2500])
    torch.testing.assert_close(alone.best[0], state.best[1, :2500], rtol=0, atol=1e-6)


def test_described_and_named_as_in_the_papers_table() -> None:
    attack = Imperceptible(Target())
    assert describe(attack)["init_args"]["two_adam"] is False and hash(attack) == hash(replace(attack))
    table = Path(__file__).parents[3] / "robust_asr" / "results" / "paper_results" / "zelasko2021_table1.csv"
    with table.open() as lines:
        row = next(row for row in csv.DictReader(lines) if row["attack"] == "Imperceptible")
    columns = attack.columns()
    del columns["knowledge"]
    assert {name: row[name] for name in columns} == columns


@pytest.mark.parametrize(
    "change",
    [
        {"bound": 3.0},
        {"masking_iterations": 0},
        {"masking_learning_rate": 0.0},
        {"slow_after": 0},
        {"alpha": 1e-4},
        {"alpha": float("nan")},
        {"raise_by": 0.9},
        {"raise_every": 15},
        {"lower_by": 0.0},
        {"lower_every": 0},
        {"lowest_alpha": -1.0},
    ],
)
def test_arguments_out_of_range_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        Imperceptible(Target(), **change)


def test_schedules_of_the_papers_are_accepted() -> None:
    zelasko: Sequence[Imperceptible] = [
        Imperceptible(
            Target(), bound=0.01, learning_rate=8e-4, num_iterations=100, decrease=0.5, masking_iterations=25
        ),
        Imperceptible(Target(), bound=0.75, learning_rate=1e-3, masking_learning_rate=1e-7, check_every=1),
    ]
    assert [attack.name for attack in zelasko] == ["Imperceptible"] * 2


def test_each_row_says_how_far_the_perturbation_exceeds_the_threshold() -> None:
    batch = spoken(2, seed=5)
    attack = replace(QUICK, num_iterations=20, masking_iterations=10)
    result = attack(four_words(), batch, seeds=seeds_of(batch))
    expected = 10 * torch.log10(1 + excess(result.batch, batch).double())
    assert [facts["masking_excess"] for facts in result.facts] == pytest.approx(expected.tolist(), abs=1e-3)
    assert attack._facts(batch.waveforms, batch, 16_000) == ({"masking_excess": 0.0},) * 2
