"""The named hundreds of test-clean: from TFDS's rule, from the sorted ids, and as the datamodule selects them."""

from __future__ import annotations

import random
from hashlib import md5
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
from lhotse.cut import MonoCut

from datamodules import Speech
from datamodules.manifest import Manifest
from datamodules.subsets import sample, select_subset, subset_ids

# Chapters of test-clean and how many utterances each has, numbered from 0.
CHAPTERS = """
    1089-134686:38 1089-134691:26 1188-133604:45 121-121726:15 121-123852:5 121-123859:5 121-127105:37
    1221-135766:16 1221-135767:25 1284-1180:33 1284-1181:22 1284-134647:8 1320-122612:17 1320-122617:42
    1580-141083:54 1580-141084:51 1995-1826:27 1995-1836:15 1995-1837:30 2094-142345:61 2300-131720:42 237-126133:26
    237-134493:19 237-134500:43 260-123286:32 260-123288:29 260-123440:21 2830-3979:13 2830-3980:77 2961-960:23
    2961-961:23 3570-5694:23 3570-5695:16 3570-5696:11 3575-170457:57 3729-6852:47 4077-13751:22 4077-13754:17
    4446-2271:25 4446-2273:37 4446-2275:46 4507-16021:60 4970-29093:24 4970-29095:39 4992-23283:21 4992-41797:23
    4992-41806:18 5105-28233:11 5105-28240:25 5105-28241:20 5142-33396:69 5142-36377:26 5142-36586:5 5142-36600:2
    5639-40744:42 5683-32865:18 5683-32866:31 5683-32879:26 61-70968:63 61-70970:41 672-122797:75 6829-68769:54
    6829-68771:37 6930-75918:21 6930-76324:29 6930-81414:28 7021-79730:10 7021-79740:15 7021-79759:6 7021-85628:28
    7127-75946:30 7127-75947:41 7176-88083:28 7176-92135:46 7729-102255:47 8224-274381:18 8224-274384:14
    8230-279154:44 8455-210777:71 8463-287645:15 8463-294825:20 8463-294828:39 8555-284447:25 8555-284449:21
    8555-292519:16 908-157963:31 908-31957:26
"""
TEST_CLEAN = [
    f"{chapter}-{index:04d}"
    for chapter, size in (entry.split(":") for entry in CHAPTERS.split())
    for index in range(int(size))
]
# What TFDS publishes of its builds of test_clean: utterances a shard.
SHARDS_1_1_0 = (164, 164, 163, 164, 164, 163, 164, 164, 164, 164, 163, 164, 164, 163, 164, 164)
QUARTERS_2_1_2 = (630, 664, 698, 628)


def _hash(utterance: str) -> int:
    return int(md5(f"test_clean{utterance}".encode()).hexdigest(), 16)


def _read_by_tfds(shard_lengths: tuple[int, ...], *, block: int = 16) -> list[str]:
    """All of test-clean as TFDS reads it: shards of the hashed order, a block of each in turn."""
    hashed = sorted(TEST_CLEAN, key=_hash)
    shards = [hashed[start:end] for start, end in pairwise((0, *accumulate(shard_lengths)))]
    return [
        utterance
        for start in range(0, max(shard_lengths), block)
        for shard in shards
        for utterance in shard[start : start + block]
    ]


def _cuts(ids: list[str]) -> list[MonoCut]:
    return [MonoCut(utterance, start=0.0, duration=1.0, channel=0) for utterance in ids]


def _selected(ids: list[str], name: str, *, part: str = "test-clean") -> list[str]:
    return [cut.id for cut in select_subset(_cuts(ids), name, part)]


def test_the_table_of_chapters_is_test_clean():
    assert len(TEST_CLEAN) == len(set(TEST_CLEAN)) == sum(SHARDS_1_1_0) == 2620
    assert sorted(TEST_CLEAN) == TEST_CLEAN
    # A later build has four shards, equal ranges of the hash: a wrong id, salt or hash would not give its lengths.
    quarters = [_hash(utterance) >> 126 for utterance in TEST_CLEAN]
    assert tuple(quarters.count(quarter) for quarter in range(4)) == QUARTERS_2_1_2


def test_tfds100_follows_from_the_order_of_tfds():
    order = _read_by_tfds(SHARDS_1_1_0)
    assert sorted(order) == TEST_CLEAN
    assert subset_ids("tfds100") == tuple(order[:100])


def test_tfds100_is_neither_one_shard_nor_a_later_build():
    tfds100 = set(subset_ids("tfds100"))
    assert len(tfds100 & set(sorted(TEST_CLEAN, key=_hash)[:100])) == 16
    assert len(tfds100 & set(_read_by_tfds(QUARTERS_2_1_2)[:100])) < 50


def test_sorted100_is_the_first_of_the_sorted_ids_and_shares_nothing_with_tfds100():
    assert subset_ids("sorted100") == tuple(TEST_CLEAN[:100])
    assert not set(subset_ids("sorted100")) & set(subset_ids("tfds100"))


@pytest.mark.parametrize("name", ["tfds100", "sorted100"])
def test_a_subset_comes_in_its_own_order_whatever_that_of_the_manifest(name: str):
    shuffled = random.Random(0).sample(TEST_CLEAN, len(TEST_CLEAN))
    assert _selected(shuffled, name) == list(subset_ids(name))
    assert _selected(list(subset_ids(name)), name) == list(subset_ids(name))


def test_sorted100_is_of_any_part():
    ids = [f"{speaker}-1-{index:04d}" for speaker in (9, 10) for index in range(60)]
    assert _selected(ids, "sorted100", part="dev") == sorted(ids)[:100]


def test_cuts_come_back_as_they_are_and_from_any_iterable():
    cuts = _cuts(TEST_CLEAN)
    assert all(any(chosen is cut for cut in cuts) for chosen in select_subset(iter(cuts), "tfds100", "test-clean"))


@pytest.mark.parametrize(
    ("ids", "name", "message"),
    [
        (
            [f"1-1-{index:04d}" for index in range(300)],
            "tfds100",
            "eval_subset tfds100 needs test-clean: 100 of its 100 ids are not in part 'test', "
            "the first is 8555-292519-0000",
        ),
        (
            [utterance for utterance in TEST_CLEAN if utterance not in ("908-157963-0009", "3575-170457-0045")],
            "tfds100",
            "eval_subset tfds100 needs test-clean: 2 of its 100 ids are not in part 'test', "
            "the first is 3575-170457-0045",
        ),
        (TEST_CLEAN[:99], "sorted100", "eval_subset sorted100 needs 100 utterances: part 'test' has 99"),
        ([], "sorted100", "eval_subset sorted100 needs 100 utterances: part 'test' has 0"),
        (TEST_CLEAN, "first100", "eval_subset must be one of tfds100, sorted100, found 'first100'"),
    ],
)
def test_a_part_that_cannot_give_the_subset_is_one_error(ids: list[str], name: str, message: str):
    with pytest.raises(ValueError) as error:
        _selected(ids, name, part="test")
    assert str(error.value) == message


def test_unknown_subset_is_named():
    with pytest.raises(ValueError, match="eval_subset must be one of tfds100, sorted100, found 'first100'"):
        subset_ids("first100")


def test_a_larger_sample_holds_a_smaller_one(tiny_manifests: Path) -> None:
    cuts = list(Manifest(tiny_manifests / "train.jsonl.gz"))
    ids = [[cut.id for cut in sample(cuts, num)] for num in (5, 16, 100)]
    assert [len(part) for part in ids] == [5, 16, 40]
    assert ids[1][:5] == ids[0] and ids[2][:16] == ids[1]
    assert ids[0] != sorted(ids[0])[:5]


def test_hours_are_a_prefix_of_the_same_order(tiny_manifests: Path) -> None:
    cuts = list(Manifest(tiny_manifests / "train.jsonl.gz"))
    order = [cut.id for cut in sample(cuts)]
    seconds = [cut.duration for cut in sample(cuts)]
    assert [cut.id for cut in sample(reversed(cuts), hours=(sum(seconds[:9]) + 0.01) / 3600)] == order[:9]
    assert [cut.id for cut in sample(cuts, hours=(sum(seconds[:9]) - 0.01) / 3600)] == order[:8]
    assert [cut.id for cut in sample(cuts, 5, hours=1.0)] == order[:5], "the first limit counts"
    assert len(sample(cuts, hours=1.0)) == 40


def test_evaluation_of_a_sample(tiny_manifests: Path) -> None:
    data = Speech(str(tiny_manifests), validate=["dev"], test=["dev"], eval_utterances=4)
    for stage, size in (("validate", 10), ("test", 4)):
        data.setup(stage)
        assert data.num_utterances(stage) == [size]
    assert sum(len(batch) for batch in data.test_dataloader()[0]) == 4
    with pytest.raises(ValueError, match="eval_utterances"):
        Speech(str(tiny_manifests), eval_utterances=0)
    for hours in (0.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="eval_hours"):
            Speech(str(tiny_manifests), eval_hours=hours)
    data = Speech(str(tiny_manifests), predict=["dev"], eval_hours=1e-6)
    data.setup("predict")
    with pytest.raises(ValueError, match="eval_hours is 1e-06, less than the first utterance to take of part 'dev'"):
        data.predict_dataloader()
