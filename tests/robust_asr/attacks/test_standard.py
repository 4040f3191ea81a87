"""The standard evaluation: what it finds, what it costs, and that it is at least each of its members."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from robust_asr import checkpoint
from robust_asr.attacks.base import AttackResult
from robust_asr.attacks.breaking import BreakingPoint
from robust_asr.attacks.expectation import Expectation
from robust_asr.attacks.objectives import strongest
from robust_asr.attacks.pgd import PGD, PaperPGD
from robust_asr.attacks.standard import Standard, _shares, _views
from robust_asr.attacks.transfer import Transfer
from robust_asr.checks import check_attack
from robust_asr.defenses.base import Defended
from robust_asr.defenses.noise import GaussianNoise
from robust_asr.defenses.voted import Voted
from robust_asr.defenses.votes import Rover
from robust_asr.metrics import word_errors
from robust_asr.models.base import Recognizer
from robust_asr.randomness import Key
from robust_asr.storage import trust
from robust_asr.storage.describe import describe, files_of
from robust_asr.storage.partial import NOWHERE
from robust_asr.threat import L2, SNR, Linf, Unbounded
from robust_asr.types import AudioBatch, Status
from tests.listeners import four_words
from tests.robust_asr.attacks.masks import Detached, LoudDetached, Quantised, RandomGradient, inside, saturated
from tests.robust_asr.attacks.oracles import Target, audio_batch, seeds_of, spoken, weights
from tests.robust_asr.attacks.wrappers import FRAME, Frames, Wrapped
from tests.robust_asr.defenses.parts import Bend, Ear
from tests.robust_asr.test_contract import audio, trained


def errors(result: AttackResult, batch: AudioBatch) -> list[int]:
    return [word_errors(*pair)[0] for pair in zip(batch.texts, result.hypotheses, strict=True)]


# The system, the radius at which few passes of a fair attack break it, and the budget.
MASKS: dict[str, tuple[Callable[[], Recognizer], float, int]] = {
    "quantised by a defence": (lambda: Defended(Quantised(), four_words()), 0.001, 120),
    "cut off by a defence for loud samples": (lambda: Defended(LoudDetached(), four_words()), 0.001, 120),
    "random from a defence": (lambda: Defended(RandomGradient(), four_words()), 0.001, 120),
    "saturated scores": (saturated, 0.001, 120),
    "quantised inside": (lambda: inside(Quantised()), 0.03, 200),
    "random inside": (lambda: inside(RandomGradient()), 0.05, 200),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_masked_gradient_does_not_help(name: str) -> None:
    make, eps, forwards = MASKS[name]
    recognizer, batch = make(), spoken(3, seed=5)
    held, lost = (
        sum(errors(attack(recognizer, batch, seeds=seeds_of(batch)), batch))
        for attack in (PaperPGD(Linf(eps), num_iterations=50), Standard(Linf(eps), forwards=forwards))
    )
    assert held == 0 and lost >= 1


@pytest.fixture(scope="module")
def surrogate(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("surrogate") / "four_words.ckpt"
    checkpoint.save(four_words(), path)
    return str(path)


@pytest.mark.parametrize("mask", [RandomGradient, Quantised])
def test_a_mask_inside_falls_to_what_transfers_from_a_surrogate(mask: type, surrogate: str) -> None:
    batch = spoken(3, seed=5)
    seeds, attack = seeds_of(batch), Standard(Linf(0.001), forwards=120)
    held = attack(inside(mask()), batch, seeds=seeds)
    result = replace(attack, surrogate=surrogate)(inside(mask()), batch, seeds=seeds)
    assert sum(errors(held, batch)) == 0 < sum(errors(result, batch))
    assert "transfer" in result.members
    # The other members go on saying that the gradients are masked.
    assert (Status.MASKED_GRADIENT in result.status) is (mask is Quantised)


def test_the_name_and_the_description_hold_the_surrogate(surrogate: str) -> None:
    attack = Standard(Linf(0.001), surrogate=surrogate)
    assert attack.name == "standard-1 (200 forwards) + surrogate"
    assert list(files_of(attack)) == [surrogate]
    again = trust.build(describe(attack), expected=Standard)
    assert again == attack
    with pytest.raises(ValueError, match="surrogate: hears 8000 Hz, and the recogniser 16000"):
        slow = copy.deepcopy(four_words())
        slow.sample_rate = 8000
        Transfer(PGD(Linf(0.001)), slow).search(four_words(), spoken(1), None, seeds=torch.zeros(1, dtype=torch.long))


def test_where_every_gradient_is_zero_queries_are_an_alarm_and_the_row_says_so() -> None:
    batch = spoken(3, seed=5)
    result = Standard(Linf(0.03), forwards=120)(inside(Quantised()), batch, seeds=seeds_of(batch))
    assert set(result.status) == {Status.MASKED_GRADIENT} and "square" in result.members


def test_a_cut_gradient_leaves_the_straight_through_form() -> None:
    batch, system = spoken(2, seed=5), Defended(Detached(), four_words())
    with pytest.raises(ValueError, match="no gradient of the loss reaches the audio"):
        PaperPGD(Linf(0.001))(system, batch, seeds=seeds_of(batch))
    result = Standard(Linf(0.001), forwards=80)(system, batch, seeds=seeds_of(batch))
    assert sum(errors(result, batch)) >= 1
    assert all(member.endswith("straight-through") or member == "square" for member in result.members)
    with pytest.raises(ValueError, match="no gradient of the loss reaches the audio"):
        Standard(Linf(0.001), forwards=80)(inside(Detached()), batch, seeds=seeds_of(batch))


@pytest.mark.parametrize("eps", [0.0003, 0.001])
def test_it_does_at_least_the_damage_of_each_member_and_of_the_papers_attack(eps: float) -> None:
    recognizer, batch = four_words(), spoken(3, seed=5)
    seeds, targets, attack = seeds_of(batch), four_words().targets(batch.texts), Standard(Linf(eps), forwards=90)
    together = attack(recognizer, batch, seeds=seeds)
    members = attack._members(recognizer, {"": recognizer})
    assert set(together.members) <= {member.name for member in members}
    alone = [member.search(batch, targets, torch.arange(3), seeds=seeds, partial=NOWHERE).damage for member in members]
    found = errors(together, batch)
    assert all(mine >= theirs for mine, theirs in zip(found, torch.stack(alone).amax(0).tolist(), strict=True))
    paper = PaperPGD(Linf(eps), num_iterations=90)(recognizer, batch, seeds=seeds)
    assert sum(found) >= sum(errors(paper, batch))


SYSTEMS: dict[str, Callable[[], Recognizer]] = {
    "plain": four_words,
    "a defence": lambda: Defended(Bend(), four_words()),
    "noise": lambda: Defended(GaussianNoise(0.003), four_words()),
    "a mask": lambda: Defended(Quantised(), four_words()),
    "a wrapper": lambda: Wrapped(four_words()),
}


@pytest.mark.parametrize("name", [*SYSTEMS, "noise, a surrogate", "plain, a surrogate"])
@pytest.mark.parametrize("goal", [None, Target("UP GO")], ids=["untargeted", "targeted"])
def test_the_budget_holds_and_every_pass_is_counted(name: str, goal: Target | None, surrogate: str) -> None:
    kind, _, other = name.partition(", ")
    system, batch, rows = SYSTEMS[kind](), spoken(2, seed=5), []
    attack = Standard(
        Linf(0.0005),
        forwards=250 if kind in ("noise", "a mask") else 120 if other else 90,
        surrogate=surrogate if other else None,
        **({"goal": goal} if goal else {}),
    )
    listeners = [four_words(), *([attack._other] if other else [])]
    handles = [
        listener.front_end.register_forward_hook(lambda _, __, found: rows.append(len(found[0])))
        for listener in listeners
    ]
    try:
        generated = attack.generate(system, batch, seeds=seeds_of(batch))
    finally:
        for handle in handles:
            handle.remove()
    assert sum(rows) == int(generated.forwards.sum()) <= 2 * attack.forwards
    # What is not used is less than a shortest attack.
    lost = generated.forwards < attack.forwards / 2
    assert bool(lost.any()) or float(generated.forwards.double().mean()) >= 0.7 * attack.forwards


def test_a_lost_utterance_leaves_its_budget_to_the_others() -> None:
    batch, attack = spoken(4, seed=5), Standard(Linf(0.001), forwards=90)
    generated = attack.generate(four_words(), batch, seeds=seeds_of(batch))
    said = attack.verdict(four_words(), batch, generated, seeds=seeds_of(batch))
    lost = [found >= len(text.split()) for found, text in zip(errors(said, batch), batch.texts, strict=True)]
    assert 0 < sum(lost) < 4, "this radius must break some and leave some"
    forwards = generated.forwards.tolist()
    assert min(forwards) < 60 and max(forwards) > 90 and sum(forwards) <= 4 * 90
    assert all(spent > 90 for spent, over in zip(forwards, lost, strict=True) if not over)


def test_candidates_are_compared_on_draws_that_nothing_else_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, system, looks = spoken(2, seed=5), SYSTEMS["noise"](), []
    look = Expectation.look

    def seen(
        self: Expectation, waveforms: object, *, step: int, gradient: bool = False, listen: bool = False
    ) -> object:
        looks.append((step, gradient, listen, self.num_draws))
        return look(self, waveforms, step=step, gradient=gradient, listen=listen)

    monkeypatch.setattr(Expectation, "look", seen)
    Standard(Linf(0.0005), forwards=250).generate(system, batch, seeds=seeds_of(batch))
    compared = {(step, draws) for step, _, listen, draws in looks if listen}
    steps = {step for step, gradient, _, _ in looks if gradient}
    queries = {step for step, gradient, listen, _ in looks if not gradient and not listen}
    assert compared == {(Key.COMPARISON, 8)} and queries == {Key.QUERIES}
    assert steps and max(steps) < Key.RESTART and Key.VERDICT not in steps | queries


def test_the_order_of_utterances_changes_nothing() -> None:
    batch, recognizer = audio_batch((200, 130, 60), level=0.2), Frames(weights(FRAME))
    attack, order = Standard(Linf(0.01), forwards=80), [2, 0, 1]
    first = attack.generate(recognizer, batch, seeds=seeds_of(batch))
    other = batch.select(order)
    second = attack.generate(recognizer, other, seeds=seeds_of(other))
    torch.testing.assert_close(second.waveforms, first.waveforms[order], rtol=0, atol=1e-6)
    assert second.members == tuple(first.members[row] for row in order)
    assert torch.equal(second.forwards, first.forwards[order])


@pytest.mark.parametrize("threat", [Linf(0.001), L2(0.3), SNR(30.0), SNR(30.0, reading="maxsnr_linf")], ids=str)
def test_any_ball_any_length_and_nothing_to_be_wrong_about(threat: object) -> None:
    """32,000 samples and one, an empty reference, which is refused, and silence."""
    recognizer, lengths = trained("toy_ctc"), torch.tensor([32_000, 700, 1, 4000])
    waveforms = audio(lengths)
    waveforms[3] = 0
    batch = AudioBatch(waveforms, lengths, ("HELLO YOU", "", "I", "A"), ("long", "empty", "short", "silent"))
    result = Standard(threat, forwards=60)(recognizer, batch, seeds=seeds_of(batch))
    assert result.batch.waveforms.isfinite().all()
    assert result.status[0] == Status.ATTACKED and result.members[0]
    assert result.status[1] == Status.REFUSED and int(result.forwards[1]) == 0 and not result.members[1]
    if isinstance(threat, SNR):
        assert result.status[3] == Status.REFUSED and not result.members[3] and int(result.forwards[3]) == 0


def test_a_recogniser_without_frames_is_attacked_by_what_serves_it() -> None:
    batch = AudioBatch(
        0.1 + 0 * audio(torch.tensor([400, 300])), torch.tensor([400, 300]), ("QUIET", "QUIET"), ("a", "b")
    )
    batch.waveforms[1, 300:] = 0
    result = Standard(Linf(0.6), forwards=60)(Ear(), batch, seeds=seeds_of(batch))
    assert result.hypotheses == ("LOUD", "LOUD") and set(result.members) == {"loss cosine"}


@pytest.mark.parametrize("within", [False, True], ids=["standard", "breaking point"])
def test_a_budget_for_one_view_is_refused_at_once_where_there_are_two(within: bool) -> None:
    """Whether the straight-through form is a member shows on audio: the live checks ask with theirs."""
    batch, attack = spoken(2, seed=5), Standard(Linf(0.001), forwards=60)
    attack = BreakingPoint(attack, 1e-4) if within else attack
    for system in (four_words(), Defended(Bend(0.5), four_words())):
        check_attack(system, attack, batch, seeds=seeds_of(batch))
    two = Defended(LoudDetached(), four_words())
    # Behind a vote the members are those that attack a draw.
    for system, forwards in ((two, 60), (Voted(Defended(GaussianNoise(0.01), two), Rover(2)), 120)):
        small = Standard(Linf(0.001), forwards=forwards)
        with pytest.raises(ValueError, match=rf"forwards is {forwards}, too few for the 7 members"):
            check_attack(system, BreakingPoint(small, 1e-4) if within else small, batch, seeds=seeds_of(batch))


@pytest.mark.parametrize("name", ["plain", "noise", "a wrapper"])
def test_too_small_a_budget_names_the_least(name: str) -> None:
    system, batch = SYSTEMS[name](), spoken(1, seed=5)
    with pytest.raises(
        ValueError, match=r"forwards is 10, too few for the [34] members .*: it must be at least"
    ) as caught:
        Standard(Linf(0.001), forwards=10).generate(system, batch, seeds=seeds_of(batch))
    least = int(str(caught.value).rsplit(" ", 1)[-1])
    Standard(Linf(0.001), forwards=least)._members(system, {"": system})
    with pytest.raises(ValueError, match=f"at least {least}"):
        Standard(Linf(0.001), forwards=least - 1)._members(system, {"": system})
    # Nobody has to tune: the default is enough for twice the members, too.
    objectives = [(objective, system) for objective in strongest(system, Standard(Linf(0.001)).goal)]
    default, queried = Standard(Linf(0.001)).forwards, objectives[-1][0]
    assert _shares(least, objectives, queried, system)[1] == 5 <= _shares(default, 2 * objectives, queried, system)[1]


def test_the_straight_through_form_is_a_member_where_its_gradient_is_another() -> None:
    batch, targets = spoken(2, seed=5), four_words().targets(spoken(2, seed=5).texts)
    for system, names in (
        (four_words(), {""}),
        (Wrapped(four_words()), {""}),
        (Defended(GaussianNoise(0.003), four_words()), {""}),
        (Defended(RandomGradient(), four_words()), {"", " straight-through"}),
        (Defended(Detached(), four_words()), {" straight-through"}),
    ):
        assert set(_views(system, batch, targets, seeds_of(batch))) == names


def test_names_settings_and_descriptions() -> None:
    attack = Standard(Linf(0.001))
    assert attack.name == "standard-1 (200 forwards)" and attack.columns()["attack"] == attack.name
    assert Standard(Linf(0.001), goal=Target(), forwards=50).name == "standard-1 targeted (50 forwards)"
    assert trust.build(describe(attack), expected=Standard) == attack and hash(attack) == hash(replace(attack))
    with pytest.raises(ValueError, match="threat must be a ball such as Linf, L2 or SNR, found Unbounded"):
        Standard(Unbounded())
    with pytest.raises(ValueError, match="forwards must lie in"):
        Standard(Linf(0.001), forwards=0)


def test_a_start_is_kept_where_nothing_better_is_found() -> None:
    recognizer, batch = four_words(), spoken(3, seed=5)
    seeds, targets = seeds_of(batch), four_words().targets(batch.texts)
    strong = Standard(Linf(0.0005), forwards=200)(recognizer, batch, seeds=seeds)
    weak = Standard(Linf(0.0005), forwards=40)
    start = strong.batch.waveforms - batch.waveforms
    made = weak.perturb(recognizer, batch, targets, seeds=seeds, start=start)
    heard = recognizer.transcribe(made.waveforms, batch.lengths)
    found = [word_errors(text, said.text)[0] for text, said in zip(batch.texts, heard, strict=True)]
    assert all(mine >= theirs for mine, theirs in zip(found, errors(strong, batch), strict=True))
    assert int(made.forwards.sum()) <= 3 * 40
    kept = [torch.equal(*pair) for pair in zip(made.waveforms - batch.waveforms, start, strict=True)]
    assert any(kept) and [member == "start" for member in made.members] == kept
    assert set(made.status) == {Status.ATTACKED}
