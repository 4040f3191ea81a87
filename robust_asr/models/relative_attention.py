"""Self-attention with relative positions: a score depends on the distance of two frames (Dai et al. 2019, section 3.3).

Legend: B utterances, F frames, D hidden units, H heads, K units a head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class RelativeSelfAttention(nn.Module):
    """Multi-head self-attention over the valid frames, with sinusoidal relative positions and two learned biases.

    The score of frame i for frame j is ((q_i + u) k_j + (q_i + v) p_{i-j}) / sqrt(K). The values in the padding are unspecified.

    Shape: values (B, F, D), distances (2 F - 1, D) of ``relative_positions``, mask (B, F) True at valid frames, with
        at least one valid frame in each utterance -> (B, F, D).
    """

    def __init__(self, width: int, *, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.inputs = nn.Linear(width, 3 * width)
        self.positions = nn.Linear(width, width, bias=False)
        self.content_bias = nn.Parameter(torch.zeros(num_heads, 1, width // num_heads))
        self.position_bias = nn.Parameter(torch.zeros(num_heads, 1, width // num_heads))
        self.output = nn.Linear(width, width)

    def forward(self, values: Tensor, distances: Tensor, mask: Tensor) -> Tensor:
        queries, keys, contents = self.inputs(values).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        positions = self.positions(distances).unflatten(-1, (self.num_heads, -1)).permute(1, 2, 0)
        # scaled_dot_product_attention scales its own product but not the attn_mask that is added, so these scores are scaled here.
        scores = shifted((queries + self.position_bias.to(queries)) @ positions) * queries.shape[-1] ** -0.5
        mixed = functional.scaled_dot_product_attention(
            queries + self.content_bias.to(queries),
            keys,
            contents,
            attn_mask=scores.masked_fill(~mask[:, None, None], -torch.inf),
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.output(mixed.transpose(1, 2).flatten(2))


def shifted(scores: Tensor) -> Tensor:
    """Convert scores by distance to scores by frame: column F - 1 - i + j of row i becomes column j of row i.

    Shape: (..., F, 2 F - 1), distances from F - 1 down to 1 - F -> (..., F, F).
    """
    num_frames = scores.shape[-2]
    # With one more column in memory, reading rows of the old width makes each row begin one column later than the row above.
    padded = functional.pad(scores, (1, 0)).flatten(-2)[..., num_frames:]
    return padded.unflatten(-1, (num_frames, 2 * num_frames - 1))[..., :num_frames]


def relative_positions(num_frames: int, width: int, *, like: Tensor) -> Tensor:
    """Sinusoids of the distances F - 1, ..., 1 - F (Vaswani et al. 2017), in the type and on the device of ``like``.

    Shape: (2 F - 1, D).
    """
    # float32 also under mixed precision, because half precision rounds distances such as 300 and 301 to the same number.
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    distances = torch.arange(num_frames - 1, -num_frames, -1, dtype=dtype, device=like.device)
    rates = 10_000 ** (-torch.arange(0, width, 2, dtype=dtype, device=like.device) / width)
    angles = distances[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width].to(like.dtype)
