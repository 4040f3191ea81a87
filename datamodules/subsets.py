"""The hundred utterances of LibriSpeech test-clean that a paper attacked: its "first 100" depend on who counts.

Strong attacks take hours, so the papers evaluate them on "the first 100 of test-clean". Through armory these are the
first of TensorFlow Datasets (TFDS), not of the sorted ids: the two hundreds have no utterance in common.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import Literal, get_args

from lhotse.cut import MonoCut

from robust_asr.randomness import utterance_seeds

EvalSubset = Literal["tfds100", "sorted100"]

_SIZE = 100

# From `librispeech` 1.1.0 and 2.1.0 of TFDS; armory ships the former. 2.1.1 and later cut their shards elsewhere, and the
# slice `test_clean[:100]` stays within one shard: they begin like this list and then differ from it.
_TFDS100 = tuple(
    """
    8555-292519-0000 3575-170457-0045 260-123288-0008 908-157963-0009 672-122797-0022 6829-68771-0033
    8463-287645-0000 1995-1837-0022 2830-3980-0026 3575-170457-0026 8555-284447-0015 7021-79740-0013
    61-70970-0001 6930-76324-0007 1580-141083-0005 5142-33396-0019 5142-36586-0002 5683-32866-0010
    4992-23283-0001 237-134500-0004 2830-3980-0010 7176-92135-0018 3729-6852-0029 1995-1826-0000
    3729-6852-0026 3570-5695-0013 3570-5696-0008 8463-294825-0000 6930-75918-0001 2830-3980-0025
    8224-274381-0003 7127-75947-0019 7021-85628-0011 3570-5696-0010 6829-68771-0031 4446-2271-0009
    7021-85628-0022 1221-135767-0019 6829-68769-0013 4446-2271-0002 61-70968-0028 672-122797-0007
    1320-122617-0020 7176-88083-0011 4446-2273-0036 5683-32879-0006 2830-3980-0065 1284-1180-0003
    1320-122612-0011 908-157963-0022 121-121726-0006 6829-68771-0010 1221-135766-0013 7176-92135-0040
    7127-75947-0037 260-123440-0020 8555-284447-0016 1320-122617-0039 1580-141083-0008 7729-102255-0004
    5142-33396-0009 672-122797-0045 4970-29093-0018 4970-29095-0032 61-70968-0059 8455-210777-0013
    8555-284447-0018 61-70968-0016 3570-5695-0007 237-126133-0005 1580-141084-0024 7021-85628-0010
    4992-23283-0012 4507-16021-0036 8463-294828-0021 4992-41806-0008 1320-122617-0006 2961-961-0000
    8463-287645-0006 7176-92135-0026 8463-287645-0012 6829-68769-0042 260-123440-0017 6930-75918-0004
    7176-88083-0013 8463-294825-0009 7127-75947-0040 61-70970-0037 1320-122617-0027 237-134500-0001
    1580-141083-0015 6930-75918-0012 2094-142345-0009 5142-33396-0060 4507-16021-0013 4970-29095-0019
    7729-102255-0021 237-126133-0017 7021-79730-0007 1580-141083-0000
    """.split()
)

# Utterances are numbered from 0 within a chapter; the last of these chapters has more than are taken.
_SORTED_CHAPTERS = {"1089-134686": 38, "1089-134691": 26, "1188-133604": 36}
_SORTED100 = tuple(f"{chapter}-{index:04d}" for chapter, size in _SORTED_CHAPTERS.items() for index in range(size))

_OF_TEST_CLEAN: dict[str, tuple[str, ...]] = {"tfds100": _TFDS100, "sorted100": _SORTED100}


def subset_ids(name: EvalSubset) -> tuple[str, ...]:
    """The ids of a subset of test-clean, in its order.

    ``tfds100``: TFDS sorts a split by the MD5 of its name and the utterance's id, cuts it into 16 shards and reads 16
    utterances from each in turn. The hundred of Olivier & Raj (2021), whose published commands run armory;
    Zelasko et al. (2021) and Joshi et al. (2022) worked with armory too, but name no utterance.
    ``sorted100``: the first by id.

    Errors: ValueError if there is no such subset.
    """
    if name not in _OF_TEST_CLEAN:
        raise ValueError(f"eval_subset must be one of {', '.join(get_args(EvalSubset))}, found {name!r}")
    return _OF_TEST_CLEAN[name]


def select_subset(cuts: Iterable[MonoCut], name: EvalSubset, part: str) -> list[MonoCut]:
    """The cuts of a subset, in its order.

    Args:
        cuts: of one part, in any order, with unique ids.
        name: ``tfds100`` needs all its utterances of test-clean; ``sorted100`` takes the first by id of any part.
        part: the name of the part, for the error.

    Errors: ValueError if there is no such subset, or if the part does not hold all of it.
    """
    by_id = {cut.id: cut for cut in cuts}
    ids = subset_ids(name) if name != "sorted100" else sorted(by_id)[:_SIZE]
    if len(ids) < _SIZE:
        raise ValueError(f"eval_subset {name} needs {_SIZE} utterances: part {part!r} has {len(ids)}")
    if missing := [utterance for utterance in ids if utterance not in by_id]:
        raise ValueError(
            f"eval_subset {name} needs test-clean: {len(missing)} of its {_SIZE} ids are not in part {part!r}, "
            f"the first is {missing[0]}"
        )
    return [by_id[utterance] for utterance in ids]


def sample(cuts: Iterable[MonoCut], num: int | None = None, *, hours: float | None = None) -> list[MonoCut]:
    """The first ``num`` cuts, or as many as fit into ``hours``, in the order of a hash of their ids; all where there are fewer.

    A larger sample holds every smaller one.
    """
    cuts = list(cuts)
    order = utterance_seeds(0, [cut.id for cut in cuts]).tolist()
    chosen = [cut for _, cut in sorted(zip(order, cuts, strict=True), key=lambda pair: pair[0])[:num]]
    if hours is None:
        return chosen
    totals = accumulate(cut.duration for cut in chosen)
    return [cut for cut, seconds in zip(chosen, totals, strict=True) if seconds <= 3600 * hours]
