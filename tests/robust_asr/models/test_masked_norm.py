import pytest
import torch
from torch import nn

from robust_asr.masking import length_mask
from robust_asr.models.masked_norm import MaskedBatchNorm


@pytest.mark.parametrize("extra", [(), (6,)])
def test_training_equals_batch_normalisation_of_the_valid_frames(extra: tuple[int, ...]):
    torch.manual_seed(0)
    values = 2 + 3 * torch.randn(3, 5, 20, *extra)
    keep = length_mask(torch.tensor([20, 13, 1]), 20)
    mask = keep[:, None].float().reshape(3, 1, 20, *(1 for _ in extra))
    norm, reference = MaskedBatchNorm(5), nn.BatchNorm1d(5)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    reference.load_state_dict(norm.state_dict())
    normal = norm(values, mask).transpose(1, 2)
    valid = values.transpose(1, 2)[keep]
    expected = reference(valid.reshape(len(valid), 5, -1)).reshape(valid.shape)
    torch.testing.assert_close(normal[keep], expected, atol=1e-4, rtol=1e-4)
    assert not normal[~keep].any()
    for name, buffer in reference.named_buffers():
        torch.testing.assert_close(dict(norm.named_buffers())[name], buffer, atol=1e-4, rtol=1e-4)


def test_what_lies_in_the_padding_reaches_neither_values_nor_statistics():
    torch.manual_seed(0)
    values, mask = torch.randn(2, 3, 10), length_mask(torch.tensor([10, 4]), 10)[:, None].float()
    quiet, loud = MaskedBatchNorm(3), MaskedBatchNorm(3)
    expected = quiet(values * mask, mask)
    assert torch.equal(loud(values + 1e3 * (1 - mask), mask), expected)
    assert torch.equal(loud.running_var, quiet.running_var)


def test_evaluation_uses_the_running_statistics():
    norm = MaskedBatchNorm(2).eval()
    norm.running_mean.fill_(1.0), norm.running_var.fill_(4.0)
    normal = norm(torch.full((1, 2, 3), 5.0), torch.tensor([[[1.0, 1.0, 0.0]]]))
    torch.testing.assert_close(normal, torch.tensor([2.0, 2.0, 0.0]).expand(1, 2, 3), atol=1e-4, rtol=0)
