"""An attack that is killed goes on where it stopped, to the same audio."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from robust_asr.attacks.base import Attack, Generated
from robust_asr.attacks.cw import CarliniWagner
from robust_asr.attacks.imperceptible import Imperceptible
from robust_asr.attacks.pgd import PaperPGD
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
    "CW": CarliniWagner(Target("NO"), num_iterations=14, check_every=2, max_decreases=2),
    "Imperceptible": Imperceptible(
        Target("NO"), num_iterations=8, check_every=2, masking_iterations=8, raise_every=2, lower_every=4
    ),
}


class Killed(Exception):
    pass


class Dying(PartialState):
    """Keeps every state, and dies after some of them."""

    def __init__(self, path: Path, *, after: int) -> None:
        super().__init__(path, every_seconds=0.0)
        self.after = after

    def keep(self, state, *, now: bool = False) -> None:
        super().keep(state, now=True)
        self.after -= 1
        if not self.after:
            raise Killed

    def part(self, name: str) -> Dying:
        self.path = self.path.with_name(f"whole-{name}.ckpt")
        return self


def system() -> Recognizer:
    return Defended(GaussianNoise(0.01), four_words())


def made(attack: Attack, batch: AudioBatch, partial: PartialState | None = None) -> Generated:
    return attack.generate(system(), batch, seeds=seeds_of(batch), partial=partial)


def assert_equal(first: Generated, second: Generated) -> None:
    assert torch.equal(first.waveforms, second.waveforms) and first.status == second.status
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
