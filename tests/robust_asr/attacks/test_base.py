"""The contract of ``Attack.__call__``: it refuses what it cannot attack, verifies what it returns, and is judged afresh."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from robust_asr.attacks.base import Attack, AttackResult, Perturbation
from robust_asr.attacks.goals import Goal, Untargeted
from robust_asr.attacks.noise import MatchedNoise
from robust_asr.attacks.pgd import PaperPGD
from robust_asr.models.base import Recognizer
from robust_asr.storage.partial import Partial
from robust_asr.threat import SNR, Linf, ThreatModel, Unbounded
from robust_asr.types import AudioBatch, Status, Targets, Transcript
from tests.robust_asr.attacks.oracles import Linear, Oracle, Target, audio_batch, seeds_of
from tests.robust_asr.test_contract import LENGTHS, TEXTS, assert_unchanged, audio, snapshot, trained

SIZES = (500, 300, 1)
STOPPED = "stopped where its gradient was no longer finite"


@dataclass(frozen=True)
class Shift(Attack):
    """Adds a constant, whatever the threat model allows; into the padding if asked."""

    threat: ThreatModel
    amount: float = 0.01
    padding: bool = False
    fails: bool = False
    goal: Goal = field(default_factory=Untargeted)
    knowledge: str = "exact"

    @property
    def name(self) -> str:
        return "shift"

    def perturb(
        self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, *, seeds: Tensor, partial: Partial
    ) -> Perturbation:
        if self.fails:
            raise RuntimeError("no luck")
        recognizer.loss(batch.waveforms, batch.lengths, targets, seeds=seeds)
        mask = torch.arange(batch.waveforms.shape[1]) < batch.lengths[:, None]
        waveforms = (batch.waveforms + self.amount * (mask | self.padding)).clamp(-1, 1)
        count = torch.arange(len(batch)) + 1
        return Perturbation(
            waveforms, count, 2 * count, tuple(Status.BROKEN_OFF if n == 2 else Status.ATTACKED for n in count.tolist())
        )


def run(attack: Attack, recognizer: Recognizer, batch: AudioBatch) -> AttackResult:
    return attack(recognizer, batch, seeds=seeds_of(batch))


@pytest.mark.parametrize(
    "attack",
    [Shift(Linf(0.005)), Shift(SNR(60.0)), Shift(Linf(0.1), amount=float("nan")), Shift(Unbounded(), padding=True)],
)
def test_an_attack_that_cheats_is_caught(attack: Attack) -> None:
    with pytest.raises(AssertionError, match=r"shift left its threat model .* on utterance-"):
        run(attack, Linear(torch.ones(500)), audio_batch(SIZES))


def test_only_the_cheated_utterance_is_named() -> None:
    batch = audio_batch(SIZES)
    batch.waveforms[0] *= 10
    with pytest.raises(AssertionError) as error:
        run(
            Shift(SNR(15.0), amount=0.1),
            Linear(torch.ones(500)),
            audio_batch(SIZES).replace(batch.waveforms.clamp(-1, 1)),
        )
    assert "utterance-0" not in str(error.value) and "utterance-1" in str(error.value)


def test_result_is_measured_on_what_is_returned() -> None:
    batch, recognizer = audio_batch(SIZES), Linear(torch.ones(500), level=4.0)
    result = run(Shift(Linf(0.02)), recognizer, batch)
    assert result.size.tolist() == pytest.approx([0.01] * 3, abs=1e-7)
    expected = [float(result.batch.waveforms[row, :length].sum()) for row, length in enumerate(SIZES)]
    assert result.loss.tolist() == pytest.approx(expected, abs=1e-4)
    assert result.hypotheses == tuple("HIGH" if loss > 4 else "LOW" for loss in expected)
    assert result.success.tolist() == [text != "LOW" for text in result.hypotheses]
    assert result.texts == batch.texts and result.batch.texts == batch.texts and result.batch.ids == batch.ids
    assert not result.targeted and run(Shift(Linf(0.02), goal=Target()), recognizer, batch).texts == ("NO",) * 3
    assert result.iterations.tolist() == [1, 2, 3] and result.forwards.tolist() == [2, 4, 6]
    assert result.notes == ("", STOPPED, "")
    assert result.status == (Status.ATTACKED, Status.BROKEN_OFF, Status.ATTACKED)


def test_verdict_is_on_draws_that_the_attack_never_saw() -> None:
    seen: list[list[int]] = []

    class Listening(Linear):
        def value(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
            seen.append(seeds.tolist())
            return super().value(waveforms, lengths, seeds)

    run(
        PaperPGD(Linf(0.01), num_draws=3, random_start=True, num_restarts=2),
        Listening(torch.ones(500)),
        audio_batch(SIZES),
    )
    *attack, judged, heard = seen
    assert heard == judged and not {seed for seeds in attack for seed in seeds} & set(judged)


def broken_batch() -> AudioBatch:
    batch = audio_batch((500, 400, 300, 200, 100, 50))
    batch.waveforms[1, 3] = torch.nan
    batch.waveforms[2, 3] = 1.5
    batch.waveforms[3] = 0
    batch.lengths[4], batch.waveforms[4] = 0, 0
    return batch


@pytest.mark.parametrize("text", ["", " "])
def test_a_reference_without_words_cannot_be_missed(text: str) -> None:
    batch, recognizer = replace(audio_batch((500, 400)), texts=("GO", text)), Linear(torch.ones(500))
    result = run(PaperPGD(Linf(0.01)), recognizer, batch)
    assert [given is Status.REFUSED for given in result.status] == [False, True]
    assert "nothing to be wrong about" in result.notes[1]


def test_what_cannot_be_attacked_is_returned_with_a_note() -> None:
    batch, recognizer = broken_batch(), Linear(torch.ones(500))
    result = run(PaperPGD(SNR(20.0)), recognizer, batch)
    for row, word in enumerate(["", "not finite", "leaves [-1, 1]", "silent", "no audio", ""]):
        assert (word in result.notes[row]) if word else not result.notes[row]
        untouched = torch.equal(result.batch.waveforms[row].nan_to_num(9), batch.waveforms[row].nan_to_num(9))
        assert untouched == bool(word)
    assert result.iterations.tolist() == [7, 0, 0, 0, 0, 7]
    assert [what is Status.REFUSED for what in result.status] == [False, True, True, True, True, False]
    assert result.loss.isnan().tolist() == [False, True, False, False, True, False]
    alone = run(PaperPGD(SNR(20.0)), recognizer, audio_batch((500, 400, 300, 200, 100, 50)).select([5]))
    torch.testing.assert_close(result.batch.waveforms[5, :50], alone.batch.waveforms[0], rtol=0, atol=1e-6)


def test_dirty_padding_is_refused() -> None:
    batch = audio_batch(SIZES)
    batch.waveforms[1, 400] = 0.1
    assert "padding" in run(PaperPGD(Linf(0.01)), Linear(torch.ones(500)), batch).notes[1]


def test_texts_that_do_not_fit_are_named() -> None:
    """Defect 15 of other systems: an infeasible CTC target has no gradient, and the attack silently does nothing."""
    recognizer = trained("toy_ctc")
    batch = AudioBatch(audio(LENGTHS), LENGTHS, ("HELLO YOU", "Ω", "MUCH TOO LONG"), ("a", "b", "c"))
    result = run(PaperPGD(Linf(0.01)), recognizer, batch)
    assert not result.notes[0] and "Ω" in result.notes[1] and "does not fit into 700 samples" in result.notes[2]
    assert torch.equal(result.batch.waveforms[1:], batch.waveforms[1:])
    assert not torch.equal(result.batch.waveforms[0], batch.waveforms[0])
    assert result.loss.isfinite().tolist() == [True, False, False] and result.loss[1].isnan()
    # A target that fits everywhere, whatever the references are; and noise, which asks for no text.
    assert run(Shift(Linf(0.1), goal=Target("A")), recognizer, batch).notes == ("", STOPPED, "")
    assert run(MatchedNoise(Linf(0.1)), recognizer, batch).notes == ("", "", "")


def test_a_model_that_minds_padding_is_attacked_in_equal_lengths() -> None:
    class Minding(Linear):
        padding_invariant = False

        def loss(self, waveforms: Tensor, lengths: Tensor, targets: Targets, *, seeds: Tensor | None = None) -> Tensor:
            assert (lengths == waveforms.shape[1]).all()
            return super().loss(waveforms, lengths, targets, seeds=seeds)

    batch = audio_batch((300, 500, 300, 1))
    found = run(
        PaperPGD(Linf(0.01), keep="value", stop_on_success=True, check_every=3),
        Minding(torch.ones(500), level=5.0),
        batch,
    )
    plain = run(
        PaperPGD(Linf(0.01), keep="value", stop_on_success=True, check_every=3),
        Linear(torch.ones(500), level=5.0),
        batch,
    )
    assert torch.equal(found.batch.waveforms, plain.batch.waveforms) and found.hypotheses == plain.hypotheses
    assert torch.equal(found.forwards, plain.forwards)


def test_knowledge_chooses_what_is_attacked_and_not_who_judges() -> None:
    class Defended(Oracle):
        def __init__(self) -> None:
            super().__init__()
            self.known, self.asked = Linear(-torch.ones(500)), []

        def view(self, knowledge: str) -> Recognizer:
            self.asked.append(knowledge)
            return self.known if knowledge == "unaware" else self

        def value(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
            return waveforms.sum(1)

    recognizer, batch = Defended(), audio_batch(SIZES)
    before = batch.waveforms.sum(1)
    losses = {}
    for knowledge in ("exact", "unaware"):
        losses[knowledge] = run(PaperPGD(Linf(0.01), knowledge=knowledge), recognizer, batch).loss
    assert recognizer.asked == ["exact", "unaware"]
    assert (losses["exact"] > before).all() and (losses["unaware"] < before).all()


def test_model_is_restored_after_a_failure() -> None:
    recognizer = trained("toy_ctc").train()
    batch = AudioBatch(audio(LENGTHS), LENGTHS, TEXTS, ("a", "b", "c"))
    before = snapshot(recognizer)
    with pytest.raises(RuntimeError, match="no luck"):
        run(Shift(Unbounded(), fails=True), recognizer, batch)
    assert_unchanged(before, recognizer)


def test_generate_is_the_attack_without_the_verdict() -> None:
    batch, recognizer = broken_batch(), Linear(torch.ones(500))
    attack = PaperPGD(SNR(20.0), random_start=True)
    result = run(attack, recognizer, batch)
    passes = len(recognizer.rows)
    found = attack.generate(recognizer, batch, seeds=seeds_of(batch))
    assert torch.equal(found.waveforms.nan_to_num(9), result.batch.waveforms.nan_to_num(9))
    assert found.notes == result.notes and torch.equal(found.iterations, result.iterations)
    assert len(recognizer.rows) - passes == passes - 1
    with pytest.raises(AssertionError, match="left its threat model"):
        Shift(Linf(0.001)).generate(recognizer, batch, seeds=seeds_of(batch))


def test_nothing_to_attack() -> None:
    batch = audio_batch(SIZES)
    silent = batch.replace(torch.zeros_like(batch.waveforms))
    result = run(PaperPGD(SNR(20.0)), Linear(torch.ones(500)), silent)
    assert all(result.notes) and torch.equal(result.batch.waveforms, silent.waveforms)
    assert result.size.isnan().all()


def test_the_batch_that_came_is_left_alone() -> None:
    batch = audio_batch(SIZES)
    before = batch.waveforms.clone()
    run(PaperPGD(Linf(0.1), random_start=True, num_restarts=2, keep="value"), Linear(torch.ones(500)), batch)
    assert torch.equal(batch.waveforms, before) and not batch.waveforms.requires_grad


def test_a_subclass_must_say_what_it_does() -> None:
    class Silent(Attack):
        threat = Unbounded()

    with pytest.raises(TypeError, match="abstract"):
        Silent()  # type: ignore[abstract]


def test_audio_that_was_never_heard_is_no_success() -> None:
    batch = audio_batch(SIZES)
    batch.waveforms[1, 3] = float("nan")
    result = run(Shift(Unbounded()), Deaf(torch.ones(500)), batch)
    assert result.success.tolist() == [True, False, True] and result.notes[1] == "not attacked: its audio is not finite"


def test_scores_that_are_not_finite_are_no_success() -> None:
    result = run(Shift(Unbounded()), Confused(torch.ones(500)), audio_batch(SIZES))
    assert result.success.tolist() == [False, True, True]
    assert result.status[0] is Status.BROKEN_OFF
    assert result.notes[0] == "the recogniser's scores of its audio are not finite"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"waveforms": np.zeros((3, 500), np.float32)}, "waveforms must be a tensor, found ndarray"),
        ({"lengths": list(SIZES)}, "lengths must be a tensor, found list"),
        ({"lengths": torch.tensor(SIZES).float()}, r"lengths must be 3 integers.*found float32 of shape \(3,\)"),
        ({"lengths": torch.tensor(SIZES)[:, None]}, r"lengths must be 3 integers.*found int64 of shape \(3, 1\)"),
        (
            {"waveforms": torch.zeros(3, 1, 500)},
            r"waveforms must be of shape \(utterances, samples\), found \(3, 1, 500\)",
        ),
        (
            {"waveforms": torch.zeros(3, 500, dtype=torch.int16)},
            r"waveforms must be float32 .* found int16; .* / 32768",
        ),
        ({"waveforms": torch.zeros(3, 500).half()}, "waveforms must be float32 .* found float16"),
        ({"waveforms": torch.zeros(3, 500).double()}, "waveforms are float64, the recogniser computes in float32"),
    ],
)
def test_a_batch_that_is_no_batch_is_named(changes: dict, message: str) -> None:
    recognizer = Linear(torch.ones(500))
    recognizer.scale = torch.nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match=message):
        run(PaperPGD(Linf(0.01)), recognizer, replace(audio_batch(SIZES), **changes))


class Deaf(Linear):
    def transcribe(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> list[Transcript]:
        return [Transcript("")] * len(waveforms)


class Confused(Deaf):
    """Its loss of the longest utterance is nan."""

    def value(self, waveforms: Tensor, lengths: Tensor, seeds: Tensor | None) -> Tensor:
        return super().value(waveforms, lengths, seeds).where(lengths < SIZES[0], torch.nan)
