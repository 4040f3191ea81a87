"""On honest systems nothing fails; each planted fault trips the check that is named for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from robust_asr.attacks.base import Attack
from robust_asr.attacks.cw import CarliniWagner
from robust_asr.attacks.fgsm import FGSM
from robust_asr.attacks.noise import Clean, Gaussian, MatchedNoise
from robust_asr.attacks.pgd import PGD, PaperPGD
from robust_asr.checks import Check, check_attack, check_recognizer, check_system, lines
from robust_asr.checks.live import probes
from robust_asr.checks.live import system as live_system
from robust_asr.checks.live.draws import AVERAGES, ONE_PASS, OWN_DRAWS, REPEATS
from robust_asr.checks.live.loudness import EVERYWHERE
from robust_asr.checks.live.passage import ACTS, KEPT, PADDING
from robust_asr.checks.live.probes import REACHES, SLOPE, check_gradient
from robust_asr.checks.live.states import EVALUATING, UNCHANGED
from robust_asr.checks.live.system import shortened
from robust_asr.checks.live.writing import WRITES
from robust_asr.checks.verdicts import Question
from robust_asr.defenses.base import Defended
from robust_asr.defenses.noise import GaussianNoise
from robust_asr.defenses.voted import Voted
from robust_asr.defenses.votes import Rover
from robust_asr.masking import masked
from robust_asr.models.base import Recognizer
from robust_asr.threat import L2, SNR, Linf
from robust_asr.types import Targets
from tests.listeners import five_words, four_words
from tests.robust_asr.attacks import oracles
from tests.robust_asr.attacks.oracles import Linear, audio_batch, weights
from tests.robust_asr.checks import faults
from tests.robust_asr.checks.honest import seeds_of, spoken
from tests.robust_asr.checks.table import CONDITIONS, GOAL, smoothed, verdicts
from tests.robust_asr.test_contract import RECOGNIZERS, trained

LIVE: dict[str, Attack] = {
    "clean": CONDITIONS["clean"],
    "gaussian": CONDITIONS["gaussian"],
    "pgd": PaperPGD(Linf(0.001), random_start=True),
    "fgsm": FGSM(Linf(0.001)),
    "eot": PaperPGD(L2(0.1), num_draws=8),
    "noise": MatchedNoise(SNR(30.0)),
    "cw": CarliniWagner(GOAL, num_iterations=50, num_draws=2),
    "stopping": PaperPGD(Linf(0.01), stop_on_success=True, check_every=1, knowledge="straight_through"),
}


def live(recognizer: Recognizer, attack: Attack, *, seed: int = 0) -> list[Check]:
    batch = spoken(3, seed=3)
    return check_system(recognizer, attack, batch, seeds=seeds_of(batch, seed))


def unsettled(checks: list[Check]) -> list[str]:
    """What failed or was not run, but for one check: a recogniser that hardly learnt prefers no text."""
    return lines([check for check in checks if check.verdict == "fail" or check.name != WRITES.name], "fail", "not run")


@pytest.mark.parametrize("name", LIVE)
def test_nothing_fails_live_on_honest_systems(name: str) -> None:
    for recognizer in (five_words(), smoothed()):
        checks = live(recognizer, LIVE[name])
        assert unsettled(checks) == []
        assert {UNCHANGED.name, EVALUATING.name, REPEATS.name, PADDING.name} <= {check.name for check in checks}


@pytest.mark.parametrize("name", RECOGNIZERS)
def test_nothing_fails_live_on_any_recognizer(name: str) -> None:
    assert unsettled(live(trained(name), PaperPGD(Linf(0.001)))) == []


@pytest.mark.parametrize("system", [five_words, lambda: faults.LoudDetached(five_words())], ids=["honest", "faulty"])
def test_loud_and_quiet_passages_are_asked_about_once_for_all_texts(
    system: Callable[[], Recognizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verdict of the first text stands under the second too; slope and reach are asked for each text."""
    asked: list[object] = []
    real = probes.check_loudness
    monkeypatch.setattr(probes, "check_loudness", lambda points: asked.append(points) or real(points))
    batch, known, recognizer = spoken(2, seed=3), {}, system()
    attacks = [PaperPGD(Linf(0.001)), PaperPGD(Linf(0.002)), PaperPGD(Linf(0.001), goal=GOAL)]
    found = [check_attack(recognizer, attack, batch, seeds=seeds_of(batch), asked=known) for attack in attacks]
    first, second, targeted = ({check.name: check for check in checks} for checks in found)
    assert len(asked) == 1 and first[EVERYWHERE.name] == second[EVERYWHERE.name] == targeted[EVERYWHERE.name]
    assert first[SLOPE.name] == second[SLOPE.name] != targeted[SLOPE.name]


def test_what_is_written_is_asked_of_one_draw_of_a_vote(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text that one draw prefers is no text for the others, so the vote may write another."""
    asked: list[Recognizer] = []
    real = live_system.check_writing
    monkeypatch.setattr(
        live_system, "check_writing", lambda recognizer, *a, **k: asked.append(recognizer) or real(recognizer, *a, **k)
    )
    inside = smoothed(0.02)
    assert unsettled(live(Voted(inside, Rover(4)), PaperPGD(Linf(0.001)))) == [] and asked == [inside]


class Even(Linear):
    """w.x, which goes by its slope as far as anybody looks: what a fault leaves of it can be computed.

    A hundredth of the gradient promises a hundredth of what comes. Of steep ones a step is so small that no sample is rounded
    to another value, and nothing comes. Of a ripple of slope r = 100 cos that no step resolves (1 + mean r) / (1 + mean r^2).
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(scale * weights(40_000))

    def loss(self, waveforms: Tensor, lengths: Tensor, targets: Targets, *, seeds: Tensor | None = None) -> Tensor:
        return self.value(masked(waveforms, lengths), lengths, seeds)


LIVE_FAULTS: dict[str, tuple[Question, Callable[[], Recognizer], Attack]] = {
    "BatchNorm drift": (UNCHANGED, lambda: trained("compact"), faults.Drifting(Linf(0.001))),
    "training mode": (EVALUATING, lambda: trained("compact"), faults.Drifting(Linf(0.001))),
    "model changed": (UNCHANGED, lambda: trained("toy_ctc"), faults.Training(Linf(0.001))),
    "gradients left": (UNCHANGED, lambda: trained("toy_ctc"), faults.Accumulating(Linf(0.001))),
    "one EoT draw": (AVERAGES, smoothed, faults.OneDraw(Linf(0.001), num_draws=16)),
    "one EoT draw sixteen times": (AVERAGES, smoothed, faults.SameDraw(Linf(0.001), num_draws=16)),
    "rounded": (REACHES, lambda: faults.Rounded(five_words()), PaperPGD(Linf(0.001))),
    "thresholded": (REACHES, lambda: faults.Thresholded(five_words()), PaperPGD(Linf(0.001))),
    "rounded, straight through": (SLOPE, lambda: faults.RoundedCoarsely(Even(100.0)), PaperPGD(Linf(0.001))),
    "detached": (SLOPE, lambda: faults.Detached(Even()), PaperPGD(Linf(0.001))),
    "shattered": (SLOPE, lambda: faults.Shattered(Even()), PaperPGD(Linf(0.001))),
    "loud frames detached": (EVERYWHERE, lambda: faults.LoudDetached(five_words()), PaperPGD(Linf(0.001))),
    "soft frames detached": (EVERYWHERE, lambda: faults.SoftDetached(five_words()), PaperPGD(Linf(0.001))),
    "four fifths of the samples": (EVERYWHERE, lambda: faults.FifthOfSamples(five_words()), PaperPGD(Linf(0.001))),
    "four fifths of the frames": (EVERYWHERE, lambda: faults.FifthOfFrames(five_words()), PaperPGD(Linf(0.001))),
    "dropout left on": (REPEATS, lambda: faults.Dropping(five_words()), PaperPGD(Linf(0.001))),
    "padding heard": (PADDING, lambda: faults.Circular(five_words()), Clean()),
    "defence off": (ACTS, lambda: smoothed(0.0), Clean()),
    "defence off where scored": (ACTS, lambda: faults.Bypassed(smoothed()), Clean()),
    "another system in one pass": (ONE_PASS, lambda: faults.TwoFaced(GaussianNoise(0.05), five_words()), Clean()),
    "same noise in the defence": (OWN_DRAWS, lambda: Defended(faults.SharedDefense(0.01), five_words()), Clean()),
    "same noise in the control": (OWN_DRAWS, five_words, faults.SharedNoise(Linf(0.01))),
    "draws not declared": (OWN_DRAWS, lambda: faults.Secretive(five_words()), Clean()),
    "too small for a file": (KEPT, five_words, PaperPGD(Linf(1e-8))),
}


@pytest.mark.parametrize("fault", LIVE_FAULTS)
def test_a_live_fault_trips_its_check(fault: str) -> None:
    question, system, attack = LIVE_FAULTS[fault]
    failed = [check for check in live(system(), attack) if check.verdict == "fail"]
    assert question.name in {check.name for check in failed}
    assert all(check.value != "" for check in failed)


@pytest.mark.parametrize("fault", [faults.Muffled, faults.MuffledLoss])
def test_loss_and_transcript_of_different_audio_fail(fault: type[faults.Muffled]) -> None:
    batch = oracles.spoken(3)
    honest, muffled = (
        check_recognizer(recognizer, batch, seeds=seeds_of(batch)) for recognizer in (four_words(), fault(four_words()))
    )
    assert verdicts(honest, WRITES)["pass"]
    (failed,) = [check for check in muffled if check.name == WRITES.name]
    assert failed.verdict == "fail" and failed.value > 10


def test_a_recogniser_without_gradient_is_not_asked_what_it_prefers() -> None:
    class Cut(faults.Fronted):
        def front(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
            return waveforms.detach()

    batch = oracles.spoken(3)
    checks = check_recognizer(Cut(four_words()), batch, seeds=seeds_of(batch))
    assert verdicts(checks, WRITES)["not run"] and lines(checks, "fail") == []


class Certain(Linear):
    """||x - w||^4: where it is below a nat it bends within a step of a tenth of one."""

    def value(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
        return masked(waveforms - self.weights[: waveforms.shape[1]], lengths).square().sum(1).square()


def test_a_loss_that_hardly_rises_has_a_slope_in_loud_noise() -> None:
    batch = audio_batch([400])
    waveform = batch.waveforms[0] * (0.05 / batch.waveforms[0].square().sum()).sqrt()
    batch = batch.replace(waveform[None])
    checks = check_gradient(Certain(0.9 * waveform), batch, ["GO"], seeds=seeds_of(batch))
    assert [check.verdict for check in checks] == ["pass"] * 3 and checks[1].value == pytest.approx(1, abs=0.01)


def test_one_seed_for_all_utterances_fails() -> None:
    batch = spoken(3, seed=3)
    checks = check_system(smoothed(), Gaussian(sigma=0.01), batch, seeds=torch.zeros(3, dtype=torch.long))
    assert [check.name for check in checks if check.verdict == "fail"] == [OWN_DRAWS.name] * 2


def test_checking_leaves_everything_as_it_was() -> None:
    recognizer = trained("compact").train()
    recognizer.zero_grad()
    before, state = torch.get_rng_state(), {name: value.clone() for name, value in recognizer.state_dict().items()}
    live(recognizer, PaperPGD(Linf(0.001)))
    assert recognizer.training and torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state[name]) for name, value in recognizer.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in recognizer.parameters())


def test_what_cannot_be_attacked_is_said() -> None:
    batch = replace(spoken(2, seed=3), texts=("1", "2"))
    checks = check_system(five_words(), PaperPGD(Linf(0.001)), batch, seeds=seeds_of(batch))
    assert {check.name for check in checks if check.verdict == "not run"} == {
        question.name for question in (REPEATS, PADDING, WRITES, REACHES, SLOPE, EVERYWHERE)
    }
    assert lines(checks, "fail") == []


def test_long_attacks_are_cut_short() -> None:
    assert shortened(PaperPGD(Linf(0.1), num_iterations=500)).num_iterations == 3
    assert shortened(PaperPGD(Linf(0.1), num_iterations=2)) == PaperPGD(Linf(0.1), num_iterations=2)
    assert shortened(LIVE["fgsm"]) == LIVE["fgsm"] and shortened(Clean()) == Clean()
    assert shortened(CarliniWagner(GOAL)).num_iterations == 3


def test_draws_are_counted_on_what_was_attacked() -> None:
    batch = replace(spoken(3, seed=3), texts=("GO", "1", "2"))
    checks = check_system(smoothed(), PaperPGD(Linf(0.001), num_draws=4), batch, seeds=seeds_of(batch))
    assert lines(checks, "fail") == [] and verdicts(checks, AVERAGES)["pass"]


def test_draws_are_counted_whatever_the_attack_raises() -> None:
    batch = spoken(2, seed=3)
    checks = check_system(smoothed(), PGD(Linf(0.001), num_draws=4, num_iterations=2), batch, seeds=seeds_of(batch))
    assert verdicts(checks, AVERAGES)["pass"]
