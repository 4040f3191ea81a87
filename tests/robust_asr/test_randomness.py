from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robust_asr.randomness import derive, keyed_normal, keyed_uniform, reseed_global, utterance_seeds


def test_seeds_are_the_same_everywhere() -> None:
    # Golden: a change of the hash would change every published result.
    assert utterance_seeds(0, ["a", "b"], step=3, draw=1).tolist() == [9117758974113841856, 5810984712753323686]


def test_every_part_of_the_key_counts() -> None:
    keys = [
        (seed, name, step, draw) for seed in (0, 1, 11) for name in ("", "1", "a") for step in (0, 1) for draw in (0, 1)
    ]
    seeds = {int(utterance_seeds(seed, [name], step=step, draw=draw)) for seed, name, step, draw in keys}
    assert len(seeds) == len(keys)


@given(st.permutations(["a", "b", "c", "d"]))
def test_seeds_belong_to_ids_not_to_places(ids: list[str]) -> None:
    expected = dict(zip("abcd", utterance_seeds(7, list("abcd")).tolist(), strict=True))
    assert utterance_seeds(7, ids).tolist() == [expected[name] for name in ids]


def test_derived_seeds() -> None:
    seeds = utterance_seeds(0, ["a", "b"])
    derived = [derive(seeds, step=step, draw=draw) for step in (0, 1) for draw in (0, 1)]
    assert len({seed for row in (seeds, *derived) for seed in row.tolist()}) == 10
    assert torch.equal(derive(seeds.flip(0)), derive(seeds).flip(0))


def test_noise_does_not_depend_on_neighbours_or_padding() -> None:
    seeds, lengths = utterance_seeds(0, ["a", "b", "c"]), torch.tensor([50, 7, 31])
    together = keyed_normal(seeds, lengths, 64)
    assert together.dtype == torch.float32
    for row, length in enumerate(lengths.tolist()):
        alone = keyed_normal(seeds[row : row + 1], lengths[row : row + 1], length)
        assert torch.equal(together[row, :length], alone[0])
        assert not together[row, length:].any()


def test_noise_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    keyed_normal(torch.tensor([1]), torch.tensor([100]), 100)
    keyed_uniform(torch.tensor([1]))
    assert torch.equal(torch.rand(1), expected)


def test_distributions() -> None:
    noise = keyed_normal(torch.tensor([5]), torch.tensor([200_000]), 200_000)
    assert abs(float(noise.mean())) < 0.01 and abs(float(noise.std()) - 1) < 0.01
    uniform = keyed_uniform(utterance_seeds(0, [str(index) for index in range(4000)]))
    assert uniform.shape == (4000,) and float(uniform.min()) >= 0 and float(uniform.max()) < 1
    # Neighbouring ids must not give neighbouring draws.
    assert abs(float(uniform.mean()) - 0.5) < 0.02 and abs(float(uniform.std()) - 12**-0.5) < 0.02
    assert abs(float(torch.corrcoef(torch.stack([uniform[1:], uniform[:-1]]))[0, 1])) < 0.05


def test_reseed_global_covers_every_generator() -> None:
    state = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        draws = []
        for key in [(0, 1, "x"), (0, 1, "x"), (0, 1, "y")]:
            reseed_global(*key)
            draws.append((random.random(), float(np.random.rand()), float(torch.rand(1))))  # noqa: NPY002
        assert draws[0] == draws[1]
        assert all(first != second for first, second in zip(draws[1], draws[2], strict=True))
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])  # noqa: NPY002
        torch.set_rng_state(state[2])


def test_seeds_and_lengths_agree() -> None:
    with pytest.raises(ValueError, match="zip"):
        keyed_normal(torch.tensor([1, 2]), torch.tensor([3]), 4)
