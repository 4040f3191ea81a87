from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from robust_asr.search.ctc_prefix import CtcPrefixes

FRAMES = torch.tensor([6, 3, 1])


def _log_probs() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (1.5 * torch.randn(3, 6, 4, dtype=torch.float64, generator=generator)).log_softmax(-1)


def test_the_sum_over_a_text_and_its_end_is_minus_its_ctc_loss():
    log_probs = _log_probs()
    for text in ([], [1], [2, 2], [1, 3, 1], [3, 3, 1, 1], [1, 2, 3, 1, 2, 3], [2] * 4):
        prefixes = CtcPrefixes(log_probs, FRAMES, width=1, blank=0)
        state, total, previous = prefixes.start(), torch.zeros(3).double(), 0
        for token in [*text, 0]:
            expected, state = prefixes.step(torch.full((3,), previous), state)
            total = total + expected[:, token]
            previous = token
        losses = functional.ctc_loss(
            log_probs.transpose(0, 1),
            torch.tensor([text] * 3).long(),
            FRAMES,
            torch.tensor([len(text)] * 3),
            reduction="none",
        )
        torch.testing.assert_close(-total, losses)


def test_all_that_may_follow_is_all_there_is():
    prefixes = CtcPrefixes(_log_probs(), FRAMES, width=1, blank=0)
    state = prefixes.start()
    for previous in (0, 2, 2, 1):
        expected, state = prefixes.step(torch.full((3,), previous), state)
        possible = state[3].isfinite()
        torch.testing.assert_close(expected.logsumexp(1)[possible], torch.zeros(int(possible.sum())).double())
        assert not expected.isnan().any() and bool((expected[~possible] == -torch.inf).all())


def test_hypotheses_and_padding_are_kept_apart():
    log_probs = functional.pad(_log_probs(), (0, 0, 0, 2), value=-0.1)
    prefixes = CtcPrefixes(log_probs, FRAMES, width=2, blank=0)
    _, state = prefixes.step(torch.zeros(6).long(), prefixes.start())
    first = torch.tensor([1, 2, 3, 1, 2, 3])
    _, state = prefixes.step(first, state)
    rows = torch.tensor([1, 1, 3, 2, 4, 5])
    second = torch.tensor([2, 1, 3, 3, 2, 1])
    found, _ = prefixes.step(second, state[rows])
    for row in range(6):
        one = slice(row // 2, row // 2 + 1)
        alone = CtcPrefixes(_log_probs()[one, : FRAMES[row // 2]], FRAMES[one], width=1, blank=0)
        state = alone.start()
        for token in (0, int(first[rows[row]]), int(second[row])):
            expected, state = alone.step(torch.tensor([token]), state)
        torch.testing.assert_close(found[row], expected[0])
