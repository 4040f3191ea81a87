"""Oracles: enumeration, finite differences, CTC."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from robust_asr.lfmmi.automaton import phone_graph
from robust_asr.lfmmi.denominator import denominator
from robust_asr.lfmmi.graphs import PhoneGraphs, batched
from robust_asr.lfmmi.loss import lfmmi_loss
from robust_asr.lfmmi.numerator import numerator
from tests.robust_asr.lfmmi.enumeration import SILENCE, log_total, random_bigram, random_log_probs, sequences
from tests.robust_asr.lfmmi.test_graphs import WORDS

NUM_LABELS = 5
FRAME_LENGTHS = torch.tensor([5, 1, 4, 3, 5, 2])


def _graphs(texts: list) -> PhoneGraphs:
    return batched([phone_graph(words, silence=SILENCE) for words in texts], num_labels=NUM_LABELS)


def _close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("num_labels", [2, 3, 4, 5])
def test_denominator_is_the_sum_over_all_paths(num_labels: int):
    log_probs, log_bigram = random_log_probs(6, 5, num_labels), random_bigram(num_labels)
    log_probs[1, 1:] = math.nan
    found = denominator(log_probs, FRAME_LENGTHS, log_bigram)
    for row, length in enumerate(FRAME_LENGTHS.tolist()):
        _close(found[row], log_total(log_probs[row, :length], log_bigram))


@pytest.mark.parametrize("num_frames", [1, 3, 5])
def test_numerator_is_the_sum_over_the_paths_of_the_text(num_frames: int):
    log_probs, log_bigram = random_log_probs(len(WORDS), num_frames, NUM_LABELS), random_bigram(NUM_LABELS)
    graphs = _graphs(list(WORDS.values()))
    found = numerator(log_probs, torch.full((len(WORDS),), num_frames), graphs, log_bigram)
    for row, words in enumerate(WORDS.values()):
        expected = log_total(log_probs[row], log_bigram, sequences(words))
        _close(found[row], expected)
        assert bool(expected.isfinite()) == (int(graphs.frames_needed[row]) <= num_frames)


def test_batch_of_any_lengths_is_each_alone():
    texts = list(WORDS.values())
    log_probs, log_bigram = random_log_probs(6, 9, NUM_LABELS), random_bigram(NUM_LABELS)
    frame_lengths = torch.tensor([9, 3, 8, 7, 9, 4])
    log_probs.requires_grad_()
    losses = lfmmi_loss(log_probs, frame_lengths, _graphs(texts), log_bigram)
    (together,) = torch.autograd.grad(losses.sum(), log_probs)
    for row, length in enumerate(frame_lengths.tolist()):
        alone = log_probs[row : row + 1, :length]
        loss = lfmmi_loss(alone, frame_lengths[row : row + 1], _graphs(texts[row : row + 1]), log_bigram)
        _close(losses[row], loss[0])
        (gradient,) = torch.autograd.grad(loss.sum(), alone)
        _close(together[row, :length], gradient[0])
        assert not together[row, length:].any()


@pytest.mark.parametrize("part", [denominator, lfmmi_loss, numerator])
def test_gradient_is_that_of_finite_differences(part):
    log_bigram, graphs = random_bigram(NUM_LABELS), _graphs(list(WORDS.values())[:4])
    frame_lengths = torch.tensor([6, 4, 7, 5])
    arguments = (log_bigram,) if part is denominator else (graphs, log_bigram)
    scores = random_log_probs(4, 7, NUM_LABELS).requires_grad_()
    assert torch.autograd.gradcheck(lambda values: part(values, frame_lengths, *arguments), scores)
    assert torch.autograd.gradcheck(lambda values: part(values.log_softmax(-1), frame_lengths, *arguments), scores)


def test_without_a_gradient_it_is_the_same_number():
    log_bigram, graphs = random_bigram(NUM_LABELS), _graphs(list(WORDS.values())[:4])
    log_probs, frame_lengths = random_log_probs(4, 9, NUM_LABELS).requires_grad_(), torch.tensor([9, 6, 8, 7])
    losses = lfmmi_loss(log_probs, frame_lengths, graphs, log_bigram)
    assert losses.requires_grad
    with torch.no_grad():
        assert torch.equal(lfmmi_loss(log_probs, frame_lengths, graphs, log_bigram), losses)


def test_gradient_is_the_occupancy():
    log_probs, log_bigram = random_log_probs(1, 4, NUM_LABELS), random_bigram(NUM_LABELS)
    words = WORDS["two pronunciations"]
    log_probs.requires_grad_()
    value = numerator(log_probs, torch.tensor([4]), _graphs([words]), log_bigram)
    (gradient,) = torch.autograd.grad(value.sum(), log_probs)
    _close(gradient[0].sum(-1), torch.ones(4, dtype=torch.float64))
    for frame in range(4):
        for label in range(NUM_LABELS):
            # The share of the paths that pass here: what is lost when they may not.
            closed = log_probs.detach()[0].clone()
            closed[frame, label] = -1e9
            rest = log_total(closed, log_bigram, sequences(words))
            _close(gradient[0, frame, label], 1 - (rest - value[0]).exp(), 1e-9)


def test_rows_of_the_loss_gradient_sum_to_zero_and_normalising_changes_nothing():
    scores, log_bigram = 3 * torch.randn(4, 9, NUM_LABELS), random_bigram(NUM_LABELS)
    graphs, frame_lengths = _graphs(list(WORDS.values())[:4]), torch.tensor([9, 5, 7, 8])
    losses = []
    for values in (scores, scores.log_softmax(-1)):
        values = values.requires_grad_()
        losses.append(lfmmi_loss(values, frame_lengths, graphs, log_bigram))
        (gradient,) = torch.autograd.grad(losses[-1].sum(), values)
        _close(gradient.sum(-1), torch.zeros(4, 9), 1e-5)
    _close(*losses, 1e-4)


def test_one_pronunciation_is_ctc_and_the_bigram():
    log_bigram, frame_lengths = random_bigram(NUM_LABELS), torch.tensor([12, 30])
    log_probs = random_log_probs(2, 30, NUM_LABELS)
    # No audio ever is silent, so that silence between the words weighs nothing.
    log_probs[..., SILENCE] = -1e4
    texts = [[[(2, 3, 3)], [(4,)]], [[(2,)], [(2, 4)], [(3, 2, 2)]]]
    found = numerator(log_probs, frame_lengths, _graphs(texts), log_bigram)
    for row, words in enumerate(texts):
        phones = sum((variants[0] for variants in words), ())
        ctc = functional.ctc_loss(
            log_probs[row, : frame_lengths[row], None],
            torch.tensor([phones]),
            frame_lengths[row : row + 1],
            torch.tensor([len(phones)]),
            reduction="sum",
        )
        bigrams = sum(log_bigram[pair] for pair in zip((0, *phones), (*phones, 0), strict=True))
        _close(found[row], bigrams - ctc, 1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_numerator_is_never_above_the_denominator(seed: int):
    generator = torch.Generator().manual_seed(seed)
    texts = [
        [
            [
                tuple(torch.randint(1, NUM_LABELS, (size,), generator=generator).tolist())
                for size in torch.randint(1, 4, (3,), generator=generator).tolist()
            ]
            for _ in range(4)
        ]
        for _ in range(5)
    ]
    log_probs = random_log_probs(5, 40, NUM_LABELS, seed=seed, scale=1.0 + seed)
    frame_lengths = torch.full((5,), 40)
    losses = lfmmi_loss(log_probs, frame_lengths, _graphs(texts), random_bigram(NUM_LABELS, seed=seed))
    assert bool((losses >= -1e-9).all())


def test_all_sequences_of_the_language_make_the_denominator():
    # A text of one word with every pronunciation of up to three phones, where three frames carry no more.
    log_probs, log_bigram = random_log_probs(1, 3, 3), random_bigram(3)
    everything = [[(1,), (2,), (1, 2), (2, 1), (1, 1), (2, 2), (1, 2, 1), (2, 1, 2)]]
    graphs = batched([phone_graph(words, silence=SILENCE) for words in (everything, [])], num_labels=3)
    found = numerator(log_probs.expand(2, -1, -1), torch.tensor([3, 3]), graphs, log_bigram)
    nothing = log_total(log_probs[0], log_bigram, [()])
    _close(torch.logaddexp(found[0], nothing), denominator(log_probs, torch.tensor([3]), log_bigram)[0])


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_thirty_seconds_in_single_precision(scale: float):
    # 750 frames of 40 ms, 71 phones, a text of 100 words; certain networks and such that were never trained.
    num_labels, num_frames = 72, 750
    generator = torch.Generator().manual_seed(0)
    words = [[tuple(torch.randint(1, 72, (4,), generator=generator).tolist())] for _ in range(100)]
    graphs = batched([phone_graph(words, silence=SILENCE)], num_labels=num_labels)
    log_probs, log_bigram = random_log_probs(1, num_frames, num_labels, scale=scale), random_bigram(num_labels)
    results = []
    for dtype in (torch.float32, torch.float64):
        values = log_probs.to(dtype).requires_grad_()
        loss = lfmmi_loss(values, torch.tensor([num_frames]), graphs, log_bigram.to(dtype))
        results.append((loss.double(), torch.autograd.grad(loss.sum(), values)[0].double()))
    (loss, gradient), (exact, exact_gradient) = results
    assert bool(gradient.isfinite().all())
    torch.testing.assert_close(loss, exact, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient, exact_gradient, rtol=0, atol=1e-3)


def test_what_the_frames_cannot_carry_is_infinite_and_harmless():
    log_probs = random_log_probs(2, 3, NUM_LABELS).float().requires_grad_()
    graphs = _graphs([[[(2, 3, 4, 2)]], [[(2, 3, 4)]]])
    losses = lfmmi_loss(log_probs, torch.tensor([3, 3]), graphs, random_bigram(NUM_LABELS))
    (gradient,) = torch.autograd.grad(losses.sum(), log_probs)
    assert losses[0] == math.inf and bool(losses[1].isfinite())
    assert not gradient[0].any() and bool(gradient[1].any()) and bool(gradient.isfinite().all())
