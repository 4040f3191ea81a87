"""Batches: every utterance once, on one rank, with little padding."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from lhotse.testing.dummies import dummy_cut

from datamodules.fixed_batches import MAX_PADDING, FixedBatches
from datamodules.manifest import Manifest
from datamodules.sampling import TrainingSampler, duration_bins, expected_padding
from datamodules.training_set import Selection, TrainingSet


@dataclass
class Cuts:
    """Cuts of given durations, for the sampler alone."""

    durations: np.ndarray

    def __iter__(self):
        return (dummy_cut(index, duration=float(seconds)) for index, seconds in enumerate(self.durations))


def _cuts(size: int, *, low: float = 0.7, high: float = 6.0) -> Cuts:
    return Cuts(np.random.default_rng(size).uniform(low, high, size))


def _sampler(cuts: Cuts, *, rank: int = 0, world_size: int = 1, num_buckets: int = 8, **options) -> TrainingSampler:
    settings = {"max_duration": 20.0, "num_buckets": num_buckets, "seed": 0, **options}
    return TrainingSampler(cuts, rank=rank, world_size=world_size, **settings)


def _ids(batches) -> list[list[str]]:
    return [[cut.id for cut in batch] for batch in batches]


@pytest.mark.parametrize("size", [3, 4, 5, 7, 50, 201])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_utterance_goes_to_one_rank_and_ranks_have_equally_many_batches(size: int, world_size: int):
    ranks = [_ids(_sampler(_cuts(size), rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert len({len(batches) for batches in ranks}) == 1
    seen = [utterance for batches in ranks for batch in batches for utterance in batch]
    assert len(seen) == len(set(seen)) == size
    assert all(batch for batches in ranks for batch in batches)


def test_fewer_utterances_than_ranks_is_an_error():
    with pytest.raises(ValueError, match="2 training utterances cannot be shared by 3 processes"):
        list(_sampler(_cuts(2), world_size=3))


def test_an_epoch_is_the_same_each_time_and_unlike_every_other():
    sampler = _sampler(_cuts(200))
    first = _ids(sampler)
    assert _ids(sampler) == first
    sampler.set_epoch(1)
    second = _ids(sampler)
    assert second != first
    # Not the same batches in another order either: neighbours change.
    assert not {frozenset(batch) for batch in first} & {frozenset(batch) for batch in second}
    # Nor the same lengths at the same place.
    assert _ids(_sampler(_cuts(200), seed=1)) != first


@pytest.mark.parametrize("done", [0, 1, 5])
@pytest.mark.parametrize("epoch", [0, 1])
def test_resume_skips_the_batches_of_its_epoch_only(epoch: int, done: int):
    plain, resumed = _sampler(_cuts(200)), _sampler(_cuts(200))
    resumed.resume_at(epoch=epoch, num_batches=done)
    for at in (epoch, epoch + 1):
        plain.set_epoch(at)
        resumed.set_epoch(at)
        assert _ids(resumed) == _ids(plain)[done if at == epoch else 0 :]


def test_no_batch_is_longer_than_asked_but_by_the_utterance_that_does_not_fit():
    for batch in _sampler(_cuts(300), max_duration=15.0):
        assert sum(cut.duration for cut in batch) <= 15.0


def test_buckets_hold_equal_amounts_of_audio():
    durations = _cuts(5_000).durations
    bins = [0, *duration_bins(durations, num_buckets=10), np.inf]
    seconds = [durations[(durations >= low) & (durations < high)].sum() for low, high in pairwise(bins)]
    # The bounds are shifted by half a bucket: the outer two are smaller.
    assert np.ptp(seconds[1:-1]) < 0.01 * durations.sum()


def test_the_promised_padding_is_that_of_the_batches():
    cuts = _cuts(2_000)
    promised, num_batches = expected_padding(cuts.durations, num_buckets=20, max_duration=20.0)
    batches = [[cut.duration for cut in batch] for batch in _sampler(cuts, num_buckets=20)]
    padded = sum(len(batch) * max(batch) for batch in batches)
    assert 1 - cuts.durations.sum() / padded == pytest.approx(promised, abs=0.01)
    assert len(batches) == pytest.approx(num_batches, rel=0.05)


def test_several_manifests_are_mixed_evenly_and_every_speed_is_a_copy_of_its_own(manifests: Path):
    sources = [Manifest(manifests / "train.jsonl.gz"), Manifest(manifests / "dev.jsonl.gz")]
    cuts = list(TrainingSet(sources, Selection(speeds=(1.0, 0.9, 1.1))))
    assert len({cut.id for cut in cuts}) == len(cuts) == 3 * (47 + 11)
    small = [place for place, cut in enumerate(cuts) if cut.supervisions[0].text.startswith("WORDS")]
    assert max(np.diff(small)) < 24
    by_id = {cut.id: cut.duration for cut in cuts}
    for utterance, seconds in by_id.items():
        if "_sp" not in utterance:
            assert by_id[f"{utterance}_sp0.9"] == pytest.approx(seconds / 0.9)
            assert by_id[f"{utterance}_sp1.1"] == pytest.approx(seconds / 1.1)


def test_what_is_out_of_range_is_counted_and_the_first_is_named(manifests: Path):
    training = TrainingSet([Manifest(manifests / "train.jsonl.gz")], Selection(min_seconds=0.2, max_seconds=0.4))
    kept = list(training)
    assert all(0.2 <= cut.duration <= 0.4 for cut in kept)
    assert f"{47 - len(kept)} outside 0.2 to 0.4 s left out, the first is " in str(training.inventory)


def test_one_manifest_twice_is_an_error(manifests: Path):
    with pytest.raises(ValueError, match="field 'id' occurs in another training manifest"):
        TrainingSet([Manifest(manifests / "train.jsonl.gz")] * 2, Selection())


@pytest.mark.parametrize("bounds", [(-1, 2), (2, 1), (float("nan"), 2), (0, float("nan"))])
def test_a_senseless_range_is_an_error(bounds):
    with pytest.raises(ValueError, match="min_seconds and max_seconds must be ordered"):
        Selection(*bounds)


def test_nothing_in_range_is_an_error(manifests: Path):
    with pytest.raises(ValueError, match="no utterance lies between min_seconds 5 and max_seconds 6"):
        TrainingSet([Manifest(manifests / "train.jsonl.gz")], Selection(min_seconds=5, max_seconds=6))


@pytest.mark.parametrize("batching", ["similar", "equal", "alone"])
@pytest.mark.parametrize("size", [1, 2, 60])
def test_evaluation_is_one_list_of_batches_that_ranks_deal_out(batching: str, size: int):
    cuts = list(_cuts(size))
    everything = _ids(FixedBatches(cuts[::-1], max_duration=20.0, batching=batching))
    assert sorted(utterance for batch in everything for utterance in batch) == sorted(cut.id for cut in cuts)
    for world_size in (1, 2, 3, 7, 100):
        ranks = [
            FixedBatches(cuts, max_duration=20.0, batching=batching, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]
        dealt = [[batch for batch in _ids(rank) if batch] for rank in ranks]
        assert sorted(batch for own in dealt for batch in own) == sorted(everything)
        # Every rank makes as many steps: those without a batch of their own get an empty one.
        assert (
            {len(list(rank)) for rank in ranks} == {len(rank) for rank in ranks} == {-(-len(everything) // world_size)}
        )


def test_ranks_have_as_much_to_do_as_each_other():
    cuts = [dummy_cut(index, duration=round(float(seconds), 1)) for index, seconds in enumerate(_cuts(60).durations)]
    for world_size in (2, 3, 4):
        loads = []
        for rank in range(world_size):
            batches = [
                batch for batch in FixedBatches(cuts, max_duration=20.0, rank=rank, world_size=world_size) if batch
            ]
            loads.append(sum(len(batch) * max(cut.duration for cut in batch) for batch in batches))
        assert max(loads) < 1.1 * sum(loads) / world_size


def test_evaluation_batches_hold_similar_or_equal_lengths():
    cuts = [dummy_cut(index, duration=round(float(seconds), 1)) for index, seconds in enumerate(_cuts(300).durations)]
    for batch in FixedBatches(cuts, max_duration=30.0):
        longest = max(cut.duration for cut in batch)
        assert sum(cut.duration for cut in batch) >= (1 - MAX_PADDING) * longest * len(batch) - 1e-9
        assert longest * len(batch) <= 30.0
    equal = list(FixedBatches(cuts, max_duration=30.0, batching="equal"))
    assert all(len({cut.duration for cut in batch}) == 1 for batch in equal)
    assert max(len(batch) for batch in equal) > 1
    assert all(len(batch) == 1 for batch in FixedBatches(cuts, max_duration=30.0, batching="alone"))


def test_one_utterance_may_be_longer_than_a_batch():
    assert len(FixedBatches([dummy_cut(0, duration=40.0), dummy_cut(1, duration=1.0)], max_duration=20.0)) == 2


@pytest.mark.shared_data
@pytest.mark.parametrize("speeds", [(1.0,), (1.0, 0.9, 1.1)])
@pytest.mark.parametrize(("corpus", "part"), [("an4", "train"), ("LibriSpeech", "train-clean-100")])
def test_padding_of_real_speech_is_below_5_percent(corpus, part, speeds, real_manifests: Path):
    training = TrainingSet([Manifest(real_manifests / corpus / f"{part}.jsonl.gz")], Selection(speeds=speeds))
    batches = [[cut.duration for cut in batch] for batch in _sampler(training, num_buckets=30, max_duration=100.0)]
    padded = sum(len(batch) * max(batch) for batch in batches)
    assert 1 - sum(map(sum, batches)) / padded < 0.05


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_the_number_of_batches_is_known_before_any_is_made(world_size: int):
    sampler = _sampler(_cuts(201), world_size=world_size)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        assert sampler.num_batches(epoch) == len(list(sampler))


def test_durations_stand_in_the_order_of_iteration(manifests: Path):
    sources = [Manifest(manifests / "train.jsonl.gz"), Manifest(manifests / "dev.jsonl.gz")]
    training = TrainingSet(sources, Selection(speeds=(1.0, 0.9, 1.1)))
    assert training.durations.tolist() == [cut.duration for cut in training]
    sampler = TrainingSampler(training, max_duration=3.0, num_buckets=3, seed=0)
    assert sampler.num_batches(0) == len(list(sampler))


WINDOW = 5.0


def test_an_utterance_costs_at_least_the_window_in_training():
    batches = [list(batch) for batch in _sampler(_cuts(300), window_seconds=WINDOW)]
    costs = [len(batch) * max(WINDOW, *(cut.duration for cut in batch)) for batch in batches]
    assert max(costs) <= 20.0
    # Without the window, batches of short utterances are larger than memory allows.
    assert max(map(len, _sampler(_cuts(300)))) > 20.0 / WINDOW
    assert sum(map(len, batches)) == 300


@pytest.mark.parametrize("batching", ["similar", "equal"])
def test_an_utterance_costs_at_least_the_window_in_evaluation(batching: str):
    cuts = Cuts(np.array([1.0] * 9 + [2.0] * 7 + [6.0] * 4))
    sizes = [len(batch) for batch in FixedBatches(cuts, max_duration=20.0, batching=batching, window_seconds=WINDOW)]
    assert sum(sizes) == 20
    # Four windows fit into a batch; to lie within one window is similar, though not equal.
    assert sorted(sizes) == ([1, 3, 4, 4, 4, 4] if batching == "similar" else [1, 1, 3, 3, 4, 4, 4])
