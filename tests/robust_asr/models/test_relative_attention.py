"""Oracle: the equation, frame by frame."""

from __future__ import annotations

import math

import torch
from torch import nn

from robust_asr.models.relative_attention import RelativeSelfAttention, relative_positions, shifted


def _attention(width: int = 8, num_heads: int = 2) -> RelativeSelfAttention:
    torch.manual_seed(0)
    attention = RelativeSelfAttention(width, num_heads=num_heads, dropout=0.0).double().eval()
    for bias in (attention.content_bias, attention.position_bias):
        nn.init.normal_(bias)
    return attention


def test_shift_picks_each_distance():
    num_frames = 4
    distances = torch.arange(num_frames - 1, -num_frames, -1.0)
    frames = torch.arange(num_frames)
    found = shifted(distances.expand(2, num_frames, -1))
    assert torch.equal(found, (frames[:, None] - frames).expand(2, -1, -1).float())


def test_positions_are_sinusoids_of_the_distance():
    found = relative_positions(3, 6, like=torch.zeros((), dtype=torch.float64))
    for row, distance in enumerate((2, 1, 0, -1, -2)):
        expected = [wave(distance / 10_000 ** (2 * pair / 6)) for pair in range(3) for wave in (math.sin, math.cos)]
        torch.testing.assert_close(found[row], torch.tensor(expected, dtype=torch.float64))


def test_attention_is_the_equation():
    attention, num_frames, valid = _attention(), 5, 4
    values = torch.randn(1, num_frames, 8, dtype=torch.float64)
    distances = relative_positions(num_frames, 8, like=values)
    found = attention(values, distances, torch.arange(num_frames)[None] < valid)[0]
    queries, keys, contents = attention.inputs(values[0]).view(num_frames, 3, 2, 4).unbind(1)
    positions = attention.positions(distances).view(-1, 2, 4)
    for i in range(valid):
        heads = []
        for head in range(2):
            u, v = attention.content_bias[head, 0], attention.position_bias[head, 0]
            query = queries[i, head]
            scores = torch.stack(
                [
                    ((query + u) @ keys[j, head] + (query + v) @ positions[num_frames - 1 - (i - j), head]) / 2
                    for j in range(valid)
                ]
            )
            heads.append(scores.softmax(0) @ contents[:valid, head])
        torch.testing.assert_close(found[i], attention.output(torch.cat(heads)))


def test_longer_padding_changes_nothing():
    attention = _attention()
    values = torch.randn(1, 9, 8, dtype=torch.float64)
    results = []
    for size in (5, 9):
        distances = relative_positions(size, 8, like=values)
        results.append(attention(values[:, :size], distances, torch.arange(size)[None] < 5)[:, :5])
    torch.testing.assert_close(*results)
