from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from robust_asr import checkpoint
from robust_asr.attacks.base import Attack, Perturbation
from robust_asr.attacks.goals import Goal, Untargeted
from robust_asr.defenses.base import Chain, Defended, DefendedFrames, Defense, StraightThrough
from robust_asr.defenses.noise import GaussianNoise
from robust_asr.gradients import frozen_for_attack, input_gradient
from robust_asr.masking import length_mask
from robust_asr.models.base import Encoded, FrameSynchronous, Recognizer
from robust_asr.randomness import derive, keyed_normal, utterance_seeds
from robust_asr.search.greedy import GreedySearch
from robust_asr.storage import trust
from robust_asr.storage.describe import describe
from robust_asr.threat import ThreatModel, Unbounded, inside_box
from robust_asr.types import AudioBatch, Emissions, Targets
from tests.robust_asr.defenses.parts import Bend, Ear, Gain, Halved, Steps
from tests.toys import ToyAttention, ToyCTC, ToyTransducer

LENGTHS = torch.tensor([4000, 2500, 700])
TEXTS = ("HELLO YOU", "A BE", "I")
IDS = ("a", "b", "c")
SEEDS = utterance_seeds(0, IDS)


def audio(size: int = 4000) -> Tensor:
    noise = torch.rand(3, 4000, generator=torch.Generator().manual_seed(0)) - 0.5
    return nn.functional.pad(noise * length_mask(LENGTHS, 4000), (0, size - 4000))


def batch() -> AudioBatch:
    return AudioBatch(audio(), LENGTHS, TEXTS, IDS)


@pytest.fixture(params=[ToyCTC, ToyAttention, ToyTransducer])
def toy(request: pytest.FixtureRequest) -> Recognizer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return request.param().eval()


def gradient(recognizer: Recognizer, waveforms: Tensor, *, seeds: Tensor | None = SEEDS) -> tuple[Tensor, Tensor]:
    targets = recognizer.targets(TEXTS)
    return input_gradient(lambda values: recognizer.loss(values, LENGTHS, targets, seeds=seeds), waveforms)


def test_views_have_the_gradients_of_the_calculus(toy: Recognizer) -> None:
    bend, waveforms = Bend(), audio()
    defended = Defended(bend, toy)
    bent, _ = bend(waveforms, LENGTHS)
    losses, upstream = gradient(toy, bent)
    for knowledge, expected in (("exact", upstream * bend.slope(waveforms)), ("straight_through", upstream)):
        found_losses, found = gradient(defended.view(knowledge), waveforms)
        assert torch.equal(found_losses, losses)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))
    for found, expected in zip(gradient(defended.view("unaware"), waveforms), gradient(toy, waveforms), strict=True):
        assert torch.equal(found, expected)


def test_what_is_heard_is_that_of_the_defended_audio(toy: Recognizer) -> None:
    bent, _ = Bend()(audio(), LENGTHS)
    defended = Defended(Bend(), toy)
    assert defended.transcribe(audio(), LENGTHS) == toy.transcribe(bent, LENGTHS)
    hidden, frame_lengths = defended.encode(audio(), LENGTHS)
    expected, expected_lengths = toy.encode(bent, LENGTHS)
    assert torch.equal(hidden, expected) and torch.equal(frame_lengths, expected_lengths)
    targets = toy.targets(TEXTS)
    losses = defended.loss_from_hidden(hidden, frame_lengths, targets)
    torch.testing.assert_close(losses, defended.loss(audio(), LENGTHS, targets))


def test_emissions_are_those_of_the_defended_audio() -> None:
    toy = ToyCTC().eval()
    bent, _ = Bend()(audio(), LENGTHS)
    found, expected = Defended(Bend(), toy).emissions(audio(), LENGTHS), toy.emissions(bent, LENGTHS)
    assert torch.equal(found.log_probs, expected.log_probs)


class FramesOnly(FrameSynchronous, Ear):
    def emissions(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> Emissions:
        return Emissions(waveforms[..., None], lengths)


@pytest.mark.parametrize("inner", [ToyCTC, ToyAttention, FramesOnly, Ear])
def test_it_is_what_the_recogniser_inside_is(inner: type[Recognizer]) -> None:
    defended = Defended(Bend(), inner())
    for kind in (FrameSynchronous, Encoded, Recognizer, Defended):
        assert isinstance(defended, kind) == (kind is Defended or issubclass(inner, kind))
    for name in ("emissions", "encode", "loss_from_hidden", "decoder", "frame_shift"):
        assert hasattr(defended, name) == hasattr(inner(), name), name
    nested = Defended(Steps(), defended)
    assert type(nested) is type(defended) is type(defended.view("straight_through"))


def test_a_subclass_stays_what_it_is() -> None:
    class Named(DefendedFrames):
        pass

    assert type(Named(Bend(), ToyCTC())) is Named


def test_decoder_tokenizer_and_audio_format_are_those_inside() -> None:
    toy = ToyCTC()
    toy.sample_rate = 8000
    defended = Defended(Bend(), toy)
    defended.decoder = decoder = GreedySearch()
    assert toy.decoder is decoder is defended.decoder and defended.tokenizer is toy.tokenizer
    assert defended.sample_rate == 8000 and defended.frame_shift == toy.frame_shift
    assert defended.padding_invariant and not Defended(Chain([Bend(), Halved()]), toy).padding_invariant
    toy.padding_invariant = False
    assert not defended.padding_invariant


def noisy_chain() -> Chain:
    return Chain([GaussianNoise(0.05), Gain(), GaussianNoise(0.1), Steps()])


@pytest.mark.parametrize("knowledge", ["exact", "straight_through"])
def test_an_utterance_does_not_depend_on_its_batch(toy: Recognizer, knowledge: str) -> None:
    """Peer defect 1, for a defended recogniser."""
    recognizer = Defended(noisy_chain(), toy).view(knowledge)
    targets = recognizer.targets(TEXTS)
    losses, slope = gradient(recognizer, audio(4500))
    assert bool((slope == 0)[~length_mask(LENGTHS, 4500)].all()) and bool((slope != 0).any(1).all())
    for row, length in enumerate(LENGTHS.tolist()):
        one = torch.tensor([row])

        def loss(values: Tensor, one: Tensor = one) -> Tensor:
            return recognizer.loss(values, LENGTHS[one], targets.select(one), seeds=SEEDS[one])

        alone, alone_slope = input_gradient(loss, audio()[one, :length])
        torch.testing.assert_close(alone[0], losses[row], rtol=0, atol=1e-4)
        bound = 1e-4 * float(alone_slope.abs().max())
        torch.testing.assert_close(alone_slope[0], slope[row, :length], rtol=1e-3, atol=bound)


@pytest.mark.parametrize("defense", [Bend(), Gain(), Chain([Gain(), Bend()]), noisy_chain()])
def test_padding_stays_zero_whatever_a_defence_writes_there(defense: Defense) -> None:
    ear = Ear()
    dirty = audio(4500) + torch.where(length_mask(LENGTHS, 4500), 0.0, torch.nan)
    Defended(defense, ear).loss(dirty, LENGTHS, ear.targets(TEXTS), seeds=SEEDS)
    ((heard, _, _),) = ear.heard
    assert bool((heard == 0)[~length_mask(LENGTHS, 4500)].all()) and heard.isfinite().all()


def test_a_defence_in_a_chain_meets_clean_padding() -> None:
    class Smear(Bend):
        def forward(self, waveforms: Tensor, lengths: Tensor, *, seeds: Tensor | None = None) -> tuple[Tensor, Tensor]:
            return waveforms + waveforms.roll(-1, 1), lengths

    dirty = audio(4500) + torch.where(length_mask(LENGTHS, 4500), 0.0, torch.nan)
    for defenses, factor in (([Smear()], 1.0), ([Gain(), Smear()], 0.7)):
        smeared, _ = Chain(defenses)(dirty, LENGTHS)
        last = torch.stack([smeared[row, length - 1] for row, length in enumerate(LENGTHS.tolist())])
        expected = torch.stack([audio()[row, length - 1] for row, length in enumerate(LENGTHS.tolist())])
        torch.testing.assert_close(last.detach(), factor * expected)


def test_draws_are_keyed_by_position() -> None:
    ear, flat = Ear(), Chain([GaussianNoise(0.1), Steps(), GaussianNoise(0.1)])
    defended = Defended(flat, ear)
    heard = [model.loss(audio(), LENGTHS, ear.targets(TEXTS), seeds=SEEDS) for model in (defended, defended)]
    assert torch.equal(*heard)
    first = audio() + 0.1 * keyed_normal(derive(SEEDS, draw=0), LENGTHS, 4000)
    second = 0.1 * keyed_normal(derive(SEEDS, draw=2), LENGTHS, 4000)
    waveforms, _, inner = ear.heard[0]
    torch.testing.assert_close(waveforms, (8 * first).round() / 8 + second)
    assert torch.equal(inner, derive(SEEDS, draw=3))
    nested = Chain([Chain([GaussianNoise(0.1), Steps()]), Chain([GaussianNoise(0.1)])])
    assert torch.equal(nested(audio(), LENGTHS, seeds=SEEDS)[0], flat(audio(), LENGTHS, seeds=SEEDS)[0])


def test_a_defended_recogniser_inside_draws_other_noise() -> None:
    ear = Ear()
    lengths, silence, seeds = torch.tensor([60_000]), torch.zeros(1, 60_000), SEEDS[:1]
    both = Defended(GaussianNoise(0.1), Defended(GaussianNoise(0.1), ear))
    both.loss(silence, lengths, ear.targets(["A"]), seeds=seeds)
    # Were it the same noise twice, the variance would be four times that of one.
    assert float(ear.heard[0][0].var()) == pytest.approx(2 * 0.1**2, rel=0.03)


def test_every_view_hears_the_same_draws() -> None:
    ear = Ear()
    defended = Defended(noisy_chain(), Defended(GaussianNoise(0.2), ear))
    for knowledge in ("exact", "straight_through"):
        defended.view(knowledge).loss(audio(), LENGTHS, ear.targets(TEXTS), seeds=SEEDS)
    (exact, _, seeds), (through, _, same_seeds) = ear.heard
    assert torch.equal(exact, through) and torch.equal(seeds, same_seeds)


def test_without_seeds_every_call_draws_afresh() -> None:
    ear = Ear()
    defended = Defended(GaussianNoise(0.1), ear)
    with torch.random.fork_rng():
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            defended.loss(audio(), LENGTHS, ear.targets(TEXTS))
        defended.loss(audio(), LENGTHS, ear.targets(TEXTS))
    first, again, other, next_one = (heard for heard, _, _ in ear.heard)
    assert torch.equal(first, again) and not torch.equal(first, other) and not torch.equal(other, next_one)
    assert all(seeds is None for _, _, seeds in ear.heard)


def test_views_of_nested_defences() -> None:
    bend, ear = Bend(), Ear()
    nested = Defended(bend, Defended(bend, ear))
    once, _ = bend(audio(), LENGTHS)
    twice, _ = bend(once, LENGTHS)
    assert nested.view("unaware") is ear and nested.view("exact") is nested
    _, exact = gradient(nested, audio())
    _, through = gradient(nested.view("straight_through"), audio())
    torch.testing.assert_close(through, twice**2)
    torch.testing.assert_close(exact, twice**2 * bend.slope(once) * bend.slope(audio()))
    assert torch.equal(gradient(nested.view("straight_through").view("straight_through"), audio())[1], through)
    with pytest.raises(ValueError, match=r"knowledge must be one of exact, straight_through, unaware, found 'blind'"):
        nested.view("blind")


def test_no_gradient_of_its_own_means_that_of_the_identity() -> None:
    defended = Defended(Steps(), Ear())
    rounded = (8 * audio()).round() / 8
    for knowledge in ("exact", "straight_through"):
        losses, slope = gradient(defended.view(knowledge), audio())
        torch.testing.assert_close(slope, rounded**2)
        torch.testing.assert_close(losses, (rounded**3).sum(1) / 3)


def test_views_share_modules_and_are_frozen_with_them(toy: Recognizer) -> None:
    """Peer defects 2 and 3, for a defended recogniser."""
    defended = Defended(noisy_chain(), toy).train()
    defended.defense.eval()
    before = {name: value.clone() for name, value in defended.state_dict().items()}
    modes = {name: module.training for name, module in defended.named_modules()}
    with frozen_for_attack(defended):
        for knowledge in ("exact", "straight_through", "unaware"):
            view = defended.view(knowledge)
            assert set(view.parameters()) <= set(defended.parameters())
            assert not any(parameter.requires_grad for parameter in view.parameters())
            assert not any(module.training for module in toy.modules())
            gradient(view, audio())
    assert modes == {name: module.training for name, module in defended.named_modules()}
    assert all(parameter.requires_grad and parameter.grad is None for parameter in defended.parameters())
    assert all(torch.equal(value, before[name]) for name, value in defended.state_dict().items())


def test_length_changes_reach_the_recogniser() -> None:
    ear = Ear()
    defended = Defended(Halved(), ear)
    targets = ear.targets(["AB CD", "ABC", ""])
    lengths = torch.tensor([9, 4, 1])
    assert defended.feasible(lengths, targets).tolist() == [True, False, True]
    defended.loss(torch.ones(3, 9), lengths, targets)
    heard, heard_lengths, _ = ear.heard[0]
    assert heard_lengths.tolist() == [5, 2, 1] and heard.sum(1).tolist() == [5, 2, 1]
    quartered = Defended(Chain([Halved(), Halved()]), ear)
    assert quartered.feasible(lengths, ear.targets(["ABC", "AB", "A"])).tolist() == [True, False, True]
    with pytest.raises(ValueError, match="HALVED changes the number of samples"):
        defended.view("straight_through").loss(torch.ones(3, 9), lengths, targets)


def test_columns_are_those_of_the_tables() -> None:
    ear = Ear()
    assert Defended(Bend(), ear).columns() == {"defense": "BEND", "sigma": ""}
    assert Defended(GaussianNoise(0.01), ear).columns() == {"defense": "RS", "sigma": 0.01}
    chain = Chain([GaussianNoise(0.01), StraightThrough(Bend())])
    assert Defended(chain, ear).columns() == {"defense": "RS+BEND", "sigma": 0.01}
    nested = Defended(chain, Defended(Chain([Steps(), StraightThrough(GaussianNoise(0.02))]), ear))
    assert nested.columns() == {"defense": "RS+BEND+STEPS+RS", "sigma": "0.01+0.02"}
    assert nested.view("straight_through").columns() == nested.columns()


def test_says_whether_draws_matter() -> None:
    assert not Defended(Bend(), Ear()).stochastic
    assert Defended(noisy_chain(), Ear()).stochastic and Defended(StraightThrough(noisy_chain()), Ear()).stochastic
    assert Defended(Bend(), Defended(GaussianNoise(0.1), Ear())).stochastic


def test_an_empty_chain_is_refused() -> None:
    with pytest.raises(ValueError, match="defenses: a chain holds at least one defence"):
        Chain([])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_whole_and_its_own(copied, toy: Recognizer) -> None:
    defended = Defended(noisy_chain(), toy)
    other = copied(defended)
    assert type(other) is type(defended) and not set(other.parameters()) & set(defended.parameters())
    assert all(torch.equal(*pair) for pair in zip(gradient(other, audio()), gradient(defended, audio()), strict=True))


def test_described_and_built_again(toy: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "_opened", {"tests"})
    defended = Defended(Chain([GaussianNoise(0.05), StraightThrough(Bend(0.5))]), Defended(Gain(), toy))
    description = describe(defended)
    rebuilt = trust.build(description, expected=Recognizer, field="recognizer")
    assert describe(rebuilt) == description and type(rebuilt) is type(defended)
    rebuilt.load_state_dict(defended.state_dict())
    assert all(
        torch.equal(*pair) for pair in zip(gradient(rebuilt.eval(), audio()), gradient(defended, audio()), strict=True)
    )
    # Whoever writes a file by hand names the class that they know.
    by_hand = {**description, "class_path": "robust_asr.defenses.base.Defended"}
    assert type(trust.build(by_hand, expected=Recognizer, field="recognizer")) is type(defended)


def test_saved_and_loaded(toy: Recognizer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(trust, "_opened", {"tests"})
    chain = noisy_chain()
    defended = Defended(chain, toy)
    with torch.no_grad():
        chain.stages[1].factor.fill_(0.9)
    checkpoint.save(defended, tmp_path / "defended.ckpt")
    loaded = checkpoint.load(str(tmp_path / "defended.ckpt"))
    assert describe(loaded) == describe(defended) and isinstance(loaded, Defended)
    assert checkpoint.weights_hash(loaded) == checkpoint.weights_hash(defended)
    assert all(torch.equal(*pair) for pair in zip(gradient(loaded, audio()), gradient(defended, audio()), strict=True))
    # The recogniser's own file goes behind a defence just as well.
    checkpoint.save(toy, tmp_path / "toy.ckpt")
    behind = Defended(chain, checkpoint.load(str(tmp_path / "toy.ckpt")))
    assert all(torch.equal(*pair) for pair in zip(gradient(behind, audio()), gradient(defended, audio()), strict=True))


@dataclass(frozen=True)
class OneStep(Attack):
    """One step of the gradient's length: what an attack sees of a defence decides where it goes."""

    knowledge: str = "exact"
    goal: ClassVar[Goal] = Untargeted()
    name: ClassVar[str] = "step"

    @property
    def threat(self) -> ThreatModel:
        return Unbounded()

    def perturb(self, recognizer: Recognizer, batch: AudioBatch, targets: Targets, *, seeds: Tensor) -> Perturbation:
        def loss(values: Tensor) -> Tensor:
            return recognizer.loss(values, batch.lengths, targets, seeds=seeds)

        _, slope = input_gradient(loss, batch.waveforms)
        ones = torch.ones(len(batch), dtype=torch.long)
        return Perturbation(batch.waveforms + inside_box(slope, batch), ones, ones)


def test_an_attack_is_adaptive_without_a_line_of_its_own() -> None:
    bend, attacked = Bend(), {}
    bent, _ = bend(audio(), LENGTHS)
    for knowledge in ("exact", "straight_through", "unaware"):
        result = OneStep(knowledge=knowledge)(Defended(bend, Ear()), batch(), seeds=SEEDS)
        attacked[knowledge] = result.batch.waveforms
        heard, _ = bend(attacked[knowledge], LENGTHS)
        torch.testing.assert_close(result.loss, (heard**3).sum(1) / 3)
    steps = {"exact": bent**2 * bend.slope(audio()), "straight_through": bent**2, "unaware": audio() ** 2}
    for knowledge, step in steps.items():
        torch.testing.assert_close(attacked[knowledge], audio() + inside_box(step, batch()))


def test_a_defence_must_be_written() -> None:
    with pytest.raises(TypeError, match="forward"):
        Defense()
