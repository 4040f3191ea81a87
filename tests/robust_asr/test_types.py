from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robust_asr.types import AudioBatch, PairedBatch, TokenTargets

LENGTHS = (5, 3, 4)


def make_batch() -> AudioBatch:
    waveforms = torch.zeros(3, 5)
    for row, length in enumerate(LENGTHS):
        waveforms[row, :length] = row + 1
    return AudioBatch(waveforms, torch.tensor(LENGTHS), ("A", "B", "C"), ("a", "b", "c"))


def test_fields_agree_in_length() -> None:
    with pytest.raises(ValueError, match="'texts': 1"):
        AudioBatch(torch.zeros(2, 4), torch.tensor([4, 4]), ("A",), ("a", "b"))


def test_replace_keeps_the_rest() -> None:
    batch = make_batch()
    replaced = batch.replace(batch.waveforms + 1)
    assert (replaced.ids, replaced.texts) == (batch.ids, batch.texts) and len(replaced) == 3
    assert torch.equal(replaced.waveforms, batch.waveforms + 1)
    with pytest.raises(ValueError, match=r"\(3, 5\) replaced by \(3, 6\)"):
        batch.replace(torch.zeros(3, 6))


def test_replace_may_change_the_lengths() -> None:
    """A perturbation may put a segment in front, and a defence may resample."""
    batch, longer = make_batch(), torch.ones(3, 9)
    replaced = batch.replace(longer, torch.tensor([9, 7, 8]))
    assert replaced.lengths.tolist() == [9, 7, 8] and replaced.waveforms is longer and replaced.texts == batch.texts
    assert batch.lengths.tolist() == list(LENGTHS)
    with pytest.raises(ValueError, match="lengths: up to 10 samples, the waveforms hold 9"):
        batch.replace(longer, torch.tensor([10, 7, 8]))


def test_pairs_stay_pairs() -> None:
    batch = make_batch()
    pairs = PairedBatch(batch.waveforms, batch.lengths, batch.texts, batch.ids, batch.waveforms + 7)
    picked = pairs.select([1, 2])
    assert isinstance(picked, PairedBatch) and picked.clean.shape == (2, 4)
    assert torch.equal(picked.clean, pairs.clean[1:, :4]) and pairs.to("meta").clean.is_meta


@given(st.lists(st.integers(0, 2), max_size=5))
def test_select_takes_whole_utterances_and_no_padding(rows: list[int]) -> None:
    picked = make_batch().select(rows)
    assert picked.lengths.tolist() == [LENGTHS[row] for row in rows]
    assert picked.ids == tuple("abc"[row] for row in rows) and picked.texts == tuple("ABC"[row] for row in rows)
    assert picked.waveforms.shape == (len(rows), max((LENGTHS[row] for row in rows), default=0))
    assert picked.waveforms.sum(1).tolist() == [LENGTHS[row] * (row + 1) for row in rows]


def test_select_by_mask() -> None:
    # The mask of the utterances that an attack still works on.
    assert make_batch().select(torch.tensor([False, True, True])).ids == ("b", "c")


def test_to_moves_what_is_a_tensor() -> None:
    moved = make_batch().to("meta")
    assert moved.waveforms.is_meta and moved.lengths.is_meta and moved.ids == ("a", "b", "c")


def make_targets() -> TokenTargets:
    return TokenTargets(torch.tensor([[1, 2, 3], [4, 0, 0], [5, 6, 0]]), torch.tensor([3, 1, 2]))


@given(st.lists(st.integers(0, 2), max_size=5))
def test_targets_select(rows: list[int]) -> None:
    source, picked = make_targets(), make_targets().select(torch.tensor(rows, dtype=torch.long))
    assert len(picked) == len(rows)
    assert picked.tokens.shape[1] == max((int(source.token_lengths[row]) for row in rows), default=0)
    for row, tokens, length in zip(rows, picked.tokens, picked.token_lengths, strict=True):
        assert torch.equal(tokens[:length], source.tokens[row, : source.token_lengths[row]])


def test_targets_repeat_in_a_row() -> None:
    repeated = make_targets().repeat(2)
    assert repeated.token_lengths.tolist() == [3, 3, 1, 1, 2, 2]
    assert repeated.tokens[:, 0].tolist() == [1, 1, 4, 4, 5, 5]
