from __future__ import annotations

from collections.abc import Callable
from itertools import combinations_with_replacement

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from robust_asr.models.transducer_loss import next_scores, transducer_loss
from robust_asr.types import TokenTargets

SIZE = 5
FRAME_LENGTHS = torch.tensor([4, 3, 1, 4])
TARGETS = TokenTargets(torch.tensor([[1, 3, 3], [0, 0, 0], [2, 4, 0], [1, 0, 0]]), torch.tensor([3, 0, 2, 1]))


class Joint(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, SIZE)

    def forward(self, frames: Tensor, predicted: Tensor) -> Tensor:
        return self.head((frames + predicted).tanh()).log_softmax(-1)


def loss_of(
    joint: Callable[[Tensor, Tensor], Tensor],
    frames: Tensor,
    frame_lengths: Tensor,
    predicted: Tensor,
    targets: TokenTargets,
    **sizes: int,
) -> Tensor:
    scores = next_scores(joint, frames, frame_lengths, predicted, targets, **sizes)
    return transducer_loss(scores, frame_lengths, targets.token_lengths)


@pytest.fixture
def given() -> tuple[Joint, Tensor, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Joint(), 2 * torch.randn(4, 5, 6, requires_grad=True), 2 * torch.randn(4, 4, 6, requires_grad=True)


def by_enumeration(log_probs: Tensor, tokens: list[int]) -> Tensor:
    """Minus the logarithm of the sum over all alignments, one by one. Shape: (F, U + 1, V) -> ()."""
    totals = []
    for frames in combinations_with_replacement(range(len(log_probs)), len(tokens)):
        total, written = log_probs.new_zeros(()), 0
        for frame in range(len(log_probs)):
            while written < len(tokens) and frames[written] == frame:
                total = total + log_probs[frame, written, tokens[written]]
                written += 1
            total = total + log_probs[frame, written, 0]
        totals.append(total)
    return -torch.stack(totals).logsumexp(0)


def exact(joint: Joint, frames: Tensor, predicted: Tensor) -> Tensor:
    weight, bias = joint.head.weight.double(), joint.head.bias.double()
    losses = []
    for row, (num_frames, num_tokens) in enumerate(zip(FRAME_LENGTHS, TARGETS.token_lengths, strict=True)):
        units = frames[row, :num_frames, None].double() + predicted[row, None, : num_tokens + 1].double()
        log_probs = (units.tanh() @ weight.T + bias).log_softmax(-1)
        losses.append(by_enumeration(log_probs, TARGETS.tokens[row, :num_tokens].tolist()))
    return torch.stack(losses)


@pytest.mark.parametrize("max_scores", [2**24, 4 * 4 * SIZE * 2, 1], ids=["whole", "two frames", "one frame"])
def test_equals_enumeration(given: tuple, max_scores: int) -> None:
    joint, frames, predicted = given
    losses = loss_of(joint, frames, FRAME_LENGTHS, predicted, TARGETS, size=SIZE, blank=0, max_scores=max_scores)
    expected = exact(*given)
    torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e-5)
    sources = frames, predicted, *joint.parameters()
    found = torch.autograd.grad(losses.sum(), sources)
    for gradient, right in zip(found, torch.autograd.grad(expected.sum(), sources), strict=True):
        torch.testing.assert_close(gradient, right.to(gradient), rtol=1e-4, atol=1e-5)


def test_texts_without_tokens(given: tuple) -> None:
    joint, frames, predicted = given
    nothing = TokenTargets(TARGETS.tokens[:, :0], torch.zeros(4, dtype=torch.long))
    losses = loss_of(joint, frames, FRAME_LENGTHS, predicted[:, :1], nothing, size=SIZE)
    blanks = joint(frames, predicted[:, :1])[..., 0]
    expected = torch.stack([-blanks[row, :length].sum() for row, length in enumerate(FRAME_LENGTHS)])
    torch.testing.assert_close(losses, expected)


def test_what_lies_in_the_padding_does_not_count(given: tuple) -> None:
    joint, frames, predicted = given
    usual = loss_of(joint, frames, FRAME_LENGTHS, predicted, TARGETS, size=SIZE)
    valid_frames = torch.arange(5) < FRAME_LENGTHS[:, None]
    valid_tokens = torch.arange(4) <= TARGETS.token_lengths[:, None]
    dirty = [
        torch.where(valid[..., None], value, 50.0)
        for valid, value in ((valid_frames, frames), (valid_tokens, predicted))
    ]
    losses = loss_of(joint, dirty[0], FRAME_LENGTHS, dirty[1], TARGETS, size=SIZE)
    torch.testing.assert_close(losses, usual)
    for gradient, valid in zip(torch.autograd.grad(losses.sum(), dirty), (valid_frames, valid_tokens), strict=True):
        assert not gradient[~valid].any()


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(
        self, function: object, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, Tensor):
                self.elements = max(self.elements, value.numel())
        return result


def test_memory_is_bounded() -> None:
    """Neither forwards nor backwards is there a tensor of all frames, all tokens and the whole vocabulary."""
    torch.manual_seed(0)
    head = nn.Linear(4, 200)
    frames, predicted = torch.randn(2, 60, 4, requires_grad=True), torch.randn(2, 11, 4, requires_grad=True)
    targets = TokenTargets(torch.randint(1, 200, (2, 10)), torch.tensor([10, 10]))
    found = {}
    for max_scores in (2**24, 2 * 11 * 200 * 3):
        with Largest() as largest:
            losses = loss_of(
                lambda x, y: head((x + y).tanh()).log_softmax(-1),
                frames,
                torch.tensor([60, 50]),
                predicted,
                targets,
                size=200,
                max_scores=max_scores,
            )
            torch.autograd.grad(losses.sum(), [frames, predicted])
        found[max_scores] = largest.elements
    assert list(found.values()) == [2 * 60 * 11 * 200, 2 * 3 * 11 * 200]
