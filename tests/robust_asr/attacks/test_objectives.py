"""Objectives: closed forms, finite differences, independence of the batch, and what they cost."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from robust_asr.attacks.aims import Aim, hinge_margins
from robust_asr.attacks.goals import Untargeted
from robust_asr.attacks.objectives import (
    LOSS_AND_FRAMES,
    LOSS_AND_TOKENS,
    FrameMargin,
    Insertions,
    Loss,
    Mixture,
    Objective,
    TokenMargin,
    Usual,
    strongest,
)
from robust_asr.attacks.pgd import PGD
from robust_asr.attacks.steps import Cosine
from robust_asr.defenses.base import Defended
from robust_asr.defenses.noise import GaussianNoise
from robust_asr.models.base import Recognizer
from robust_asr.search.beam import BeamSearch
from robust_asr.storage.describe import describe
from robust_asr.threat import Linf
from robust_asr.types import AudioBatch
from tests.listeners import four_words
from tests.robust_asr.attacks.oracles import Target, attacked, audio_batch, seeds_of, spoken, weights
from tests.robust_asr.attacks.wrappers import FRAME, Frames, Tokens, Wrapped
from tests.robust_asr.defenses.parts import Bend, Ear
from tests.robust_asr.test_contract import LENGTHS, RECOGNIZERS, TEXTS, audio, trained

OBJECTIVES = [Loss(), FrameMargin(), Insertions(), Mixture((Loss(), FrameMargin()))]
TOKEN_OBJECTIVES = [TokenMargin(), LOSS_AND_TOKENS]
# Each with a recogniser that it serves.
SERVED = [("toy_ctc", one) for one in OBJECTIVES] + [("toy_attention", one) for one in TOKEN_OBJECTIVES]
each_served = pytest.mark.parametrize(
    "name, objective", SERVED, ids=lambda one: one if isinstance(one, str) else one.name or "loss"
)
each_objective = pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.name or "loss")


def given(size: int | None = None) -> AudioBatch:
    return AudioBatch(audio(LENGTHS, size=size), LENGTHS, TEXTS, ("one", "two", "three"))


def aim_of(objective: Objective, recognizer: Recognizer, batch: AudioBatch) -> Aim:
    targets = recognizer.targets(batch.texts)
    return objective.aim(recognizer, batch, targets, Untargeted(), seeds=seeds_of(batch))


def values(objective: Objective, recognizer: Recognizer, batch: AudioBatch) -> Tensor:
    aim = aim_of(objective, recognizer, batch)
    return aim.values(recognizer, batch.waveforms, batch.lengths, seeds=seeds_of(batch))


@pytest.mark.parametrize("eps", [0.001, 0.01, 0.05])
def test_the_margin_attack_reaches_the_optimum_of_a_linear_classifier(eps: float) -> None:
    """At most, a frame's margin grows by eps ||w||_1, and it counts up to one nat."""
    batch, recognizer = audio_batch((200, 130, 20), level=0.2), Frames(weights(FRAME))
    attack = PGD(Linf(eps), objective=FrameMargin(), num_iterations=30, keep="last")
    found = attacked(attack, recognizer, batch)
    for row, length in enumerate(batch.lengths.tolist()):
        before, after = (recognizer.margins(audio[row : row + 1, :length])[0] for audio in (batch.waveforms, found))
        lost, lost_after = -before.abs(), -before.sign() * after
        best = (lost + eps * float(weights(FRAME).norm(1))).clamp(max=1.0)
        torch.testing.assert_close(lost_after.clamp(max=1.0), best, rtol=0, atol=1e-4)


@pytest.mark.parametrize("eps", [0.001, 0.01, 0.05])
def test_the_token_margin_attack_reaches_the_optimum_of_a_linear_classifier(eps: float) -> None:
    """The same over tokens: what a token's margin can grow by does not depend on the others."""
    batch, recognizer = letters_batch(), Tokens(weights(FRAME))
    attack = PGD(Linf(eps), objective=TokenMargin(), num_iterations=30, keep="last")
    found = attacked(attack, recognizer, batch)
    for row, length in enumerate(batch.lengths.tolist()):
        ends = (audio[row : row + 1, :length] for audio in (batch.waveforms, found))
        before, after = (recognizer.encode(one, torch.tensor([length]))[0][0, :, 0] for one in ends)
        best = (-before.abs() + eps * float(weights(FRAME).norm(1))).clamp(max=1.0)
        torch.testing.assert_close((-before.sign() * after).clamp(max=1.0), best, rtol=0, atol=1e-4)


def letters_batch() -> AudioBatch:
    """What ``Tokens`` hears; the references play no role."""
    batch = audio_batch((200, 130, 20), level=0.2)
    return replace(batch, texts=("A", "B", "AB"))


def test_a_token_that_the_search_never_writes_is_lost_and_pulls_no_more() -> None:
    scores = torch.tensor([[[0.0, 3.0, -torch.inf], [2.0, 1.5, -torch.inf], [5.0, 0.0, 0.0]]], requires_grad=True)
    labels = torch.tensor([[2, 0, 1]])
    value = hinge_margins(scores, labels, torch.tensor([2]))
    # A nat for the first, minus half a nat for the second; the third is padding.
    assert value.tolist() == [1.0 - 0.5]
    (gradient,) = torch.autograd.grad(value.sum(), scores)
    assert gradient.tolist() == [[[0.0, 0.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]]


def test_nothing_heard_is_attacked_until_something_is() -> None:
    """The margin of the end of the text alone: it rises, so some token comes nearer."""
    recognizer, batch = trained("toy_attention"), given()
    recognizer.head.bias.data[0] = 4.0
    assert recognizer.transcribe(batch.waveforms, batch.lengths)[0].text == ""
    aim = aim_of(TokenMargin(), recognizer, batch)
    assert aim.targets.token_lengths.tolist() == [0, 0, 0]
    found = PGD(Linf(0.1), objective=TokenMargin(), num_iterations=10)(recognizer, batch, seeds=seeds_of(batch))
    before, after = (
        aim.values(recognizer, one.waveforms, one.lengths, seeds=seeds_of(batch)) for one in (batch, found.batch)
    )
    assert bool((after > before).all())


def test_the_usual_objective_is_what_serves_the_recogniser() -> None:
    for system, expected in (
        (four_words(), LOSS_AND_FRAMES),
        (Defended(Bend(), four_words()), LOSS_AND_FRAMES),
        (Frames(weights(FRAME)), LOSS_AND_FRAMES),
        (trained("toy_attention"), LOSS_AND_TOKENS),
        (Defended(Bend(), trained("toy_attention")), LOSS_AND_TOKENS),
        (Wrapped(trained("toy_attention")), Loss()),
        (trained("toy_transducer"), Loss()),
        (Ear(), Loss()),
    ):
        assert Usual().of(system) == expected
        assert Usual().passes_to_aim(system) == expected.passes_to_aim(system)
    batch = given()
    for name in ("toy_ctc", "toy_attention", "toy_transducer"):
        recognizer = trained(name)
        spelled = PGD(Linf(0.01), objective=Usual().of(recognizer), num_iterations=3)
        found, expected = (
            attack.generate(recognizer, batch, seeds=seeds_of(batch))
            for attack in (PGD(Linf(0.01), num_iterations=3), spelled)
        )
        assert torch.equal(found.waveforms, expected.waveforms) and torch.equal(found.forwards, expected.forwards)
    # Rows from before the class are those of this description.
    assert describe(PGD(Linf(0.01))) == describe(PGD(Linf(0.01), objective=LOSS_AND_FRAMES))
    assert PGD(Linf(0.01)).name == "PGD-50 loss+margin cosine"
    assert PGD(Linf(0.01), goal=Target()).objective == Loss()


@each_served
def test_gradients_are_finite_differences(name: str, objective: Objective) -> None:
    recognizer, batch = trained(name).double(), given()
    batch = batch.replace(batch.waveforms.double())
    aim = aim_of(objective, recognizer, batch)

    def value(waveforms: Tensor) -> Tensor:
        return aim.values(recognizer, waveforms, batch.lengths, seeds=seeds_of(batch))

    waveforms = batch.waveforms.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(waveforms).sum(), waveforms)
    direction = torch.randn(waveforms.shape, generator=torch.Generator().manual_seed(1)).double() * 1e-6
    with torch.no_grad():
        measured = (value(waveforms + direction) - value(waveforms - direction)) / 2
    torch.testing.assert_close((gradient * direction).sum(1), measured, rtol=1e-4, atol=1e-10)
    assert bool((measured != 0).all())


@each_objective
def test_gradients_through_a_defence_are_finite_differences(objective: Objective) -> None:
    test_gradients_are_finite_differences("defended", objective)


@each_served
@pytest.mark.parametrize("noise", [False, True], ids=["plain", "noise"])
def test_a_value_does_not_depend_on_the_batch(name: str, objective: Objective, noise: bool) -> None:
    recognizer = Defended(GaussianNoise(0.01), trained(name)) if noise else trained(name)
    together = values(objective, recognizer, given())
    torch.testing.assert_close(values(objective, recognizer, given(9000)), together, rtol=0, atol=1e-4)
    for row in range(3):
        alone = values(objective, recognizer, given().select([row]))
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-4)
    backwards = values(objective, recognizer, given().select([2, 1, 0]))
    torch.testing.assert_close(backwards.flip(0), together, rtol=0, atol=1e-4)


@each_served
def test_aims_are_selected_and_repeated_as_targets_are(name: str, objective: Objective) -> None:
    recognizer, batch = trained(name), given()
    aim, whole = aim_of(objective, recognizer, batch), values(objective, recognizer, batch)
    for rows in ([0, 1, 2], [2, 1], [1], [2, 2, 0]):
        part, chosen = batch.select(rows), aim.select(torch.tensor(rows))
        assert len(chosen) == len(rows)
        # Twice each, next to each other, and then some of them, whose padding is shorter.
        repeated = chosen.repeat(2)
        assert len(repeated) == 2 * len(rows)
        twice = part.select([row for row in range(len(rows)) for _ in range(2)])
        for one, of in ((chosen, part), (repeated, twice), (repeated.select(torch.tensor([1])), twice.select([1]))):
            found = one.values(recognizer, of.waveforms, of.lengths, seeds=seeds_of(of))
            expected = whole[[batch.ids.index(name) for name in of.ids]]
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_utterances_that_leave_change_nothing_for_the_others() -> None:
    batch, recognizer = audio_batch((200, 130, 60, 20), level=0.2), Frames(weights(FRAME))
    plain = PGD(Linf(0.05), objective=FrameMargin(), num_iterations=12, keep="last", steps=Cosine(0.1))
    # Between what the attack attains: two succeed before its end.
    sums = recognizer.value(attacked(plain, recognizer, batch), batch.lengths, None)
    recognizer.level = float(sums.sort().values[1:3].mean())
    found = replace(plain, stop_on_success=True, check_every=2)(recognizer, batch, seeds=seeds_of(batch))
    stayed = (found.iterations == 12).nonzero()[:, 0].tolist()
    assert 0 < len(stayed) < 4
    for row in stayed:
        alone = attacked(plain, recognizer, batch.select([row]))[0]
        torch.testing.assert_close(found.batch.waveforms[row, : len(alone)], alone, rtol=0, atol=1e-7)


@each_objective
@pytest.mark.parametrize("noise", [False, True], ids=["plain", "noise"])
@pytest.mark.parametrize("keep", ["last", "damage"])
def test_one_pass_an_iteration_whatever_the_objective(objective: Objective, noise: bool, keep: str) -> None:
    recognizer, batch, rows = four_words(), spoken(2), []
    system = Defended(GaussianNoise(0.001), recognizer) if noise else recognizer
    attack = PGD(Linf(0.001), objective=objective, num_iterations=4, keep=keep, check_every=2, comparison_draws=3)
    handle = recognizer.front_end.register_forward_hook(lambda _, __, found: rows.append(len(found[0])))
    try:
        generated = attack.generate(system, batch, seeds=seeds_of(batch))
    finally:
        handle.remove()
    labels = (8 if noise else 1) * any(
        isinstance(one, FrameMargin) for one in (objective, *getattr(objective, "parts", ()))
    )
    compared = 2 * (3 if noise else 1) * (keep == "damage")
    assert generated.forwards.tolist() == [4 + labels + compared] * 2
    assert sum(rows) == 2 * (4 + labels + compared)


@pytest.mark.parametrize("objective", TOKEN_OBJECTIVES, ids=lambda objective: objective.name)
def test_one_encoder_pass_an_iteration_of_a_decoder(objective: Objective) -> None:
    recognizer, batch = Tokens(weights(FRAME)), letters_batch()
    attack = PGD(Linf(0.001), objective=objective, num_iterations=4, keep="last")
    generated = attack.generate(recognizer, batch, seeds=seeds_of(batch))
    # One transcript beside the iterations.
    assert generated.forwards.tolist() == [5] * 3 and sum(recognizer.rows) == 15


def test_a_mixture_without_an_encoder_says_what_it_costs() -> None:
    batch, recognizer = audio_batch((200, 130), level=0.2), Frames(weights(FRAME))
    attack = PGD(Linf(0.01), objective=Mixture((Loss(), FrameMargin())), num_iterations=3, keep="last")
    generated = attack.generate(recognizer, batch, seeds=seeds_of(batch))
    assert sum(recognizer.rows) == int(generated.forwards.sum()) == 2 * (3 * 2 + 1)


def test_a_wrapper_without_hidden_units_is_attacked_on_its_loss() -> None:
    batch, inside = spoken(2), four_words()
    attack = PGD(Linf(0.001), objective=Loss(), num_iterations=4, check_every=2)
    found, expected = (attack.generate(system, batch, seeds=seeds_of(batch)) for system in (Wrapped(inside), inside))
    assert torch.equal(found.waveforms, expected.waveforms)
    # A look costs a pass for the loss and one for the transcript.
    assert found.forwards.tolist() == [4 + 2 * 2] * 2 and expected.forwards.tolist() == [4 + 2] * 2
    for system in (Wrapped(inside), Defended(Bend(), Wrapped(inside))):
        assert strongest(system, Untargeted()) == [Loss(), Insertions()]
        with pytest.raises(
            ValueError, match="FrameMargin needs scores of labels in every frame, which Wrapped does not"
        ):
            replace(attack, objective=FrameMargin()).generate(system, batch, seeds=seeds_of(batch))


def test_the_strongest_for_each_kind_of_recogniser() -> None:
    margin = Mixture((Loss(), FrameMargin()))
    assert strongest(four_words(), Untargeted()) == [Loss(), Insertions(), margin]
    assert strongest(Defended(Bend(), four_words()), Untargeted()) == [Loss(), Insertions(), margin]
    # Two parts of a mixture would cost two passes without an encoder.
    assert FrameMargin() in strongest(Frames(weights(FRAME)), Untargeted())
    assert strongest(trained("toy_attention"), Untargeted()) == [Loss(), LOSS_AND_TOKENS]
    assert strongest(Wrapped(trained("toy_attention")), Untargeted()) == [Loss()]
    assert strongest(trained("toy_transducer"), Untargeted()) == [Loss(), Insertions()]
    assert strongest(four_words(), Target()) == [Loss()]


def test_insertions_are_short_words_that_fit() -> None:
    recognizer, batch = trained("toy_ctc"), given()
    aim = aim_of(Insertions(), recognizer, batch)
    texts = [
        recognizer.tokenizer.decode(row[:num])
        for row, num in zip(aim.targets.tokens.tolist(), aim.targets.token_lengths, strict=True)
    ]
    assert texts[0].split()[:6] == ["A", "O", "E", "I", "A", "O"]
    for text, length in zip(texts, LENGTHS.tolist(), strict=True):
        assert set(text.split()) <= {"A", "O", "E", "I"}
        four_fifths = torch.tensor([int(0.8 * length)])
        more = f"{text} {'AOEI'[len(text.split()) % 4]}"
        assert recognizer.feasible(four_fifths, recognizer.targets([text])).all()
        assert not recognizer.feasible(four_fifths, recognizer.targets([more])).any()
    recognizer.use_search(BeamSearch(lexicon=["HELLO", "YOU", "BE", "A", "SEEN", "ALL", "BEEN"], beam_size=2))
    aim = aim_of(Insertions(), recognizer, batch.select([0]))
    assert recognizer.tokenizer.decode(aim.targets.tokens[0].tolist()).split()[:6] == [
        "A",
        "BE",
        "ALL",
        "YOU",
        "BEEN",
        "A",
    ]


@pytest.mark.parametrize(
    "name", [name for name in RECOGNIZERS if name not in ("toy_attention", "rnnt", "transformer", "whisper")]
)
def test_insertions_for_every_recogniser_and_every_length(name: str) -> None:
    """An utterance of one frame holds no word, and of a recogniser that writes any text the text still ends."""
    recognizer, lengths = trained(name), torch.tensor([32_000, 700, 1])
    batch = AudioBatch(audio(lengths), lengths, ("HELLO YOU", "I", ""), ("one", "two", "three"))
    aim = aim_of(Insertions(), recognizer, batch)
    assert bool(recognizer.feasible(lengths, aim.targets).all())
    assert bool(aim.values(recognizer, batch.waveforms, lengths, seeds=seeds_of(batch)).isfinite().all())


def test_an_objective_that_cannot_be_served_is_one_sentence() -> None:
    batch = AudioBatch(audio(LENGTHS), LENGTHS, TEXTS, ("one", "two", "three"))
    with pytest.raises(
        ValueError, match="objective: FrameMargin needs scores of labels in every frame, which Ear does not"
    ):
        PGD(Linf(0.01), objective=FrameMargin()).generate(Ear(), batch, seeds=seeds_of(batch))
    with pytest.raises(ValueError, match=r"FrameMargin needs .*, which Ear does not"):
        PGD(Linf(0.01), objective=FrameMargin()).generate(Defended(Bend(), Ear()), batch, seeds=seeds_of(batch))
    for system in (Ear(), trained("toy_ctc"), Wrapped(trained("toy_attention")), Defended(Bend(), Ear())):
        with pytest.raises(ValueError, match="objective: TokenMargin needs a decoder that scores the tokens of a text"):
            PGD(Linf(0.01), objective=TokenMargin()).generate(system, batch, seeds=seeds_of(batch))
    with pytest.raises(ValueError, match=r"Insertions fills the frames .* ToyAttention writes tokens"):
        PGD(Linf(0.01), objective=Insertions()).generate(trained("toy_attention"), batch, seeds=seeds_of(batch))
    for objective in (FrameMargin(), TokenMargin(), Insertions(), Mixture((Loss(), FrameMargin()))):
        kind = type(objective).__name__
        with pytest.raises(ValueError, match=f"{kind} leads away from a text, the goal is targeted: use Loss"):
            PGD(Linf(0.01), goal=Target(), objective=objective)
    for parts in ((), "Loss", ["Loss"], [Loss]):
        with pytest.raises(
            ValueError, match=r"objective: Mixture needs objectives such as Loss and FrameMargin, found"
        ):
            Mixture(parts)

    class Digits(Ear):
        def unwritable(self, text: str) -> list[str]:
            return [text]

    with pytest.raises(ValueError, match="Insertions needs words"):
        PGD(Linf(0.01), objective=Insertions()).generate(Digits(), batch, seeds=seeds_of(batch))
    assert strongest(Digits(), Untargeted()) == [Loss()]
