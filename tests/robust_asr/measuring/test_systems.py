"""What a system is: no two that may hear differently have one hash, and nothing else enters it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from robust_asr.attacks.noise import Clean
from robust_asr.attacks.pgd import PaperPGD
from robust_asr.defenses.base import Defended
from robust_asr.defenses.noise import GaussianNoise
from robust_asr.measuring.systems import describe_system, gradient_sources
from robust_asr.models.base import Recognizer
from robust_asr.search.base import Search
from robust_asr.search.beam import BeamSearch
from robust_asr.threat import Linf
from robust_asr.types import Transcript
from tests.toys import ToyAttention, ToyCTC


def seeded(kind: type[Recognizer]) -> Recognizer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind().eval()


def hash_of(recognizer: Recognizer) -> str:
    return describe_system(recognizer)["hash"]


def searching(search: Search) -> Recognizer:
    recognizer = seeded(ToyCTC)
    recognizer.use_search(search)
    return recognizer


def test_two_searches_never_share_rows() -> None:
    systems = [
        seeded(ToyCTC),
        searching(BeamSearch()),
        searching(BeamSearch(beam_size=7)),
        searching(BeamSearch(lexicon=["YES"])),
        Defended(GaussianNoise(0.01), seeded(ToyCTC)),
        Defended(GaussianNoise(0.01), searching(BeamSearch())),
    ]
    assert len({hash_of(system) for system in systems}) == len(systems)
    assert hash_of(searching(BeamSearch(beam_size=7))) == hash_of(systems[2])


class Steps(Search):
    """A search of an autoregressive recogniser, which is given no frames."""

    def __init__(self, most: int) -> None:
        self.most = most


class Stepping(ToyAttention):
    """An encoder-decoder that is told how many tokens it may write."""

    _search = Steps(3)

    @property
    def search(self) -> Steps:
        return self._search

    def use_search(self, search: Search) -> None:
        self._search = search

    def transcribe_hidden(self, hidden: Tensor, frame_lengths: Tensor) -> list[Transcript]:
        return [
            Transcript(" ".join(one.text.split()[: self.search.most]))
            for one in super().transcribe_hidden(hidden, frame_lengths)
        ]


def test_an_autoregressive_search_is_part_of_the_hash_too() -> None:
    first, second = seeded(Stepping), seeded(Stepping)
    assert hash_of(first) == hash_of(second)
    second.use_search(Steps(4))
    assert hash_of(first) != hash_of(second)
    assert hash_of(Defended(GaussianNoise(0.01), first)) != hash_of(Defended(GaussianNoise(0.01), second))


def test_weights_and_files_are_part_of_the_hash(tmp_path: Path) -> None:
    first, other = seeded(ToyCTC), seeded(ToyCTC)
    with torch.no_grad():
        other.head.bias[0] += 1e-6
    assert hash_of(first) != hash_of(other)
    words = tmp_path / "words.txt"
    words.write_text("YES\n")
    before = describe_system(searching(BeamSearch(lexicon=str(words))))
    assert list(before["description"]["files"]) == [str(words)]
    words.write_text("NO\n")
    assert hash_of(searching(BeamSearch(lexicon=str(words)))) != before["hash"]


def test_a_text_that_happens_to_name_a_file_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A word of a lexicon, LICENSE, once entered the hash with whatever lay in the working directory."""
    monkeypatch.chdir(tmp_path)
    system = searching(BeamSearch(lexicon=["LICENSE", "YES"]))
    before = describe_system(system)
    (tmp_path / "LICENSE").write_text("all rights")
    assert describe_system(system) == before and before["description"]["files"] == {}


def test_who_shares_a_gradient_source() -> None:
    plain = seeded(ToyCTC)
    systems = {
        "plain": plain,
        "again": seeded(ToyCTC),
        "little": Defended(GaussianNoise(0.01), seeded(ToyCTC)),
        "much": Defended(GaussianNoise(0.05), seeded(ToyCTC)),
        "beam": searching(BeamSearch()),
    }
    attacks = {
        "exact": PaperPGD(Linf(0.01)),
        "unaware": PaperPGD(Linf(0.01), knowledge="unaware"),
        "straight": PaperPGD(Linf(0.01), knowledge="straight_through"),
        "none": Clean(),
    }
    sources = gradient_sources(systems.items(), attacks)
    exact = [sources[name, "exact"] for name in systems]
    assert exact[0] == exact[1] and len(set(exact)) == 4
    unaware = [sources[name, "unaware"] for name in systems]
    # An attack may stop where it is heard, so another search is another source.
    assert len(set(unaware[:4])) == 1 and unaware[4] != unaware[0]
    assert sources["little", "straight"] not in (sources["little", "exact"], sources["much", "straight"])
