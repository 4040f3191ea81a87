"""Goals, and the phrases that targeted ones choose from."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robust_asr.attacks import phrases
from robust_asr.attacks.goals import Goal, Targeted, Untargeted
from robust_asr.attacks.phrases import Jayashankar2020, Olivier2021, PhraseFile, PhraseList, Phrases, Yang2022
from robust_asr.randomness import utterance_seeds
from robust_asr.storage import trust
from robust_asr.storage.describe import describe
from robust_asr.text import normalize
from robust_asr.types import AudioBatch, Transcript


def batch(*texts: str) -> AudioBatch:
    ids = tuple(f"utterance-{number}" for number in range(len(texts)))
    return AudioBatch(torch.zeros(len(texts), 8), torch.full((len(texts),), 8), texts, ids)


def transcripts(*texts: str) -> list[Transcript]:
    return [Transcript(text) for text in texts]


def chosen(goal: Goal, spoken: AudioBatch, seed: int = 0) -> tuple[str, ...]:
    return goal.texts(spoken, seeds=utterance_seeds(seed, spoken.ids))


def test_untargeted_is_away_from_the_reference() -> None:
    goal, spoken = Untargeted(), batch("Open the door", "close it")
    assert (goal.sign, goal.targeted) == (1, False) and chosen(goal, spoken) == spoken.texts
    assert goal.reached(spoken.texts, transcripts("OPEN  THE DOOR", "close")) == [False, True]


def test_targeted_is_reached_word_for_word_after_normalisation() -> None:
    goal = Targeted(Yang2022())
    assert (goal.sign, goal.targeted) == (-1, True) and chosen(goal, batch("HI")) == ("OPEN THE DOOR",)
    heard = ("open  the door ", "OPEN THE", "", "OPEN THE DOOR NOW")
    assert goal.reached(("OPEN THE DOOR",) * 4, transcripts(*heard)) == [True, False, False, False]
    assert goal.reached(("DON’T",), transcripts("don't")) == [True]


@pytest.mark.parametrize("goal", [Untargeted(), Targeted(Yang2022())])
def test_what_a_detector_flags_is_no_success(goal: Goal) -> None:
    wanted = "OPEN THE DOOR" if goal.targeted else "SOMETHING ELSE"
    heard = [Transcript(wanted, score=0.9, flagged=flagged) for flagged in (False, True)]
    assert goal.reached(("OPEN THE DOOR",) * 2, heard) == [True, False]


TEXTS = st.lists(st.text("AB c", max_size=12), min_size=1, max_size=12)


@given(TEXTS, st.text("AB c", max_size=12), st.integers(1, 5), st.integers(0, 2**63 - 1))
def test_choice_is_among_the_nearest(texts: list[str], reference: str, num_nearest: int, seed: int) -> None:
    listed = PhraseList(tuple(texts), num_nearest=num_nearest)
    others = {normalize(text) for text in texts} - {normalize(reference)}
    if not others:
        with pytest.raises(ValueError, match="no phrase differs from the reference"):
            listed.choose(reference, seed=seed)
        return
    found = listed.choose(reference, seed=seed)
    assert found in others and listed.choose(reference, seed=seed) == found

    def distance(text: str) -> int:
        return abs(len(text) - len(normalize(reference)))

    assert sum(distance(other) < distance(found) for other in others) < num_nearest


def test_choice_is_uniform_among_the_nearest() -> None:
    listed = PhraseList(("A", "AB", "ABC", "ABCD", "ABCDE", "X" * 20), num_nearest=3)
    counts = Counter(listed.choose("XYZ", seed=seed) for seed in range(3000))
    assert set(counts) == {"AB", "ABC", "ABCD"}
    assert all(abs(count - 1000) < 4 * (3000 * 2 / 9) ** 0.5 for count in counts.values())


def test_ties_are_decided_by_the_seed() -> None:
    listed = PhraseList(tuple(f"{letter}{letter}" for letter in "ABCDEFGH"), num_nearest=1)
    counts = Counter(listed.choose("X", seed=seed) for seed in range(4000))
    assert len(counts) == 8 and all(abs(count - 500) < 4 * (4000 * 7 / 64) ** 0.5 for count in counts.values())


def test_one_tie_at_the_border_of_the_nearest() -> None:
    """Two places left for two of the three phrases at distance 1: each of them in two thirds of the cases."""
    listed = PhraseList(("XX", "AAA", "BBB", "C"), num_nearest=3)
    counts = Counter(listed.choose("YY", seed=seed) for seed in range(9000))
    for text, share in (("XX", 1 / 3), ("AAA", 2 / 9), ("BBB", 2 / 9), ("C", 2 / 9)):
        assert counts[text] / 9000 == pytest.approx(share, abs=4 * (share * (1 - share) / 9000) ** 0.5)


def test_target_is_never_the_reference() -> None:
    goal = Targeted(PhraseList(("open the door", "OPEN  THE DOOR", "shut")))
    assert all(chosen(goal, batch("Open the door"), seed) == ("SHUT",) for seed in range(20))
    with pytest.raises(
        ValueError,
        match="utterance utterance-1: no phrase differs from the reference: the only phrase of the list is 'OPEN THE DOOR'",
    ):
        chosen(Targeted(Yang2022()), batch("CLOSE IT", "open the door"))


def test_target_of_an_utterance_does_not_depend_on_its_batch() -> None:
    goal = Targeted(PhraseList(tuple("ABCDEFGH" * 1) + tuple(f"{a}{b}" for a in "KLMN" for b in "PQRS"), num_nearest=6))
    spoken = batch("ONE", "TWO THREE", "FOUR", "ONE")
    together = chosen(goal, spoken)
    alone = [chosen(goal, spoken.select([row])) for row in range(4)]
    assert together == tuple(text for (text,) in alone)
    assert len({chosen(goal, spoken, seed) for seed in range(5)}) > 1


def test_fixed_lists_of_the_papers() -> None:
    short, median, long = Olivier2021().texts
    assert [(len(text), len(text.split())) for text in (short, median, long)] == [(24, 4), (85, 16), (198, 36)]
    goal = Targeted(Olivier2021())
    references = ("A" * 54, "A" * 55, "A" * 141, "A" * 142)
    assert all(chosen(goal, batch(*references), seed) == (short, median, median, long) for seed in range(5))
    assert Jayashankar2020().texts == ("OKAY GOOGLE UNLOCK PHONE AND DELETE FILES",)
    for listed in (Olivier2021(), Jayashankar2020(), Yang2022()):
        assert all(normalize(text) == text for text in listed.texts)


@pytest.fixture
def phrase_file(tmp_path: Path) -> Path:
    path = tmp_path / "phrases.txt"
    path.write_bytes("\ufeffopen the door\r\n\n  \nDÉJÀ VU\nopen the door\n".encode())
    return path


def test_phrases_from_a_file(phrase_file: Path) -> None:
    found = PhraseFile(str(phrase_file))
    assert found.texts == ("open the door", "DÉJÀ VU", "open the door") and found.num_nearest == 20
    assert {found.choose("HELLO", seed=seed) for seed in range(20)} == {"OPEN THE DOOR", "DÉJÀ VU"}


@pytest.mark.parametrize("made", [Olivier2021(), Yang2022(), PhraseList(("A", ""), num_nearest=3)])
def test_described_and_built_again(made: Phrases) -> None:
    rebuilt = trust.build(describe(Targeted(made)), expected=Goal, field="goal")
    assert rebuilt == Targeted(made) and rebuilt.phrases.texts == made.texts


def test_a_description_names_the_content_of_the_file(phrase_file: Path) -> None:
    description = describe(PhraseFile(str(phrase_file)))
    assert description["init_args"]["sha256"] == hashlib.sha256(phrase_file.read_bytes()).hexdigest()
    assert trust.build(description, expected=Phrases, field="phrases") == PhraseFile(str(phrase_file))
    phrase_file.write_text("CLOSE IT\n")
    with pytest.raises(ValueError, match=r"phrases.txt: holds other phrases than the configuration asks for"):
        trust.build(description, expected=Phrases, field="phrases")


BAD_FILES = {
    b"": "holds no phrase",
    b"\n \r\n\t\n": "holds no phrase",
    b"FINE\n\xff\xfe": "line 2: is not UTF-8",
    b"FINE\nA\x1b[31mB": "line 2: holds a character that cannot be printed",
    b"A\0B": "line 1: holds a character that cannot be printed",
    "A\u202eB".encode(): "line 1: holds a character that cannot be printed",
    b"FINE\n" + b"A" * 2001: "line 2: has 2001 characters, at most 2000",
}


@pytest.mark.parametrize("content", BAD_FILES)
def test_what_is_wrong_with_a_file_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "phrases.txt").write_bytes(content)
    with pytest.raises(ValueError, match=f"phrases.txt.*{BAD_FILES[content]}"):
        PhraseFile(str(tmp_path / "phrases.txt"))


def test_only_regular_files_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.txt: no such file of phrases"):
        PhraseFile(str(tmp_path / "absent.txt"))
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ValueError, match="is a folder or a device"):
            PhraseFile(str(path))
    monkeypatch.setattr(phrases, "_MAX_BYTES", 10)
    (tmp_path / "large.txt").write_text("A LINE\n" * 2)
    with pytest.raises(ValueError, match=r"large\.txt: is larger than 10 bytes"):
        PhraseFile(str(tmp_path / "large.txt"))


@pytest.mark.parametrize("num_nearest", [0, -1])
def test_a_choice_among_none_is_refused(num_nearest: int, phrase_file: Path) -> None:
    for make in (lambda: PhraseList(("A",), num_nearest), lambda: PhraseFile(str(phrase_file), num_nearest)):
        with pytest.raises(ValueError, match=f"num_nearest must be at least 1, found {num_nearest}"):
            make()


@pytest.mark.parametrize("texts", [(), "OPEN THE DOOR"])
def test_a_list_holds_phrases(texts: object) -> None:
    with pytest.raises(ValueError, match="texts must hold at least one phrase, found"):
        PhraseList(texts)
