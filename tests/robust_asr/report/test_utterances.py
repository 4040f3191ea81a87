"""The worst utterances: the right ones, with the audio that was kept, in a page of bounded size, from a folder of a stranger."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from robust_asr.report import clips
from robust_asr.report.audio import compressed_uri
from robust_asr.report.clips import MAX_SECONDS, Clip, player, read_clip, spectrograms
from robust_asr.report.grid import Grid, tabulate
from robust_asr.report.runs import read_runs
from robust_asr.report.utterances import NUM_WORST, worst_utterances
from robust_asr.results import audio_path
from robust_asr.results.worst import worst_rows
from tests.robust_asr.report.example import RATE, row, tones


def flac(path: Path, samples: np.ndarray, rate: int = RATE, **more) -> Path:
    soundfile.write(path, samples, rate, **{"format": "FLAC", "subtype": "PCM_24"} | more)
    return path


def played(markup: str) -> list[tuple[np.ndarray, int]]:
    found = re.findall(r'src="data:audio/(?:mpeg|flac);base64,([^"]*)"', markup)
    return [soundfile.read(io.BytesIO(base64.b64decode(content))) for content in found]


def test_most_errors_to_a_word_come_first_and_none_is_none():
    made = {
        "a": ("A B C D", "A B C"),
        "b": ("A", "X Y"),
        "c": ("A B", "A B"),
        "d": ("A", "X Y"),
        "e": ("A B", "X Y Z W"),
    }
    rows = [row("s", "c", "p", name, *texts) for name, texts in made.items()]
    assert [each["id"] for each in worst_rows(rows, keep=9)] == ["e", "b", "d", "a"]
    assert [each["id"] for each in worst_rows(rows, keep=3)] == ["e", "b", "d"]


def test_a_card_holds_what_was_kept(example: Grid, run_dir: Path):
    markup, note = worst_utterances(example, "test-clean", max_bytes=10**9)
    assert note == "" and markup.count("<article>") <= 7 * 3 * 3
    cell = example.cell("baseline", "pgd7-0.01", "test-clean")
    (worst, *_) = worst_rows(cell.rows, keep=NUM_WORST)
    group = markup.split("L∞ 0.01: ")[1].split("</details>")[0]
    card = next(card for card in group.split("<article>") if f">{worst['id']}<" in card and "<b>baseline</b>" in card)
    (clean, rate), (attacked, _) = played(card)
    kept, _ = soundfile.read(audio_path(run_dir, "test-clean", worst["id"]))
    assert rate == RATE and len(attacked) == len(clean) == len(kept)
    # Compressed: the error lies 20 dB below what is heard.
    assert np.square(clean - kept).sum() < 0.01 * np.square(kept).sum()
    assert card.count("<img") == 3 and "OPEN THE FRONT DOOR NOW" in card


def test_a_card_shows_what_was_written_beside_what_was_compared(example: Grid):
    cell = example.cell("baseline", "pgd7-0.01", "test-clean")
    (worst, *_) = worst_rows(cell.rows, keep=NUM_WORST)
    assert "Written:" not in worst_utterances(example, "test-clean", max_bytes=10**9)[0]
    worst |= {"written": "Twenty-one <b>", "compared_reference": "21 COMPARED"}
    markup, _ = worst_utterances(example, "test-clean", max_bytes=10**9)
    for name in ("written", "compared_reference"):
        del worst[name]
    assert "Written: Twenty-one &lt;b&gt;" in markup and "COMPARED" in markup


def test_the_hardest_condition_is_open(example: Grid):
    markup, _ = worst_utterances(example, "test-clean", max_bytes=10**9)
    assert re.findall(r'<details class="group" open><summary>([^<]*?):', markup) == ["PGD-7 targeted, L∞ 0.01"]


def cards(markup: str) -> dict[str, str]:
    """Header of a card -> the card."""
    return {card.split("</header>")[0]: card for card in markup.split("<article>")[1:]}


@pytest.mark.parametrize("limit", [0, 20_000, 100_000, 300_000, 600_000])
def test_the_page_stays_below_its_limit_and_says_what_is_missing(example: Grid, limit):
    whole = worst_utterances(example, "test-clean", max_bytes=10**9)[0]
    markup, note = worst_utterances(example, "test-clean", max_bytes=limit)
    kept = cards(markup)
    left_out = whole.count("<article>") - markup.count("<article>")
    silent = sum("<audio" in card for head, card in cards(whole).items() if head in kept and "<audio" not in kept[head])
    assert len(markup.encode()) <= limit + 2000 and left_out + silent > 0
    parts = [f"{left_out} utterances"] * (left_out > 0) + [f"the audio of {silent} utterances"] * (silent > 0)
    assert note.lower() == f"{' and '.join(parts)} left out: the page would be larger than its limit."


def test_texts_have_room_before_audio_and_no_audio_is_encoded_in_vain(example: Grid, monkeypatch):
    encoded = []
    real = clips.compressed_uri
    monkeypatch.setattr(clips, "compressed_uri", lambda *clip: encoded.append(clip) or real(*clip))
    markup, _ = worst_utterances(example, "test-clean", max_bytes=300_000)
    assert markup.count("<article>") == worst_utterances(example, "test-clean", max_bytes=10**9)[0].count("<article>")
    heard = markup.count("<audio")
    encoded.clear()
    worst_utterances(example, "test-clean", max_bytes=300_000)
    # The first card that did not fit, of two clips.
    assert 0 < heard <= len(encoded) <= heard + 2


@pytest.mark.parametrize(("seconds", "most"), [(5.0, 100_000), (15.0, 240_000)])
def test_a_card_has_a_bounded_size(tmp_path: Path, seconds, most):
    """With noise, which compresses worst; a hundred cards of 5 s have 5 MB at most."""
    generator = np.random.default_rng(0)
    clean = generator.normal(scale=0.1, size=int(seconds * RATE))
    samples = {"clean": clean, "attacked": clean + generator.normal(scale=0.03, size=len(clean))}
    heard = {name: read_clip(flac(tmp_path / f"{name}.flac", each), tmp_path) for name, each in samples.items()}
    sound = "".join(player(name, clip) for name, clip in heard.items()) + spectrograms(heard)
    assert len(sound.encode()) < most


def test_a_perturbation_is_heard_through_the_compression():
    """Noise at 20 dB in the audio is there in the page at its level, within 3 dB; a rate that MP3 does not have stays FLAC."""
    clean = tones("a", 3.0)
    noise = np.sqrt(np.square(clean).mean()) * 0.1 * np.random.default_rng(0).normal(size=len(clean))
    (before, rate), (after, _) = (
        played(f'src="{compressed_uri(torch.from_numpy(each).float(), RATE)}"')[0] for each in (clean, clean + noise)
    )
    assert rate == RATE and len(before) == len(clean)
    assert abs(20 * np.log10(np.std(after - before) / np.std(noise))) < 3
    assert compressed_uri(torch.zeros(3000), 20000).startswith("data:audio/flac;base64,")
    assert np.isfinite(played(f'src="{compressed_uri(torch.tensor([torch.nan, torch.inf] * 800), RATE)}"')[0][0]).all()


def test_the_worst_of_every_cell_comes_before_the_second_of_any(example: Grid):
    whole, _ = worst_utterances(example, "test-clean", max_bytes=10**9)
    longest = max(map(len, whole.split("<article>")))
    markup, _ = worst_utterances(example, "test-clean", max_bytes=21 * longest)
    cells = {
        (c, s)
        for c in example.conditions
        for s in example.systems
        if worst_rows(example.cell(s, c, "test-clean").rows, keep=1)
    }
    groups = re.findall(r"<summary>(.*?): \d+ utterance", markup)
    assert len(groups) == len({condition for condition, _ in cells})
    assert all(markup.count(f"<b>{system}</b>") >= 7 for system in example.systems[1:])


def test_without_audio_there_are_texts(run_dir: Path, tmp_path: Path):
    folder = shutil.copytree(run_dir, tmp_path / "run", ignore=shutil.ignore_patterns("audio"))
    markup, _ = worst_utterances(tabulate(read_runs([folder])), "test-clean", max_bytes=10**9)
    assert "<article>" in markup and "<audio" not in markup and 'class="alignment"' in markup


def test_a_clip_is_what_was_written(tmp_path):
    samples = np.random.default_rng(0).uniform(-1, 1, 4000)
    clip = read_clip(flac(tmp_path / "a.flac", samples), tmp_path)
    assert (clip.sample_rate, clip.cut_at) == (RATE, None)
    assert clip.waveform.numpy() == pytest.approx(samples, abs=2**-22)
    assert read_clip(tmp_path / "none.flac", tmp_path) is None


def test_long_audio_is_cut(tmp_path):
    path = flac(tmp_path / "a.flac", np.zeros(60 * 8000), 8000)
    clip = read_clip(path, tmp_path)
    assert len(clip.waveform) == MAX_SECONDS * 8000 and clip.cut_at == MAX_SECONDS


def test_what_is_no_audio_of_ours_is_named(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    secret = flac(tmp_path / "secret.flac", np.zeros(100))
    os.symlink(secret, folder / "link.flac")
    (folder / "text.flac").write_text("no audio")
    (folder / "half.flac").write_bytes(secret.read_bytes()[:50])
    flac(folder / "stereo.flac", np.zeros((100, 2)))
    flac(folder / "slow.flac", np.zeros(100), 100)
    soundfile.write(folder / "vorbis.flac", np.zeros(100), RATE, format="OGG", subtype="VORBIS")
    os.mkfifo(folder / "pipe.flac")
    messages = {
        "link": "leads out of",
        "text": "is neither FLAC nor WAV",
        "half": "cannot be",
        "stereo": "has 2 channels; mono is accepted",
        "slow": "has the odd rate 100",
        "vorbis": "is neither FLAC nor WAV",
    }
    for name, message in messages.items():
        with pytest.raises(ValueError, match=rf"{name}\.flac.*{message}"):
            read_clip(folder / f"{name}.flac", folder)
    assert read_clip(folder / "pipe.flac", folder) is None


def test_clips_of_different_length_have_no_difference():
    shown = {name: Clip(torch.rand(size), RATE, None) for name, size in (("clean", 3000), ("attacked", 4000))}
    assert re.findall("<figcaption>([^<]*)<", spectrograms(shown)) == ["clean", "attacked"]
    shown["attacked"] = Clip(torch.rand(3000), RATE, None)
    markup = spectrograms(shown)
    assert re.findall("<figcaption>([^<]*)<", markup) == ["clean", "attacked", "difference"]
    assert 'alt="Spectrogram, difference: 0.2 s, up to 8 kHz' in markup


def test_a_player_has_a_name():
    markup = player('"<x>', Clip(torch.zeros(10), RATE, None))
    assert 'aria-label="&quot;&lt;x&gt;"' in markup and len(played(markup)[0][0]) == 10
