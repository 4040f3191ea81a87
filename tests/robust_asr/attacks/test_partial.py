"""An attack that is killed goes on where it stopped, to the same audio."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from robust_asr.attacks.base import Attack, Generated
from robust_asr.attacks.cw import CarliniWagner
from robust_asr.attacks.imperceptible import Imperceptible
from robust_asr.attacks.pgd import PGD, PaperPGD
from robust_asr.attacks.square import Square
from robust_asr.attacks.standard import Standard
from robust_asr.attacks.steps import Halving
from robust_asr.defenses.base import Defended
from robust_asr.defenses.noise import GaussianNoise
from robust_asr.models.base import Recognizer
from robust_asr.storage.partial import PartialState
from robust_asr.threat import L2, Linf
from robust_asr.types import AudioBatch
from tests.listeners import SIZES, four_words
from tests.robust_asr.attacks.oracles import Target, seeds_of, spoken

ATTACKS = {
    "PGD": PaperPGD(Linf(0.01), num_iterations=9, keep="value"),
    "PGD, restarts": PaperPGD(L2(0.5), num_iterations=5, random_start=True, num_restarts=3, num_draws=2),
    "PGD, stopping": PaperPGD(Linf(0.002), goal=Target("NO"), num_iterations=9, stop_on_success=True, check_every=2),
    "PGD, halving": PGD(Linf(0.002), num_iterations=9, steps=Halving(), check_every=3, comparison_draws=2),
    "Square": Square(Linf(0.01), num_queries=9, comparison_draws=2),
    "CW": CarliniWagner(Target("NO"), num_iterations=14, check_every=2, max_decreases=2),
    "Imperceptible": Imperceptible(
        Target("NO"), num_iterations=8, check_every=2, masking_iterations=8, raise_every=2, lower_every=4
    ),
}


class Killed(Exception):
    pass


class Dying(PartialState):
    """Keeps every state, and dies after some of them, those of its parts included."""

    def __init__(self, path: Path, *, after: int) -> None:
        super().__init__(path, every_seconds=0.0)
        self.left = [after]

    def keep(self, state, *, now: bool = False) -> None:
        super().keep(state, now=True)
        self.left[0] -= 1
        if not self.left[0]:
            raise Killed

    def part(self, name: str) -> Dying:
        part = Dying(super().part(name).path, after=0)
        part.left = self.left
        return part


def system() -> Recognizer:
    return Defended(GaussianNoise(0.01), four_words())


def made(attack: Attack, batch: AudioBatch, partial: PartialState | None = None) -> Generated:
    return attack.generate(system(), batch, seeds=seeds_of(batch), partial=partial)


def assert_equal(first: Generated, second: Generated) -> None:
    assert torch.equal(first.waveforms, second.waveforms)
    assert first.status == second.status and first.members == second.members
    assert torch.equal(first.iterations, second.iterations) and torch.equal(first.forwards, second.forwards)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("kept", [1, 2, 4, 7])
def test_killed_after_any_state_it_ends_the_same(name: str, kept: int, tmp_path: Path) -> None:
    attack, batch = ATTACKS[name], spoken(4)
    whole = made(attack, batch)
    dying = Dying(tmp_path / "whole.ckpt", after=kept)
    with pytest.raises(Killed):
        made(attack, batch, dying)
    again = PartialState(tmp_path / "whole.ckpt", every_seconds=3600)
    assert_equal(made(attack, batch, again), whole)
    again.forget()
    assert not list(tmp_path.iterdir())


def test_a_killed_ensemble_goes_on_with_the_member_that_was_at_work(tmp_path: Path) -> None:
    attack, batch, system = Standard(Linf(0.0005), forwards=90), spoken(2), four_words()
    whole = attack.generate(system, batch, seeds=seeds_of(batch))
    passes: list[int] = []
    # Within the first member, after it, within the queries, and within the second round.
    for kept, left in ((4, 174), (16, 150), (44, 80), (60, 56)):
        folder = tmp_path / str(kept)
        folder.mkdir()
        with pytest.raises(Killed):
            attack.generate(system, batch, seeds=seeds_of(batch), partial=Dying(folder / "whole.ckpt", after=kept))
        again = PartialState(folder / "whole.ckpt", every_seconds=3600)
        handle = system.front_end.register_forward_hook(lambda _, __, found: passes.append(len(found[0])))
        try:
            assert_equal(attack.generate(system, batch, seeds=seeds_of(batch), partial=again), whole)
        finally:
            handle.remove()
        # What was done is not done again: passes of two utterances, 180 in all; labels of the clean audio are.
        assert sum(passes) <= left, kept
        passes.clear()
        # Of a state, at most nine tensors are as large as the audio, and no more states than members and the ensemble's own.
        sizes = [path.stat().st_size for path in folder.iterdir()]
        assert max(sizes) < 9.5 * 4 * batch.waveforms.numel() + 2**16 and len(sizes) <= 8
        again.forget()
        assert not list(folder.iterdir())


@pytest.mark.parametrize("name", ["PGD", "CW"])
def test_going_on_costs_only_what_is_left(name: str, tmp_path: Path) -> None:
    """The passes that are made after a kill are those of the iterations after the state that was kept."""
    attack, batch, passes = ATTACKS[name], spoken(4), []
    recognizer = four_words()
    handle = recognizer.front_end.register_forward_hook(lambda *_: passes.append(1))
    try:
        with pytest.raises(Killed):
            attack.generate(recognizer, batch, seeds=seeds_of(batch), partial=Dying(tmp_path / "whole.ckpt", after=6))
        before, passes[:] = len(passes), []
        rest = PartialState(tmp_path / "whole.ckpt", every_seconds=3600)
        attack.generate(recognizer, batch, seeds=seeds_of(batch), partial=rest)
        after, passes[:] = len(passes), []
        attack.generate(recognizer, batch, seeds=seeds_of(batch))
    finally:
        handle.remove()
    assert before == 6 and before + after == len(passes)


def test_groups_that_are_done_are_not_attacked_again(tmp_path: Path) -> None:
    class Narrow(type(four_words())):
        padding_invariant = False

    recognizer = Narrow(**SIZES["four_words"])
    recognizer.load_state_dict(four_words().state_dict())
    recognizer.eval()
    batch, attack = spoken(4), ATTACKS["PGD"]
    assert len(set(batch.lengths.tolist())) > 1
    whole = attack.generate(recognizer, batch, seeds=seeds_of(batch))
    first = attack.generate(
        recognizer, batch, seeds=seeds_of(batch), partial=PartialState(tmp_path / "a.ckpt", every_seconds=0.0)
    )
    seen = []
    handle = recognizer.front_end.register_forward_hook(lambda *_: seen.append(1))
    again = attack.generate(
        recognizer, batch, seeds=seeds_of(batch), partial=PartialState(tmp_path / "a.ckpt", every_seconds=0.0)
    )
    handle.remove()
    assert not seen, "every group was finished and kept"
    for one in (first, again):
        assert_equal(one, whole)


def test_nothing_is_written_more_often_than_asked(tmp_path: Path) -> None:
    partial = PartialState(tmp_path / "state.ckpt", every_seconds=3600)
    partial.keep(lambda: pytest.fail("nobody needs the state yet"))
    assert partial.load() is None
    partial.keep(lambda: {"step": 3, "delta": torch.ones(2)}, now=True)
    assert partial.load()["step"] == 3 and torch.equal(partial.load()["delta"], torch.ones(2))


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    partial = PartialState(tmp_path / "state.ckpt", every_seconds=0.0)
    partial.keep(lambda: {"step": 3})
    content = bytearray(partial.path.read_bytes())
    content[40] ^= 1
    partial.path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"state\.ckpt: its bytes do not agree with its checksum"):
        partial.load()
