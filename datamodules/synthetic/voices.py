"""The speakers of the embedded corpus: accents, timbres, pitch and pace."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Half of the speakers sound American.
ACCENTS = {"en-us": 10, "en-us-nyc": 2, "en": 3, "en-gb-x-rp": 2, "en-gb-scotland": 1, "en-gb-x-gbclan": 1, "en-029": 1}
# Left out: timbres with breath (f2, f3, f5, Alicia, sandro, victor), which read uninitialised memory and differ from run to
# run, and whispers and robots.
TIMBRES = _words(
    """m1 m2 m3 m4 m5 m6 m7 m8 f1 f4 Alex Andrea Andy Annie Denis Diogo Gene Gene2 Henrique Hugo Jacky Lee Marco Mario
    Michael Mike Reed adam anika antonio aunty belinda benjamin boris david ed edward edward2 grandma grandpa
    gustave ian iven2 john klatt klatt2 klatt3 linda marcelo max michel miguel mike2 norbert pablo paul pedro quincy
    rob robert shelby steph steph2 steph3 travis zac"""
)


@dataclass(frozen=True)
class Speaker:
    """Units: rate in words a minute; pitch and pitch_range from 0 to 100."""

    name: str
    part: str
    voice: str
    rate: int
    pitch: int
    pitch_range: int


def speakers(num_voices: int, *, seed: int) -> list[Speaker]:
    """Speakers of all parts: a tenth each for dev and test, the others for training. No two parts share a timbre.

    Errors: ValueError if there are fewer than 3 or more than there are timbres in all accents.
    """
    if not 3 <= num_voices <= len(TIMBRES) * len(ACCENTS):
        raise ValueError(f"num_voices must be between 3 and {len(TIMBRES) * len(ACCENTS)}, found {num_voices}")
    random = Random(f"speakers-{seed}")
    timbres = random.sample(TIMBRES, min(num_voices, len(TIMBRES)))
    tenth = max(1, len(timbres) // 10)
    accents = {timbre: _shuffled_accents(random) for timbre in timbres}
    made = []
    for index in range(num_voices):
        place = index % len(timbres)
        timbre = timbres[place]
        made.append(
            Speaker(
                name=f"s{index:03d}",
                part="dev" if place < tenth else "test" if place < 2 * tenth else "train",
                voice=f"{accents[timbre][index // len(timbres)]}+{timbre}",
                rate=random.randint(130, 205),
                pitch=random.randint(25, 75),
                pitch_range=random.randint(30, 70),
            )
        )
    return made


def _shuffled_accents(random: Random) -> list[str]:
    left = dict(ACCENTS)
    order = []
    while left:
        (accent,) = random.choices(tuple(left), weights=tuple(left.values()))
        order.append(accent)
        del left[accent]
    return order
