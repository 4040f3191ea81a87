"""What a validation shows: the same utterances every time, the right numbers, and no markup from a stranger's text."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.callbacks.samples import DashboardSamples, _table
from lightning_modules.callbacks.throughput import Throughput
from lightning_modules.loggers.csv_logger import RunCSVLogger
from robust_asr.report.samples import Sample, samples_page
from robust_asr.types import AudioBatch, Transcript

RATE = 8000
MODULE = SimpleNamespace(sample_rate=RATE)
HOSTILE = "</style></title><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\u202e\x00"


def batch_of(ids: list[str]) -> AudioBatch:
    """Utterance k is a constant k/1000 of 100 + k samples."""
    numbers = [int(name.split("-")[1]) for name in ids]
    waveforms = torch.zeros(len(ids), 400)
    for row, number in enumerate(numbers):
        waveforms[row, : 100 + number] = number / 1000
    return AudioBatch(
        waveforms, torch.tensor([100 + n for n in numbers]), tuple(f"TEXT {n}" for n in numbers), tuple(ids)
    )


def fake_trainer(folder: Path, **settings) -> SimpleNamespace:
    """What the callback asks of a trainer, in the validation of step 7."""
    return SimpleNamespace(
        **{
            "is_global_zero": True,
            "sanity_checking": False,
            "fast_dev_run": False,
            "loggers": [RunCSVLogger(str(folder))],
            "default_root_dir": str(folder / "elsewhere"),
            "datamodule": None,
            "callback_metrics": {"val/dev/wer": torch.tensor(0.125)},
            "current_epoch": 2,
            "state": SimpleNamespace(fn="fit"),
            "fit_loop": SimpleNamespace(epoch_loop=SimpleNamespace(_batches_that_stepped=7)),
        }
        | settings
    )


def validate(callback: DashboardSamples, trainer: SimpleNamespace, parts: list[list[list[str]]]) -> None:
    """One validation over parts of batches of ids."""
    callback.on_validation_start(trainer, MODULE)
    for index, batches in enumerate(parts):
        for ids in batches:
            batch = batch_of(ids)
            heard = {"batch": batch, "transcripts": [Transcript(text.lower()) for text in batch.texts]}
            callback.on_validation_batch_end(trainer, MODULE, heard, batch, 0, index)
    callback.on_validation_end(trainer, MODULE)


class Page(HTMLParser):
    """Tags, text and audio of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.audio: list[torch.Tensor] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "audio":
            encoded = dict(attrs)["src"].removeprefix("data:audio/flac;base64,")
            samples, rate = soundfile.read(io.BytesIO(base64.b64decode(encoded)), dtype="float32")
            assert rate == RATE
            self.audio.append(torch.from_numpy(samples))

    def handle_data(self, data):
        self.text += f" {data}"


IDS = [f"utt-{number}" for number in range(20)]


@given(st.permutations(IDS), st.lists(st.integers(1, 19), max_size=4))
def test_the_same_utterances_are_chosen_whatever_the_order_and_the_batches(ids, cuts):
    bounds = [0, *sorted(set(cuts)), len(ids)]
    batches = [ids[start:end] for start, end in pairwise(bounds)]
    chosen = []
    for parts in ([IDS], batches):
        callback = DashboardSamples(num_samples=3)
        callback.on_validation_end = lambda *args: None
        validate(callback, fake_trainer(Path()), [parts])
        chosen.append([sample.id for _, sample in callback._chosen[0]])
    assert chosen[0] == chosen[1] and len(chosen[0]) == 3


def test_a_page_names_parts_ids_texts_and_plays_the_audio(tmp_path):
    trainer = fake_trainer(tmp_path, datamodule=SimpleNamespace(dataloader_names=lambda stage: ["dev", "test"]))
    validate(DashboardSamples(num_samples=2), trainer, [[["utt-1", "utt-2"]], [["utt-3"], []]])
    page = Page((tmp_path / "samples" / "step-000007.html").read_text(encoding="utf-8"))
    words = page.text.split()
    assert {"utt-1", "utt-2", "utt-3"} <= set(words)
    assert words.index("dev") < words.index("utt-1") < words.index("test") < words.index("utt-3")
    assert "WER of the whole set 12.5 %" in page.text and "Step 7, epoch 2" in page.text
    assert page.text.count("no errors") == 3
    # FLAC of 16 bits: half a step of rounding.
    assert sorted(len(audio) for audio in page.audio) == [101, 102, 103]
    for audio in page.audio:
        torch.testing.assert_close(audio, torch.full_like(audio, (len(audio) - 100) / 1000), atol=2**-15, rtol=0)


def test_parts_without_a_name_are_numbered(tmp_path):
    validate(DashboardSamples(), fake_trainer(tmp_path), [[["utt-1"]], [["utt-2"]]])
    assert {"val0", "val1"} <= set(Page((tmp_path / "samples" / "step-000007.html").read_text()).text.split())


def test_a_validation_outside_of_training_has_its_own_page(tmp_path):
    validate(DashboardSamples(), fake_trainer(tmp_path, state=SimpleNamespace(fn="validate")), [[["utt-1"]]])
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["validate.html"]


@pytest.mark.parametrize("setting", [{"is_global_zero": False}, {"sanity_checking": True}, {"fast_dev_run": True}])
def test_nothing_is_written_by_other_ranks_or_in_trials(tmp_path, setting):
    validate(DashboardSamples(), fake_trainer(tmp_path, **setting), [[IDS]])
    assert not list(tmp_path.iterdir())


def test_the_newest_pages_stay(tmp_path):
    callback, trainer = DashboardSamples(keep=2), fake_trainer(tmp_path)
    for step in (8, 9, 10, 999_999, 1_000_000):
        trainer.fit_loop.epoch_loop._batches_that_stepped = step
        validate(callback, trainer, [[["utt-1"]]])
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["step-1000000.html", "step-999999.html"]


def test_long_audio_is_cut_and_its_text_is_not(tmp_path):
    validate(DashboardSamples(max_seconds=0.01), fake_trainer(tmp_path), [[["utt-9"]]])
    page = Page((tmp_path / "samples" / "step-000007.html").read_text())
    assert len(page.audio[0]) == 80 and "9" in page.text.split()


def test_no_text_of_a_stranger_becomes_markup():
    sample = Sample(HOSTILE, f"ONE {HOSTILE}", f"{HOSTILE} TWO", torch.tensor([0.5, torch.inf, -7.0]), RATE)
    text = samples_page(HOSTILE, {HOSTILE: [sample]}, notes={HOSTILE: HOSTILE})
    page = Page(text)
    assert not {"script", "img"} & set(page.tags) and "onerror" not in page.attributes
    assert page.tags.count("style") == page.tags.count("title") == page.tags.count("audio") == 1
    assert "\u202e" not in text and "\x00" not in text
    assert "default-src 'none'" in text


@pytest.mark.parametrize(
    "setting", [{"num_samples": 0}, {"keep": 0}, {"max_seconds": 0.0}, {"max_seconds": float("nan")}]
)
def test_settings_out_of_range_are_named(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        DashboardSamples(**setting)


def test_the_wandb_table_has_a_row_an_utterance():
    heard = [("A B C", "A C", 1 / 3), ("A", "A", 0.0)]
    samples = [Sample(f"utt-{n}", ref, hyp, torch.zeros(80), RATE) for n, (ref, hyp, _) in enumerate(heard)]
    table = _table(samples)
    assert table.columns == ["id", "audio", "reference", "hypothesis", "alignment", "wer"]
    assert [[row[0], *row[2:4], row[5]] for row in table.data] == [
        [f"utt-{n}", ref, hyp, wer] for n, (ref, hyp, wer) in enumerate(heard)
    ]
    assert table.data[0][4] == "REF: A B C\nHYP: A * C\n       D"


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


def test_throughput_counts_work_and_waiting_and_nothing_else(monkeypatch):
    """Two batches of 1 s wait 0.5 s and 1.5 s for data; validation, saving and the end of an epoch are left out."""
    clock, logged = Clock(), {}
    monkeypatch.setattr("lightning_modules.callbacks.throughput.time", clock)
    module = SimpleNamespace(sample_rate=RATE, log=lambda name, value, **kwargs: logged.update({name: value}))
    due = SimpleNamespace(should_update_logs=False)
    trainer = SimpleNamespace(_logger_connector=due, fit_loop=SimpleNamespace(_should_accumulate=lambda: False))
    batch = AudioBatch(torch.zeros(2, RATE), torch.tensor([RATE, RATE // 2]), ("A", "B"), ("a", "b"))
    callback = Throughput()
    callback.on_train_start(trainer, module)
    callback.on_train_epoch_start(trainer, module)
    for wait in (0.5, 1.5):
        clock.now += wait
        callback.on_train_batch_start(trainer, module, batch, 0)
        clock.now += 1.0
        due.should_update_logs = wait == 1.5
        callback.on_train_batch_end(trainer, module, None, batch, 0)
    assert logged == {"time/audio_seconds_per_second": 3.0 / 4.0, "time/data_wait_share": 2.0 / 4.0}

    for interrupt in (callback.on_validation_start, callback.on_save_checkpoint, callback.on_train_epoch_end):
        interrupt(trainer, module)
        clock.now += 50.0
        callback.on_train_batch_start(trainer, module, batch, 0)
        clock.now += 1.0
        callback.on_train_batch_end(trainer, module, None, batch, 0)
        assert logged == {"time/audio_seconds_per_second": 1.5, "time/data_wait_share": 0.0}
