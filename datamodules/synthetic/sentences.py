"""Sentences of the embedded corpus: spelling, numbers, dates, addresses, commands and plain English."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from random import Random
from typing import Literal

from datamodules.synthetic import vocabulary as words

PARTS = ("train", "dev", "test")


Domain = Literal["everything", "numbers"]


def sentence(random: Random, part: str, *, domain: Domain = "everything") -> str:
    """A sentence of a part. Its text alone decides which part it may occur in, so parts share no sentence."""
    patterns = _PATTERNS if domain == "everything" else _NUMBERS
    while True:
        (pattern,) = random.choices(tuple(patterns), weights=tuple(patterns.values()))
        text = " ".join(pattern(random))
        if part_of(text) == part:
            return text


def part_of(text: str) -> str:
    """The part that a sentence belongs to: of 20 sentences 18 are for training, one each for dev and test."""
    share = int.from_bytes(blake2b(text.encode(), digest_size=4).digest(), "big") % 20
    return {0: "dev", 1: "test"}.get(share, "train")


def spoken(text: str) -> str:
    """What espeak-ng is told to say. A is a letter's name, unless a word follows that an article can precede."""
    written = text.split()
    return " ".join(
        "[[eI]]" if word == "A" and not _takes_article(following) else word.lower()
        for word, following in zip(written, [*written[1:], ""], strict=True)
    )


def _takes_article(word: str) -> bool:
    return len(word) > 1 and word not in _NUMBER_WORDS


_NUMBER_WORDS = frozenset((*words.DIGITS, *words.TEENS, *words.TENS, "OH"))


def number(value: int) -> list[str]:
    """A whole number below a million in words. ValueError if it is not."""
    if not 0 <= value < 1_000_000:
        raise ValueError(f"value must be between 0 and 999999, found {value}")
    if value >= 1000:
        rest = number(value % 1000) if value % 1000 else []
        return [*number(value // 1000), "THOUSAND", *rest]
    if value >= 100:
        return [words.DIGITS[value // 100], "HUNDRED", *(number(value % 100) if value % 100 else [])]
    if value >= 20:
        return [words.TENS[value // 10 - 2], *([words.DIGITS[value % 10]] if value % 10 else [])]
    return [words.TEENS[value - 10] if value >= 10 else words.DIGITS[value]]


def ordinal(value: int) -> list[str]:
    """FIRST to THIRTY FIRST, as days of a month are read."""
    if value <= 20:
        return [words.ORDINALS[value - 1]]
    return ["THIRTIETH"] if value == 30 else [words.TENS[value // 10 - 2], words.ORDINALS[value % 10 - 1]]


def _letters(random: Random) -> list[str]:
    name = random.choice((*words.NAMES, *words.PLACES, *words.THINGS, *words.PEOPLE))
    if random.random() < 0.5:
        return list(name)
    return random.choices(words.LETTERS, k=random.randint(1, 8))


def _spelled_name(random: Random) -> list[str]:
    name = random.choice((*words.NAMES, *words.PLACES))
    return [name, *name] if random.random() < 0.5 else list(name)


def _digits(random: Random) -> list[str]:
    digits = random.choices(words.DIGITS, k=random.randint(1, 7))
    zero = random.choice(("ZERO", "OH"))
    return [zero if digit == "ZERO" else digit for digit in digits]


def _code(random: Random) -> list[str]:
    return [*_mixed(random, random.randint(2, 6))]


def _mixed(random: Random, length: int) -> list[str]:
    return [
        random.choice(words.LETTERS) if random.random() < 0.6 else random.choice((*number(random.randint(1, 99)), "OH"))
        for _ in range(length)
    ]


def _number(random: Random) -> list[str]:
    return number(random.randrange(10 ** random.randint(1, 6)))


def _year(random: Random) -> list[str]:
    century, rest = random.choice((17, 18, 19, 20)), random.randint(1, 99)
    return [*number(century), *(["OH"] if rest < 10 else []), *number(rest)]


def _date(random: Random) -> list[str]:
    month, day = random.choice(words.MONTHS), ordinal(random.randint(1, 31))
    date = [month, *day] if random.random() < 0.7 else ["THE", *day, "OF", month]
    weekday = [random.choice(words.WEEKDAYS)] if random.random() < 0.2 else []
    return [*weekday, *date, *(_year(random) if random.random() < 0.6 else [])]


def _time(random: Random) -> list[str]:
    hour = number(random.randint(1, 12))
    return random.choice(
        (
            ["HALF", "PAST", *hour],
            ["QUARTER", random.choice(("TO", "PAST")), *hour],
            [*hour, "O'CLOCK"],
            [*hour, *number(random.randint(10, 59))],
        )
    )


def _address(random: Random) -> list[str]:
    house = random.choice((_digits(random)[:4], number(random.randint(1, 999))))
    return [*house, random.choice(words.STREETS), random.choice(words.ROADS)]


def _command(random: Random) -> list[str]:
    command = random.choice(words.COMMANDS)
    return random.choice(
        (
            [command],
            [command, *_mixed(random, random.randint(1, 6))],
            [command, *_number(random)],
            [command, *_digits(random)],
            [command, random.choice(words.FIELDS), *_digits(random)[:4]],
            [random.choice(words.COMMANDS), command],
        )
    )


def _field(random: Random) -> list[str]:
    value = random.choice((_digits, _number, _letters, _code))(random)
    return [*random.choice((["AREA", "CODE"], [random.choice(words.FIELDS)])), *value]


def _noun_phrase(random: Random) -> list[str]:
    noun = random.choice((*words.PEOPLE, *words.ANIMALS, *words.THINGS))
    adjectives = random.sample(words.ADJECTIVES, random.choice((0, 0, 1, 1, 2)))
    determiner = random.choice(words.DETERMINERS)
    following = (*adjectives, noun)
    return ["AN" if determiner == "A" and following[0][0] in "AEIOU" else determiner, *following]


def _subject(random: Random) -> list[str]:
    return random.choice((_noun_phrase(random), [random.choice(words.PRONOUNS)], [random.choice(words.NAMES)]))


def _place(random: Random) -> list[str]:
    if random.random() < 0.3:
        return ["IN", random.choice(words.PLACES)]
    return [random.choice(words.PREPOSITIONS), *_noun_phrase(random)]


def _statement(random: Random) -> list[str]:
    adverb = [random.choice(words.ADVERBS)] if random.random() < 0.3 else []
    if random.random() < 0.6:
        return [*_subject(random), *adverb, random.choice(words.TRANSITIVE), *_noun_phrase(random)]
    return [*_subject(random), random.choice(words.INTRANSITIVE), *adverb, *_place(random)]


def _long_statement(random: Random) -> list[str]:
    return random.choice(
        (
            [*_statement(random), *_place(random)],
            [*_statement(random), random.choice(words.CONJUNCTIONS), *_statement(random)],
        )
    )


def _question(random: Random) -> list[str]:
    verb = random.choice(words.BASE_VERBS)
    return random.choice(
        (
            [random.choice(words.QUESTIONS), "DID", *_subject(random), verb, *_noun_phrase(random)],
            [random.choice(words.AUXILIARIES), *_subject(random), verb, *_noun_phrase(random)],
            [
                "IS",
                "THERE",
                *random.choice((["A"], ["ANOTHER"])),
                random.choice(("LAKE", "SHOP", "DOG", "STATION")),
                *_place(random),
            ],
        )
    )


def _request(random: Random) -> list[str]:
    please = ["PLEASE"] if random.random() < 0.4 else []
    return [
        *please,
        random.choice(words.BASE_VERBS),
        *_noun_phrase(random),
        *(_place(random) if random.random() < 0.4 else []),
    ]


_OUT_OF_CONTEXT = tuple(word for word in words.all_words() if word not in ("A", "AN"))


def _word_list(random: Random) -> list[str]:
    # From words out of context a recogniser learns sounds; sentences it would learn by heart.
    return random.choices(_OUT_OF_CONTEXT, k=random.randint(2, 7))


_PATTERNS: dict[Callable[[Random], Sequence[str]], float] = {
    _letters: 10,
    _spelled_name: 6,
    _digits: 6,
    _code: 6,
    _number: 6,
    _date: 8,
    _time: 2,
    _address: 3,
    _command: 10,
    _field: 4,
    _statement: 12,
    _long_statement: 10,
    _question: 6,
    _request: 4,
    _word_list: 9,
}

# Thirty words, which half a million parameters learn in minutes.
_NUMBERS: dict[Callable[[Random], Sequence[str]], float] = {_digits: 1, _number: 1}
