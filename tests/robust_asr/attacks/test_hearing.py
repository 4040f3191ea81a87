"""One pass for loss and transcript gives what two passes give."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robust_asr.attacks.compaction import Workload
from robust_asr.attacks.cw import CarliniWagner
from robust_asr.attacks.hearing import Hearing, SharedPass, answers_from_emissions
from robust_asr.defenses.base import Defended, Defense
from robust_asr.masking import masked
from robust_asr.models.base import Recognizer
from robust_asr.models.compact import CompactCTC
from robust_asr.randomness import keyed_normal
from robust_asr.types import Transcript
from tests.listeners import SIZES, four_words
from tests.robust_asr.attacks.oracles import Target, seeds_of, spoken
from tests.robust_asr.attacks.victims import workload
from tests.toys import ToyAttention, ToyCTC, ToyTransducer


class Hiss(Defense):
    name = "hiss"
    stochastic = True

    def forward(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return waveforms + 0.02 * keyed_normal(seeds, lengths, waveforms.shape[1]), lengths


class Counting(CompactCTC):
    """Counts the utterances that its encoder sees."""

    def encode(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.rows = getattr(self, "rows", 0) + len(waveforms)
        return super().encode(waveforms, lengths, seeds=seeds)


class OwnLoss(ToyCTC):
    def loss(self, *arguments: object, **keywords: object) -> Tensor:
        return super().loss(*arguments, **keywords)


class OwnSearch(Defended):
    def transcribe(self, *arguments: object, **keywords: object) -> list[Transcript]:
        return super().transcribe(*arguments, **keywords)


def counting() -> Counting:
    recognizer = Counting(**SIZES["four_words"])
    recognizer.load_state_dict(four_words().state_dict())
    return recognizer.eval()


def together(recognizer: Recognizer, **draws: int) -> tuple[Hearing, Workload]:
    work = workload(recognizer, spoken(4), Target(spoken(4).texts[0]))
    return Hearing(recognizer, work, **draws), work


def test_who_answers_from_emissions() -> None:
    for recognizer in (
        ToyCTC(),
        CompactCTC(),
        Defended(Hiss(), ToyCTC()),
        Defended(Hiss(), Defended(Hiss(), ToyCTC())),
    ):
        assert answers_from_emissions(recognizer)
    for recognizer in (
        ToyAttention(),
        ToyTransducer(),
        OwnLoss(),
        Defended(Hiss(), OwnLoss()),
        OwnSearch(Hiss(), ToyCTC()),
    ):
        assert not answers_from_emissions(recognizer)
    patched = ToyCTC()
    patched.transcribe = ToyCTC().transcribe
    assert not answers_from_emissions(patched)


@pytest.mark.parametrize("defended", [False, True])
@pytest.mark.parametrize(("num_draws", "max_samples"), [(1, None), (3, None), (3, 30_000), (3, 10**7)])
def test_the_shared_pass_answers_what_the_recogniser_answers(
    defended: bool, num_draws: int, max_samples: int | None
) -> None:
    recognizer = Defended(Hiss(), four_words()) if defended else four_words()
    hearing, work = together(recognizer, num_draws=num_draws, success_draws=num_draws, max_samples=max_samples)
    assert hearing.check_forwards == 0
    for step in (0, 7):
        shared = hearing.gradient(work.batch.waveforms, step=step, check=True)
        hits = hearing.hits(work.batch.waveforms, Target(work.texts[0]), step=step)
        for found, expected in zip(shared, hearing.gradient(work.batch.waveforms, step=step, check=False), strict=True):
            assert torch.equal(found, expected)
        separate = Hearing(OwnTwin(recognizer), work, num_draws=num_draws, success_draws=num_draws)
        assert separate.check_forwards == num_draws
        assert torch.equal(hits, separate.hits(work.batch.waveforms, Target(work.texts[0]), step=step))
    assert hits[0] > 0 and (hits == 0).any()


class OwnTwin(nn.Module):
    """The same recogniser behind a face that hides its emissions."""

    def __init__(self, recognizer: Recognizer) -> None:
        super().__init__()
        self.loss, self.transcribe = recognizer.loss, recognizer.transcribe


def test_looking_costs_no_pass() -> None:
    recognizer, batch = counting(), spoken(3)
    work = workload(recognizer, batch, Target())
    attack = CarliniWagner(Target(), num_iterations=6, check_every=2)
    state = attack.shrink(recognizer, work)
    assert recognizer.rows == 3 * 7 and state.forwards.tolist() == [7] * 3
    apart = OwnTwin(recognizer)
    again = attack.shrink(apart, work)
    assert recognizer.rows == 3 * 7 + 3 * 11 and again.forwards.tolist() == [11] * 3
    assert torch.equal(state.delta, again.delta) and torch.equal(state.best, again.best)


def test_more_draws_of_success_than_of_the_gradient_make_their_own_passes() -> None:
    hearing, work = together(Defended(Hiss(), four_words()), num_draws=1, success_draws=5)
    assert (hearing.forwards, hearing.check_forwards) == (1, 5)
    hearing.gradient(work.batch.waveforms, step=3, check=True)
    hits = hearing.hits(work.batch.waveforms, Target(work.texts[0]), step=3)
    assert hits.shape == (4,) and bool(((hits * 5) % 1 == 0).all())


def test_a_deterministic_system_has_one_draw() -> None:
    class Quiet(Defense):
        name = "quiet"

        def forward(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
            return masked(waveforms / 2, lengths), lengths

    hearing, _ = together(Defended(Quiet(), four_words()), num_draws=16, success_draws=4)
    assert (hearing.forwards, hearing.check_forwards) == (1, 0)


def test_transcripts_are_taken_once() -> None:
    shared, batch = SharedPass(four_words()), spoken(2)
    targets = four_words().targets(batch.texts)
    loss = shared.loss(batch.waveforms, batch.lengths, targets, seeds=seeds_of(batch))
    assert torch.equal(loss, four_words().loss(batch.waveforms, batch.lengths, targets))
    heard = shared.transcribe(batch.waveforms, batch.lengths, seeds=seeds_of(batch))
    assert [one.text for one in heard] == list(batch.texts)
    with pytest.raises(IndexError):
        shared.transcribe(batch.waveforms, batch.lengths)
