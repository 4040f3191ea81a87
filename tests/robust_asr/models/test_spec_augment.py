import pytest
import torch

from robust_asr.models.spec_augment import SpecAugment


def _masked_runs(hidden: torch.Tensor) -> int:
    return int((hidden[1:] & ~hidden[:-1]).sum() + hidden[0])


def test_evaluation_mode_changes_nothing_and_draws_nothing():
    features, before = torch.randn(2, 30, 8), torch.get_rng_state()
    augmented = SpecAugment().eval()(features, torch.tensor([30, 20]))
    assert torch.equal(augmented, features) and torch.equal(torch.get_rng_state(), before)


def test_masks_are_bands_within_the_stated_widths():
    augment = SpecAugment(num_freq_masks=1, freq_width=0.25, num_time_masks=2, time_width=0.1)
    lengths = torch.full((500,), 100)
    torch.manual_seed(0)
    hidden = augment(torch.ones(500, 100, 40), lengths) == 0
    bins, frames = hidden.all(1), hidden.all(2)
    assert torch.equal(hidden, bins[:, None, :] | frames[:, :, None])
    assert max(_masked_runs(row) for row in bins) == 1 and bins.sum(1).max() == 10
    assert max(_masked_runs(row) for row in frames) == 2 and frames.sum(1).max() <= 20
    # Uniform widths 0..10 of 40 bins; every position can be hidden.
    assert bins.sum(1).float().mean() == pytest.approx(5, abs=0.5)
    assert bins.any(0).all() and frames.any(0).all()


def test_time_masks_are_relative_to_each_utterance_and_leave_its_padding_alone():
    augment = SpecAugment(num_freq_masks=0, num_time_masks=1, time_width=0.5)
    torch.manual_seed(0)
    hidden = augment(torch.ones(400, 200, 4), torch.tensor([20, 200] * 200))[:, :, 0] == 0
    assert not hidden[::2, 20:].any() and hidden[::2].sum(1).max() == 10 and hidden[1::2].sum(1).max() > 90


def test_the_global_generator_decides():
    augment, features, lengths = SpecAugment(), torch.ones(4, 60, 20), torch.tensor([60, 50, 3, 1])
    torch.manual_seed(5)
    first = augment(features, lengths)
    second = augment(features, lengths)
    torch.manual_seed(5)
    assert torch.equal(augment(features, lengths), first) and not torch.equal(first, second)


def test_no_masks_is_the_identity():
    features = torch.randn(2, 30, 8)
    assert torch.equal(SpecAugment(num_freq_masks=0, num_time_masks=0)(features, torch.tensor([30, 20])), features)


@pytest.mark.parametrize("arguments", [{"num_freq_masks": -1}, {"freq_width": 1.5}, {"time_width": float("nan")}])
def test_arguments_out_of_range_are_refused(arguments: dict):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        SpecAugment(**arguments)
