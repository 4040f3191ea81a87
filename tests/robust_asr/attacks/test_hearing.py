"""One pass for loss and transcript gives what two passes give."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from robust_asr.attacks.cw import CarliniWagner
from robust_asr.attacks.hearing import Hearing
from robust_asr.attacks.verdict import judge
from robust_asr.defenses.base import Defended, Defense
from robust_asr.masking import masked
from robust_asr.models.base import Recognizer
from robust_asr.models.compact import CompactCTC
from robust_asr.randomness import keyed_normal
from robust_asr.storage.partial import Forgetful
from robust_asr.types import Targets, Transcript
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

    rows = 0

    def encode(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self.rows += len(waveforms)
        return super().encode(waveforms, lengths, seeds=seeds)


class TwoPasses(Recognizer):
    """The same recogniser, asked for loss and transcript one after the other."""

    def __init__(self, recognizer: Recognizer) -> None:
        super().__init__()
        self.recognizer = recognizer
        self.stochastic = recognizer.stochastic

    def targets(self, texts: Sequence[str]) -> Targets:
        return self.recognizer.targets(texts)

    def feasible(self, lengths: Tensor, targets: Targets) -> Tensor:
        return self.recognizer.feasible(lengths, targets)

    def loss(self, *given: Tensor, seeds: Tensor | None = None) -> Tensor:
        return self.recognizer.loss(*given, seeds=seeds)

    def transcribe(self, *given: Tensor, seeds: Tensor | None = None) -> list[Transcript]:
        return self.recognizer.transcribe(*given, seeds=seeds)


def counting() -> Counting:
    recognizer = Counting(**SIZES["four_words"])
    recognizer.load_state_dict(four_words().state_dict())
    return recognizer.eval()


def seeded(kind: Callable[[], Recognizer]) -> Recognizer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind().eval()


KINDS = {
    "CTC": four_words,
    "attention": lambda: seeded(ToyAttention),
    "transducer": lambda: seeded(ToyTransducer),
    "defended": lambda: Defended(Hiss(), four_words()),
    "defended twice": lambda: Defended(Hiss(), Defended(Hiss(), four_words())),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("num_draws", "max_samples"), [(1, None), (3, None), (3, 30_000), (3, 10**7)])
def test_one_pass_answers_what_two_answer(kind: str, num_draws: int, max_samples: int | None) -> None:
    recognizer = KINDS[kind]()
    goal = Target(spoken(4).texts[0])
    work = workload(recognizer, spoken(4), goal)
    draws = {"num_draws": num_draws, "success_draws": num_draws, "max_samples": max_samples}
    one, two = Hearing(recognizer, work, **draws), Hearing(TwoPasses(recognizer), work, **draws)
    drawn = num_draws if recognizer.stochastic else 1
    assert (one.check_forwards, two.check_forwards) == (0, drawn)
    for step in (0, 7):
        looks = [
            hearing.look(work.batch.waveforms, goal, step=step, gradient=True, check=True) for hearing in (one, two)
        ]
        unchecked = one.look(work.batch.waveforms, goal, step=step, gradient=True, check=False)
        assert unchecked.hits is None and looks[0].gradient.abs().sum() > 0
        assert torch.equal(looks[0].losses, looks[1].losses) and torch.equal(looks[0].losses, unchecked.losses)
        assert torch.equal(looks[0].gradient, looks[1].gradient)
        assert torch.equal(looks[0].gradient, unchecked.gradient)
        assert torch.equal(looks[0].hits, looks[1].hits)
    if kind == "CTC":
        assert looks[0].hits.tolist()[0] == 1 and bool((looks[0].hits == 0).any())


def test_looking_costs_no_pass() -> None:
    recognizer, batch = counting(), spoken(3)
    work = workload(recognizer, batch, Target())
    attack = CarliniWagner(Target(), num_iterations=6, check_every=2)
    state = attack.shrink(recognizer, work, Forgetful())
    assert recognizer.rows == 3 * 7 and state.forwards.tolist() == [7] * 3
    again = attack.shrink(TwoPasses(recognizer), work, Forgetful())
    assert recognizer.rows == 3 * 7 + 3 * 11 and again.forwards.tolist() == [11] * 3
    assert torch.equal(state.delta, again.delta) and torch.equal(state.best, again.best)


def test_the_verdict_costs_one_pass() -> None:
    recognizer, batch = counting(), spoken(3)
    said = judge(recognizer, batch, batch.texts, seeds=seeds_of(batch))
    assert recognizer.rows == 3
    assert tuple(transcript.text for transcript in said.transcripts) == batch.texts
    alone = recognizer.loss(batch.waveforms, batch.lengths, recognizer.targets(batch.texts)).detach()
    torch.testing.assert_close(said.losses, alone)


def test_a_text_that_cannot_be_written_is_heard_and_has_no_loss() -> None:
    recognizer, batch = counting(), spoken(3)
    said = judge(recognizer, batch, (batch.texts[0], "Ω", batch.texts[2]), seeds=seeds_of(batch))
    assert said.losses.isnan().tolist() == [False, True, False] and recognizer.rows == 3
    assert tuple(transcript.text for transcript in said.transcripts) == batch.texts
    assert said.heard.all() and said.scored.all()


def test_more_draws_of_success_than_of_the_gradient_make_their_own_passes() -> None:
    recognizer, goal = Defended(Hiss(), four_words()), Target(spoken(4).texts[0])
    work = workload(recognizer, spoken(4), goal)
    hearing = Hearing(recognizer, work, num_draws=1, success_draws=5)
    assert (hearing.forwards, hearing.check_forwards) == (1, 5)
    look = hearing.look(work.batch.waveforms, goal, step=3, gradient=True, check=True)
    assert look.hits.shape == (4,) and bool(((look.hits * 5) % 1 == 0).all())


def test_a_deterministic_system_has_one_draw() -> None:
    class Quiet(Defense):
        name = "quiet"

        def forward(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
            return masked(waveforms / 2, lengths), lengths

    recognizer = Defended(Quiet(), four_words())
    hearing = Hearing(recognizer, workload(recognizer, spoken(4), Target()), num_draws=16, success_draws=4)
    assert (hearing.forwards, hearing.check_forwards) == (1, 0)


@pytest.mark.parametrize("name", ["loss", "transcribe", "loss_and_transcripts"])
def test_nothing_can_go_past_the_one_pass(name: str) -> None:
    """An encoder whose loss were another than that of its hidden units would be attacked with the wrong one."""
    with pytest.raises(TypeError, match=f"Own defines {name}: an Encoded recogniser writes encode"):
        type("Own", (ToyCTC,), {name: lambda self: None})
