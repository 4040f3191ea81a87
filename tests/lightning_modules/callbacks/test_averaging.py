"""The average of the last epochs: of weights and running statistics; counts are copied."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim import swa_utils

from lightning_modules.callbacks.averaging import LastEpochsAveraging, running_mean


class Counting(pl.LightningModule):
    """A weight, the statistics and the count of a BatchNorm, and a table with an infinity in it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("log_probs", torch.tensor([-0.5, -torch.inf]))

    def become(self, epoch: int) -> None:
        for name in ("weight", "running_mean"):
            getattr(self.norm, name).data.fill_(float(epoch**2))
        self.norm.num_batches_tracked.fill_(10 * epoch)


def averaged(module: Counting, callback: LastEpochsAveraging, *, max_epochs: int) -> Counting:
    trainer = SimpleNamespace(max_epochs=max_epochs, current_epoch=0)
    callback.setup(trainer, module, "fit")
    for epoch in range(max_epochs):
        trainer.current_epoch = epoch
        module.become(epoch)
        callback.on_train_epoch_end(trainer, module)
    callback.on_train_end(trainer, module)
    return module


@pytest.mark.parametrize("lists_of_tensors", [False, True], ids=["as on a CPU", "as on a GPU"])
@pytest.mark.parametrize("num_epochs", [1, 2, 3])
def test_mean_of_the_last_epochs(lists_of_tensors: bool, num_epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if lists_of_tensors:
        monkeypatch.setattr(swa_utils, "_get_foreach_kernels_supported_devices", lambda: ["cpu"])
    found = averaged(Counting(), LastEpochsAveraging(num_epochs), max_epochs=4)
    expected = sum(epoch**2 for epoch in range(4 - num_epochs, 4)) / num_epochs
    for name in ("weight", "running_mean"):
        torch.testing.assert_close(getattr(found.norm, name).detach(), torch.full((2,), expected))
    assert found.norm.num_batches_tracked == 30 and found.norm.num_batches_tracked.dtype == torch.long
    assert torch.equal(found.log_probs, torch.tensor([-0.5, -torch.inf]))


def test_equal_values_keep_their_bits() -> None:
    value = torch.tensor([0.1, -torch.inf, torch.inf, 1e38])
    assert torch.equal(running_mean(value, value, torch.tensor(2)), value)
