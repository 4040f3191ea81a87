"""The breaking point against recognisers whose breaking budget is known, and the rules of its search."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from robust_asr.attacks.base import Attack, Generated, Perturbation
from robust_asr.attacks.breaking import BreakingPoint
from robust_asr.attacks.goals import WordsWrong
from robust_asr.attacks.noise import MatchedNoise
from robust_asr.attacks.pgd import PGD
from robust_asr.attacks.standard import Standard
from robust_asr.defenses.base import Defended
from robust_asr.defenses.noise import GaussianNoise
from robust_asr.masking import masked
from robust_asr.measuring.rows import measured
from robust_asr.results.fields import wrong_row
from robust_asr.storage.partial import NOWHERE, Partial, PartialState
from robust_asr.threat import L2, SNR, Ball, Linf
from robust_asr.threat.norms import euclidean, scaled_to
from robust_asr.types import AudioBatch, Broken, Status, Transcript
from tests.listeners import four_words
from tests.robust_asr.attacks.oracles import Linear, Stochastic, Target, audio_batch, seeds_of, spoken, weights
from tests.robust_asr.attacks.test_partial import Dying, Killed, assert_equal
from tests.robust_asr.attacks.wrappers import FRAME, Frames

LENGTHS = (500, 300, 120, 40)


def smoothed() -> Defended:
    return Defended(GaussianNoise(0.003), four_words())


@dataclass(frozen=True)
class Along(Attack):
    """Fills the ball along ``w``, the best there is against ``Linear``, and writes down how often it ran on each utterance."""

    threat: Ball
    runs: list

    @property
    def name(self) -> str:
        return "along w"

    def perturb(
        self, recognizer: Linear, batch: AudioBatch, targets: object, *, seeds: Tensor, partial: Partial = NOWHERE
    ):
        self.runs.append(batch.lengths.tolist())
        direction = recognizer.weights[: batch.waveforms.shape[1]].expand_as(batch.waveforms)
        direction = masked(direction.sign() if self.threat.norm == "linf" else direction, batch.lengths)
        delta = self.threat.project(scaled_to(direction, self.threat.radius(batch), norm=self.threat.norm), batch)
        nothing = torch.zeros(len(batch), dtype=torch.long)
        return Perturbation(batch.waveforms + delta, nothing + 1, nothing)


def radii(recognizer: Linear, batch: AudioBatch, ball: Ball) -> Tensor:
    """The radius from which each utterance can be heard as HIGH."""
    w = masked(recognizer.weights[: batch.waveforms.shape[1]].expand_as(batch.waveforms), batch.lengths).double()
    missing = recognizer.level - (batch.waveforms.double() * w).sum(1)
    return missing / (w.abs().sum(1) if ball.norm == "linf" else euclidean(w))


def search(attack: BreakingPoint, recognizer: Linear, batch: AudioBatch) -> list[dict]:
    return list(attack.generate(recognizer, batch, seeds=seeds_of(batch)).facts)


@pytest.mark.parametrize(
    ("ball", "smallest"),
    [(Linf(0.3), 3e-5), (L2(8.0), 0.002), (SNR(-15.0), 65.0), (SNR(-15.0, reading="snr_linf"), 65.0)],
    ids=str,
)
@pytest.mark.parametrize("resolution", [4.0, 1.0, 0.1])
def test_the_closed_form_is_found_within_the_resolution(ball: Ball, smallest: float, resolution: float) -> None:
    recognizer, batch = Linear(weights(), level=6.0), audio_batch(LENGTHS)
    attack = BreakingPoint(Along(ball, []), smallest, resolution_db=resolution)
    lengths, exact = batch.lengths.double(), radii(recognizer, batch, ball)
    levels = exact if ball.norm == "linf" else exact / lengths.sqrt()
    found = search(attack, recognizer, batch)
    for facts, level, power in zip(
        found, levels.tolist(), euclidean(batch.waveforms.double()) / lengths.sqrt(), strict=True
    ):
        assert facts["breaking"] == Broken.WITHIN
        above = 20 * math.log10(facts["breaking_amplitude"] / level)
        assert -1e-3 <= above <= resolution + 1e-3
        assert facts["breaking_snr_db"] == pytest.approx(
            20 * math.log10(float(power) / facts["breaking_amplitude"]), abs=1e-3
        )
        assert facts["budgets_tried"] <= math.ceil(math.log2(attack.range_db / resolution) + 1)


@pytest.mark.parametrize("attack", [PGD(Linf(0.3), num_iterations=9), Standard(Linf(0.3), forwards=60)], ids=str)
def test_attacks_find_the_breaking_point_of_one_linear_frame(attack: Attack) -> None:
    recognizer, batch = Frames(weights(FRAME)), audio_batch((FRAME,) * 6)
    # So that all are heard as LOW.
    margins = recognizer.margins(batch.waveforms)
    batch = batch.replace(-margins.sign() * batch.waveforms)
    exact = margins[:, 0].abs() / recognizer.weights.abs().sum()
    result = BreakingPoint(attack, 3e-5)(recognizer, batch, seeds=seeds_of(batch))
    assert bool(result.success.all())
    for facts, size, eps in zip(result.facts, result.size.tolist(), exact.tolist(), strict=True):
        assert eps <= facts["breaking_amplitude"] * (1 + 1e-4) <= eps * 10 ** (1.01 / 20)
        assert size <= facts["breaking_amplitude"] * (1 + 1e-4)


def test_each_utterance_has_its_own_bracket_and_all_share_a_batch() -> None:
    recognizer, batch, runs = Linear(weights(), level=6.0), audio_batch(LENGTHS), []
    together = search(BreakingPoint(Along(Linf(0.3), runs), 3e-5), recognizer, batch)
    assert len({facts["breaking_amplitude"] for facts in together}) == len(batch)
    assert len(runs) == max(facts["budgets_tried"] for facts in together)
    for row, facts in enumerate(together):
        assert search(BreakingPoint(Along(Linf(0.3), []), 3e-5), recognizer, batch.select([row])) == [facts]


def test_utterances_of_one_id_are_told_apart() -> None:
    recognizer, batch = Linear(weights(), level=6.0), audio_batch(LENGTHS)
    same = replace(batch, ids=("one",) * len(batch))
    attack = BreakingPoint(Along(Linf(0.3), []), 3e-5)
    assert search(attack, recognizer, same) == search(attack, recognizer, batch)


@pytest.mark.parametrize("resolution", [0.7, 3.0])
def test_what_is_harder_to_break_has_no_smaller_breaking_point(resolution: float) -> None:
    batch, attack = audio_batch(LENGTHS), BreakingPoint(Along(Linf(1.0), []), 1e-6, resolution_db=resolution)
    found = [
        [facts["breaking_amplitude"] for facts in search(attack, Linear(weights(), level), batch)]
        for level in (5.0, 6.0, 12.0)
    ]
    assert all(a <= b <= c for a, b, c in zip(*found, strict=True))


def test_it_is_censored_at_both_ends_and_without_a_perturbation() -> None:
    batch, recognizer = audio_batch((500, 500, 500, 500)), Linear(weights(), level=6.0)
    exact = radii(recognizer, batch, Linf(1.0))
    largest, smallest = float(exact.median()) * 1.001, float(exact.min()) / 2
    beyond = search(BreakingPoint(Along(Linf(largest), []), smallest), recognizer, batch)
    assert [facts["breaking"] == Broken.BEYOND for facts in beyond] == (exact > largest).tolist()
    assert all(
        facts["breaking_amplitude"] == pytest.approx(largest, rel=1e-5)
        for facts in beyond
        if facts["breaking"] == Broken.BEYOND
    )
    at_once = search(BreakingPoint(Along(Linf(1.0), []), 0.1), recognizer, batch)
    assert {(facts["breaking"], facts["breaking_amplitude"]) for facts in at_once} == {(Broken.SMALLEST, 0.1)}
    result = BreakingPoint(Along(Linf(1.0), []), 0.3)(Linear(weights(), level=-99.0), batch, seeds=seeds_of(batch))
    assert {facts["breaking"] for facts in result.facts} == {Broken.UNPERTURBED}
    assert {facts["budgets_tried"] for facts in result.facts} == {0}
    assert torch.equal(result.batch.waveforms, batch.waveforms) and bool(result.success.all())
    assert all(outcome.below == (outcome in (Broken.SMALLEST, Broken.UNPERTURBED)) for outcome in Broken)


def test_a_reference_without_words_is_refused_with_a_note() -> None:
    batch = replace(audio_batch(LENGTHS), texts=("LOW", "", " ", "LOW"))
    result = BreakingPoint(Along(Linf(0.3), []), 3e-5)(Linear(weights(), level=6.0), batch, seeds=seeds_of(batch))
    assert [given == Status.REFUSED for given in result.status] == [False, True, True, False]
    assert result.notes[1] == "not attacked: its reference has no words, so there is nothing to be wrong about"
    assert result.facts[1] == {}
    assert not result.success[1]


class Words(Linear):
    """Hears the first of four words wrong from a level on, two from twice the level, and so on."""

    def transcribe(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> list[Transcript]:
        values = self.value(masked(waveforms, lengths), lengths, seeds)
        wrong = (values / self.level).floor().clamp(0, 4).long().tolist()
        return [Transcript(" ".join(["X"] * count + ["LOW"] * (4 - count))) for count in wrong]


def test_half_of_the_words_by_default_and_any_other_share() -> None:
    batch = audio_batch((500,))
    recognizer, batch = Words(weights(), level=10.0), replace(batch, texts=("LOW LOW LOW LOW",))
    start = float(recognizer.value(batch.waveforms, batch.lengths, None))
    for share, level in ((0.25, 10.0), (0.3, 20.0), (0.5, 20.0), (0.51, 30.0), (1.0, 40.0)):
        (facts,) = search(BreakingPoint(Along(Linf(0.5), []), 1e-4, share=share, resolution_db=0.05), recognizer, batch)
        exact = (level - start) / float(recognizer.weights.abs().sum())
        assert facts["breaking_amplitude"] == pytest.approx(exact, rel=0.01)
    assert [WordsWrong(0.1).most_damage("A " * words) for words in (1, 10, 11, 30)] == [1, 1, 2, 3]


def test_perturbations_of_neighbouring_budgets_are_used_again() -> None:
    """With a start, an attack that finds nothing by itself lives on what was found before, and budgets cost no attack."""

    @dataclass(frozen=True)
    class Once(Along):
        takes_start = True

        def perturb(self, recognizer, batch, targets, *, seeds, partial=NOWHERE, start=None):
            if len(self.runs) == 0:
                return super().perturb(recognizer, batch, targets, seeds=seeds)
            self.runs.append(float(start.abs().max()))
            nothing = torch.zeros(len(batch), dtype=torch.long)
            return Perturbation(batch.waveforms + start, nothing, nothing)

    recognizer, batch = Linear(weights(), level=6.0), audio_batch((500,))
    (expected,), runs = search(BreakingPoint(Along(Linf(0.3), []), 3e-5), recognizer, batch), []
    (facts,) = search(BreakingPoint(Once(Linf(0.3), runs), 3e-5), recognizer, batch)
    assert facts == expected
    # Where a neighbour's perturbation succeeds, the attack does not run.
    assert len(runs) < facts["budgets_tried"]


def test_noise_at_rising_size_and_a_phrase() -> None:
    recognizer, batch = four_words(), spoken(4, seed=5)
    noise = BreakingPoint(MatchedNoise(Linf(1.0), distribution="signs"), 1e-3, resolution_db=3)
    result = noise(recognizer, batch, seeds=seeds_of(batch))
    assert (
        not noise.needs_targets
        and noise.columns()["knowledge"] == ""
        and result.forwards.max() <= 1 + noise.num_budgets
    )
    broken = [facts["breaking"] != Broken.BEYOND for facts in result.facts]
    assert any(broken) and broken == result.success.tolist()
    phrase = BreakingPoint(PGD(Linf(0.1), goal=Target("NO"), num_iterations=10), 1e-4, resolution_db=6)
    result = phrase(recognizer, batch, seeds=seeds_of(batch))
    reached = [facts["breaking"] != Broken.BEYOND for facts in result.facts]
    assert any(reached) and reached == [said == "NO" for said in result.hypotheses]


def test_of_a_random_recogniser_success_is_the_mean_over_draws_of_its_own() -> None:
    batch, recognizer = audio_batch(LENGTHS), Stochastic(weights(), level=6.0)
    seen: list[int] = []
    heard = recognizer.transcribe
    recognizer.transcribe = lambda *given, seeds: seen.extend(seeds.tolist()) or heard(*given, seeds=seeds)
    attack = BreakingPoint(Along(Linf(0.3), []), 3e-5, comparison_draws=4)
    generated = attack.generate(recognizer, batch, seeds=seeds_of(batch))
    assert len(set(seen)) == 4 * len(batch)
    assert generated.forwards.tolist() == [4 * (1 + facts["budgets_tried"]) for facts in generated.facts]
    searched, seen[:] = set(seen), []
    attack.verdict(recognizer, batch, generated, seeds=seeds_of(batch))
    # The verdict of an oracle without an encoder listens through loss_and_transcripts.
    assert not searched & set(seen)


@pytest.mark.parametrize("goal", [{}, {"goal": Target("UP GO")}], ids=["untargeted", "targeted"])
def test_every_pass_is_counted(goal: dict) -> None:
    batch, rows = spoken(3, seed=5), []
    attack = BreakingPoint(Standard(Linf(0.003), forwards=60, **goal), 1e-5, resolution_db=4)
    handle = four_words().front_end.register_forward_hook(lambda _, __, found: rows.append(len(found[0])))
    try:
        generated = attack.generate(four_words(), batch, seeds=seeds_of(batch))
    finally:
        handle.remove()
    assert sum(rows) == int(generated.forwards.sum())
    assert all(facts["budgets_tried"] <= 5 for facts in generated.facts)


def test_rows_hold_the_breaking_point_and_are_checked() -> None:
    batch, attack = audio_batch(LENGTHS), BreakingPoint(Along(Linf(0.3), []), 3e-5)
    result = attack(Linear(weights(), level=6.0), batch, seeds=seeds_of(batch))
    more = {"system": "s", "condition": "c", "part": "p", "hashes": {}}
    row = more | measured(result, batch, 0, seconds_per_sample=0.0, sample_rate=16000)
    assert wrong_row(row) == "" and row["breaking"] == "within the range"
    assert row["snr_db"] >= row["breaking_snr_db"] - 0.01 and row["size"] <= row["breaking_amplitude"] * 1.0001
    for name, value, what in (
        ("breaking", "at noon", "one of within the range, at the smallest budget, unperturbed, not broken"),
        ("breaking", 3, "a text"),
        ("breaking_amplitude", 0.0, "a positive amplitude"),
        ("breaking_amplitude", None, "a positive amplitude"),
        ("breaking_amplitude", 1e200, "a positive amplitude"),
        ("breaking_snr_db", "loud", "a number"),
        ("breaking_snr_db", 1e200, "a number of at most 1000 dB"),
        ("budgets_tried", -1, "a count"),
    ):
        assert wrong_row(row | {name: value}).startswith(f"field {name!r} must be {what}, found ")


KILLED = {
    "plain": (PGD(Linf(0.01), num_iterations=4, check_every=2), four_words, (1, 2, 6, 11)),
    "random": (PGD(Linf(0.01), num_iterations=4, check_every=2), smoothed, (4, 9)),
    "an ensemble": (Standard(Linf(0.01), forwards=60), four_words, (30,)),
}


@pytest.mark.parametrize("name", KILLED)
def test_killed_after_any_state_it_ends_the_same(name: str, tmp_path: Path) -> None:
    repeated, system, states = KILLED[name]
    attack = BreakingPoint(repeated, 1e-4, resolution_db=9, comparison_draws=2)
    batch, recognizer = spoken(2, seed=5), system()

    def made(partial: PartialState | None = None) -> Generated:
        return attack.generate(recognizer, batch, seeds=seeds_of(batch), partial=partial)

    whole = made()
    for kept in states:
        folder = tmp_path / str(kept)
        folder.mkdir()
        with pytest.raises(Killed):
            made(Dying(folder / "whole.ckpt", after=kept))
        again = made(PartialState(folder / "whole.ckpt", every_seconds=3600))
        assert_equal(again, whole)
        assert again.facts == whole.facts
