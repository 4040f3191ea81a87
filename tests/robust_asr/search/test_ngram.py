"""Oracle: the textbook recursion of back-off, over a dictionary of the file's lines."""

from __future__ import annotations

import gzip
import itertools
import random
from pathlib import Path

import pytest
import torch

from robust_asr.search.ngram import WordScores, read_arpa

Entries = dict[tuple[str, ...], tuple[float, float]]
WORDS = ["A", "B", "C"]


def random_entries(order: int, *, seed: int, unknown: bool = True) -> Entries:
    """Some n-grams of each order, all of their histories, but not all of their ends, as pruning leaves them."""
    rng = random.Random(seed)
    found = [(word,) for word in ["<s>", "</s>", *WORDS, *["<unk>"] * unknown]]
    for length in range(2, order + 1):
        histories = [words for words in found if len(words) == length - 1 and words[-1] != "</s>"]
        pairs = [(*words, last) for words, last in itertools.product(histories, ["</s>", *WORDS])]
        found += rng.sample(pairs, len(pairs) // 3)
    return {words: (-rng.uniform(0.1, 3), -rng.uniform(0, 1)) for words in found}


def write(path: Path, entries: Entries) -> str:
    order = max(map(len, entries))
    by_order = [[words for words in entries if len(words) == length] for length in range(1, order + 1)]
    lines = ["\\data\\", *(f"ngram {length}={len(found)}" for length, found in enumerate(by_order, start=1))]
    for length, found in enumerate(by_order, start=1):
        lines += ["", f"\\{length}-grams:"]
        for words in found:
            score, back_off = entries[words]
            lines.append(f"{score!r}\t{' '.join(words)}" + (f"\t{back_off!r}" if length < order else ""))
    path.write_text("\n".join([*lines, "", "\\end\\", ""]))
    return str(path)


def log10(entries: Entries, history: tuple[str, ...], word: str) -> float:
    """Katz 1987, as ARPA files write it down."""
    order = max(map(len, entries))
    history = history[len(history) - min(len(history), order - 1) :]
    if (*history, word) in entries:
        return entries[*history, word][0]
    if not history:
        return entries[("<unk>",)][0] if ("<unk>",) in entries else -100.0
    return entries.get(history, (0.0, 0.0))[1] + log10(entries, history[1:], word)


@pytest.mark.parametrize("as_table", [True, False])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_every_word_after_every_history(order: int, seed: int, as_table: bool, tmp_path: Path) -> None:
    entries = random_entries(order, seed=seed, unknown=seed % 2 == 0)
    ngram = read_arpa(write(tmp_path / "model.arpa", entries))
    # An unknown word of the text is <unk> to the model, as a history too.
    words = [*WORDS, "D", "E"]
    scores = WordScores(ngram, words)
    if not as_table:
        scores._table = None
    for text in itertools.product(words, repeat=4):
        state, history = torch.tensor([scores.begin]), ("<s>",)
        for word in text:
            heard = word if word in WORDS else "<unk>"
            found, state = scores(state, torch.tensor([words.index(word)]))
            assert float(found) == pytest.approx(log10(entries, history, heard), abs=1e-9)
            history = (*history, heard)
        end = scores.ends(state[None])
        assert float(end) == pytest.approx(log10(entries, history, "</s>"), abs=1e-9)


def test_many_at_once(tmp_path: Path) -> None:
    scores = WordScores(read_arpa(write(tmp_path / "model.arpa", random_entries(3, seed=0))), WORDS)
    states, words = torch.tensor([0, 1, 2, 3, 4]), torch.tensor([2, 1, 0, 2, 1])
    together = scores(states, words)
    for row in range(5):
        alone = scores(states[row : row + 1], words[row : row + 1])
        assert all(torch.equal(one, many[row : row + 1]) for one, many in zip(alone, together, strict=True))


def test_a_large_model_has_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ngram = read_arpa(write(tmp_path / "model.arpa", random_entries(3, seed=0)))
    assert WordScores(ngram, WORDS)._table is not None
    monkeypatch.setattr(WordScores, "largest_table", 3)
    assert WordScores(ngram, WORDS)._table is None


def test_compressed_is_the_same(tmp_path: Path) -> None:
    plain = Path(write(tmp_path / "model.arpa", random_entries(3, seed=1)))
    packed = tmp_path / "model.arpa.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    one, other = read_arpa(str(plain)), read_arpa(str(packed))
    assert one.vocabulary == other.vocabulary
    assert torch.equal(one.keys, other.keys) and torch.equal(one.scores, other.scores)


def test_what_never_happens_is_finite(tmp_path: Path) -> None:
    path = tmp_path / "model.arpa"
    path.write_text("\\data\\\nngram 1=3\n\n\\1-grams:\n-inf <s>\n-1 </s>\n-inf A\n\n\\end\\\n")
    scores, _ = WordScores(read_arpa(str(path)), ["A"])(torch.tensor([0]), torch.tensor([0]))
    assert scores.tolist() == [-100.0]


GOOD = ["\\data\\", "ngram 1=3", "ngram 2=1", "", "\\1-grams:", "-1\t<s>\t-0.1", "-1\t</s>", "-1\tA\t-0.2", ""]
GOOD += ["\\2-grams:", "-0.5\t<s> A", "", "\\end\\"]


def test_the_good_file_is_good(tmp_path: Path) -> None:
    path = tmp_path / "model.arpa"
    path.write_text("\n".join(GOOD))
    assert len(read_arpa(str(path)).keys) == 5, "with <unk>"


@pytest.mark.parametrize(
    ("line", "replacement", "message"),
    [
        (2, "ngram 2=3", "line 2: 'ngram 2=3' is not of the form 'ngram 1=COUNT'"),
        (2, "ngram 1=some", "line 2: .*'ngram 1=COUNT'"),
        (3, "", "line 6: .* is no 1-gram: a log10 probability"),
        (5, "\\2-grams:", "line 5: .*2-grams:' where .*1-grams:' is due"),
        (6, "-1\t<s>\t-0.1\t4", "line 6: .* is no 1-gram"),
        (6, "-1\t<s>\tfour", "line 6: 'four' is not a number"),
        (6, "nan\t<s>", "line 6: 'nan'"),
        (6, "inf\t<s>", "line 6: 'inf'"),
        (7, "", "line 10: .*1 more 1-grams"),
        (8, "-1\t</s>", "line 8: '</s>' is listed twice"),
        (9, "-1\tB", "line 9: more 1-grams than the 3"),
        (11, "-0.5\t<s> B", "line 11: 'B' is not among the 1-grams"),
        (11, "-0.5\t<s> A -1", "line 11: .* is no 2-gram"),
        (11, "-0.5", "line 11: .* is no 2-gram"),
        (12, "\\3-grams:", "line 12: .*3-grams:' where .*end.* is due"),
        (13, "", "line 13: no line .*end"),
        (1, "data", "line 13: no line .*data"),
    ],
)
def test_a_malformed_line_is_named(line: int, replacement: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.arpa"
    path.write_text("\n".join([*GOOD[: line - 1], replacement, *GOOD[line:]]) + "\n")
    with pytest.raises(ValueError, match=rf"(?s)ngram .*model\.arpa cannot be read: {message}"):
        read_arpa(str(path))


def test_a_missing_history_is_named(tmp_path: Path) -> None:
    entries = random_entries(3, seed=0)
    kept = next(words for words in entries if len(words) == 3)
    path = write(tmp_path / "model.arpa", {words: entry for words, entry in entries.items() if words != kept[:2]})
    with pytest.raises(ValueError, match=r"line \d+: .* without its history, which is no listed 2-gram"):
        read_arpa(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"mmap lm http://kheafield.com/code format version 5\n\0", "KenLM binary.*ARPA"),
        (b"\\data\\\nngram 1=1\n\\1-grams:\n-1\t\xff\n", "line 4"),
        (gzip.compress(b"\\data\\\nngram 1=1\n" * 100)[:-12], "cannot be read"),
        (b"\x1f\x8bno gzip", "cannot be read"),
        (b"", "line 0: no line"),
    ],
    ids=["kenlm", "latin", "cut", "corrupt", "empty"],
)
def test_what_is_no_arpa_file_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_arpa(str(path))
