from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from robust_asr.models.transformer_decoder import Attention, DecoderLayer, TransformerDecoder, positions

FRAMES = torch.tensor([9, 4, 1])
TOKENS = torch.tensor([[0, 3, 5, 2, 2], [0, 1, 0, 0, 0], [0, 4, 4, 1, 6]])


def _decoder(**options: object) -> TransformerDecoder:
    torch.manual_seed(0)
    sizes = {"width": 8, "num_layers": 2, "num_heads": 2, "feed_forward_width": 12, "dropout": 0.1} | options
    return TransformerDecoder(7, **sizes).double().eval()


def _hidden() -> Tensor:
    return torch.randn(3, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_positions_are_those_of_the_formula():
    found = positions(5, 6, like=torch.zeros(1).double(), first=2)
    for row, place in enumerate(range(2, 7)):
        angles = [place / 10_000 ** (unit / 2) for unit in range(3)]
        expected = [*map(math.sin, angles), *map(math.cos, angles)]
        torch.testing.assert_close(found[row], torch.tensor(expected, dtype=torch.float64))


def _copied(attention: Attention, reference: nn.MultiheadAttention) -> None:
    parts = (attention.query, attention.key, attention.value)
    reference.in_proj_weight.data = torch.cat([part.weight for part in parts])
    reference.in_proj_bias.data = torch.cat([part.bias for part in parts])
    reference.out_proj.load_state_dict(attention.output.state_dict())


def _reference(layer: DecoderLayer) -> nn.TransformerDecoderLayer:
    reference = nn.TransformerDecoderLayer(8, 2, 12, 0.0, batch_first=True, norm_first=True).double().eval()
    _copied(layer.self_attention, reference.self_attn)
    _copied(layer.cross_attention, reference.multihead_attn)
    norm, first, _, _, second, _ = layer.feed_forward
    pairs = {"linear1": first, "linear2": second, "norm1": layer.self_norm, "norm2": layer.cross_norm, "norm3": norm}
    for name, part in pairs.items():
        getattr(reference, name).load_state_dict(part.state_dict())
    return reference


def test_states_and_attention_are_those_of_torch():
    decoder, hidden, weights = _decoder(), _hidden(), []
    for parameter in decoder.parameters():
        # Biases and norms that begin as zeros and ones would hide a wrong one.
        parameter.data += 0.3 * torch.randn(parameter.shape, dtype=torch.float64)
    found = decoder(TOKENS, hidden, FRAMES, weights)
    values = decoder.embedding(TOKENS) * 8**0.5 + positions(5, 8, like=hidden)
    padding = torch.arange(9) >= FRAMES[:, None]
    causal = nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
    for layer, attended in zip(decoder.layers, weights, strict=True):
        reference = _reference(layer)
        query = layer.self_norm(values)
        between = values + reference.self_attn(query, query, query, attn_mask=causal, need_weights=False)[0]
        query = reference.norm2(between)
        _, expected = reference.multihead_attn(
            query, hidden, hidden, key_padding_mask=padding, average_attn_weights=False
        )
        torch.testing.assert_close(attended, expected)
        values = reference(values, hidden, tgt_mask=causal, memory_key_padding_mask=padding)
    torch.testing.assert_close(found, decoder.norm(values))


def test_no_state_knows_a_later_token():
    decoder = _decoder()
    embedded: list[Tensor] = []
    decoder.embedding.register_forward_hook(lambda module, inputs, output: embedded.append(output))
    states = decoder(TOKENS, _hidden(), FRAMES)
    for place in range(5):
        (gradient,) = torch.autograd.grad(states[:, place].square().sum(), embedded[0], retain_graph=True)
        heard = gradient.abs().sum((0, 2)) > 0
        assert heard.tolist() == [other <= place for other in range(5)]


def test_token_by_token_is_all_at_once():
    decoder, hidden = _decoder(), _hidden()
    expected = decoder(TOKENS, hidden, FRAMES)
    state = decoder.start(hidden, FRAMES)
    for place in range(TOKENS.shape[1]):
        found, state = decoder.step(TOKENS[:, place], state)
        torch.testing.assert_close(found, expected[:, place])


def test_states_are_rearranged_among_the_hypotheses_of_an_utterance():
    decoder, hidden = _decoder(), _hidden()
    state = decoder.start(hidden, FRAMES)
    first = torch.tensor([0, 1, 2, 3, 4, 5])
    _, state = decoder.step(first, state)
    rows = torch.tensor([1, 1, 3, 2, 5, 4])
    second = torch.tensor([6, 5, 4, 3, 2, 1])
    found, _ = decoder.step(second, state[rows])
    for row in range(6):
        one = slice(row // 2, row // 2 + 1)
        text = torch.stack([first[rows[row]], second[row]])[None]
        torch.testing.assert_close(found[row], decoder(text, hidden[one], FRAMES[one])[0, -1])


@pytest.mark.parametrize("extra", [0, 3])
def test_frames_of_the_padding_are_not_heard(extra: int):
    decoder, hidden = _decoder(), _hidden()
    padded = torch.cat([hidden, torch.zeros(3, extra, 8)], 1)
    padded = padded.masked_fill((torch.arange(9 + extra) >= FRAMES[:, None])[..., None], 100.0)
    together = decoder(TOKENS, padded, FRAMES)
    for row, length in enumerate(FRAMES.tolist()):
        one = slice(row, row + 1)
        alone = decoder(TOKENS[one], hidden[one, :length], FRAMES[one])
        torch.testing.assert_close(together[row], alone[0])
