from __future__ import annotations

import errno
import fcntl
import os
import random
import resource
import sys
from pathlib import Path

import pytest
import torch

from robust_asr import checkpoint
from robust_asr.defenses.denoise import Denoise
from robust_asr.models.base import Recognizer
from robust_asr.models.compact import CompactCTC
from robust_asr.models.conv_tasnet import ConvTasNet
from robust_asr.search.greedy import GreedySearch
from robust_asr.storage import sealed
from robust_asr.storage.describe import describe
from robust_asr.storage.files import clean_leftovers
from robust_asr.text import CharacterTokenizer
from tests.robust_asr import forgery


@pytest.fixture
def saved(tmp_path) -> Path:
    checkpoint.save(forgery.tiny(), tmp_path / "model.ckpt")
    return tmp_path / "model.ckpt"


def test_round_trip(tmp_path):
    model = forgery.tiny()
    checkpoint.save(model, tmp_path / "a" / "model.ckpt")
    loaded = checkpoint.load(str(tmp_path / "a" / "model.ckpt"))
    assert not loaded.training
    assert checkpoint.weights_hash(loaded) == checkpoint.weights_hash(model)
    waveforms, lengths = torch.randn(2, 4000), torch.tensor([4000, 3000])
    assert loaded.transcribe(waveforms, lengths) == model.eval().transcribe(waveforms, lengths)


def test_a_part_is_loaded_as_what_it_is(tmp_path):
    denoiser = Denoise(ConvTasNet(num_filters=8, num_feats=8, num_hidden=8, num_layers=1))
    checkpoint.save(denoiser, tmp_path / "denoiser.ckpt", name="denoiser")
    loaded = checkpoint.load_defense(str(tmp_path / "denoiser.ckpt"))
    assert isinstance(loaded, Denoise) and not loaded.training and describe(loaded) == describe(denoiser)
    assert checkpoint.weights_hash(loaded) == checkpoint.weights_hash(denoiser)
    with pytest.raises(ValueError, match=r"denoiser\.ckpt: holds no recognizer; its parts are: denoiser"):
        checkpoint.load(str(tmp_path / "denoiser.ckpt"))
    with pytest.raises(ValueError, match=r"'robust_asr\.defenses\.denoise\.Denoise' is not a Recognizer"):
        checkpoint.load_part(tmp_path / "denoiser.ckpt", "denoiser", Recognizer)


def test_a_search_is_chosen_when_a_recogniser_is_loaded(saved):
    search = GreedySearch()
    assert checkpoint.load(str(saved), search=search).search is search


def test_what_was_loaded_does_not_depend_on_the_file(saved):
    loaded = checkpoint.load(str(saved))
    before = checkpoint.weights_hash(loaded)
    saved.write_bytes(bytes(saved.stat().st_size))
    assert checkpoint.weights_hash(loaded) == before


def test_hash_sees_names_types_shapes_and_bytes():
    states = [
        {"a": torch.zeros(4)},
        {"b": torch.zeros(4)},
        {"a": torch.zeros(2, 2)},
        {"a": torch.zeros(2, dtype=torch.float64)},
        {"a": torch.zeros(4, dtype=torch.int32)},
        {"a": torch.tensor([0.0, 0.0, 0.0, -0.0])},
    ]
    assert len({checkpoint.weights_hash(state) for state in states}) == len(states)
    transposed = torch.arange(6.0).reshape(2, 3).t()
    assert checkpoint.weights_hash({"a": transposed}) == checkpoint.weights_hash({"a": transposed.contiguous()})


def test_averaged_weights_of_a_training_checkpoint_are_loaded(tmp_path):
    content = forgery.content()
    other = {name: tensor + 1 for name, tensor in content["state_dict"].items()}
    training = {**content, "current_model_state": other, "optimizer_states": [{"state": {0: {"step": torch.ones(())}}}]}
    training["state_dict"] = {**content["state_dict"], "perturbation": torch.zeros(3)}
    sealed.write(checkpoint.finish(training), tmp_path / "last.ckpt")
    loaded = checkpoint.load(str(tmp_path / "last.ckpt"))
    assert checkpoint.weights_hash(loaded) == content[checkpoint.KEY]["parts"]["recognizer"]["weights_hash"]


@pytest.mark.parametrize("name", forgery.MALICIOUS)
def test_malicious_checkpoint_is_refused(name, tmp_path, monkeypatch):
    (tmp_path / f"{forgery.CANARY}.py").write_text("class Model:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    path = forgery.write(tmp_path / "model.ckpt", forgery.MALICIOUS[name]())
    # That the forgery has an intact seal, so that it is its content which is refused.
    sealed.verify(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"model\.ckpt: .") as refused:
        checkpoint.load(str(path))
    assert len(str(refused.value)) < 600
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000, "kilobytes"
    assert forgery.CANARY not in sys.modules
    assert not (tmp_path / forgery.CANARY).exists()


def test_shared_data_is_walked_once(tmp_path):
    path = forgery.write(tmp_path / "model.ckpt", forgery.doubling(60))
    assert checkpoint.load(str(path)).width == 8
    assert sealed.materialize(sealed.read(path))["epoch"] is not None


@pytest.mark.parametrize("url", ["https://example.com/model.ckpt", "s3://bucket/model.ckpt", "simplecache::http://x/y"])
def test_urls_are_refused(url):
    with pytest.raises(ValueError, match="URLs are refused"):
        checkpoint.load(url)


def test_only_a_regular_file_is_read(tmp_path):
    with pytest.raises(ValueError, match="folder"):
        checkpoint.load(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="device"):
        checkpoint.load(str(tmp_path / "pipe"))
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        checkpoint.load(str(tmp_path / "absent.ckpt"))


def test_another_alphabet_is_named(saved):
    content = sealed.read(saved)
    same, other, wider = forgery.tiny(), forgery.tiny(), forgery.tiny()
    checkpoint.check_matches(content, {"recognizer": same}, saved)
    other.tokenizer = CharacterTokenizer("XY ")
    with pytest.raises(ValueError, match=r"another alphabet: tokenizer\.characters is 'AB ' in the file, 'XY ' here"):
        checkpoint.check_matches(content, {"recognizer": other}, saved)
    wider.width = 16
    with pytest.raises(ValueError, match="another architecture: width is 8 in the file, 16 here"):
        checkpoint.check_matches(content, {"recognizer": wider}, saved)


def test_weights_from_elsewhere_are_imported(tmp_path, saved):
    model, other = forgery.tiny(), forgery.tiny()
    torch.save(model.state_dict(), tmp_path / "plain.pt")
    with pytest.raises(ValueError, match="import_weights"):
        checkpoint.load(str(tmp_path / "plain.pt"))
    checkpoint.import_weights(str(tmp_path / "plain.pt"), other)
    assert checkpoint.weights_hash(other) == checkpoint.weights_hash(model)
    with pytest.raises(ValueError, match=r"another architecture: .* in the file"):
        checkpoint.import_weights(str(tmp_path / "plain.pt"), CompactCTC(num_mels=8, stem_channels=4, width=8))


def corrupt(data: bytes, chance: random.Random) -> bytes:
    """One byte changed, a block zeroed, the end cut off, a block repeated, or bytes appended."""
    damaged = bytearray(data)
    kind, position = chance.choice(["flip", "flip", "zero", "cut", "copy", "append"]), chance.randrange(len(data))
    if kind == "flip":
        damaged[position] ^= chance.randrange(1, 256)
    elif kind == "zero":
        damaged[position : position + 512] = bytes(len(damaged[position : position + 512]))
    elif kind == "cut":
        del damaged[position:]
    elif kind == "copy":
        source = chance.randrange(len(data) - 512)
        damaged[position : position + 512] = data[source : source + len(damaged[position : position + 512])]
    else:
        damaged += bytes(chance.randrange(1, 512))
    return bytes(damaged)


def test_every_corruption_is_noticed(saved, count=1500):
    data, chance = saved.read_bytes(), random.Random(7)
    victims = []
    while len(victims) < count:
        damaged = corrupt(data, chance)
        if damaged != data:
            victims.append(damaged)
    for damaged in victims:
        saved.write_bytes(damaged)
        with pytest.raises(ValueError, match="checksum"):
            checkpoint.load(str(saved))
    saved.write_bytes(data)
    checkpoint.load(str(saved))


def test_every_byte_of_the_checksum_counts(saved):
    data = saved.read_bytes()
    for position in range(len(data) - 110, len(data)):
        saved.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(ValueError, match="checksum"):
            sealed.verify(saved)


def test_a_file_replaced_while_it_is_read_is_noticed(saved, monkeypatch):
    original = torch.load

    def replace_first(path, **settings):
        checkpoint.save(forgery.tiny(), saved)
        return original(path, **settings)

    monkeypatch.setattr(torch, "load", replace_first)
    with pytest.raises(ValueError, match="was replaced"):
        checkpoint.load(str(saved))


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_a_full_disk_leaves_the_previous_checkpoint(saved, part):
    before = saved.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(part * len(before)), limits[1]))
    try:
        with pytest.raises(OSError, match="was not written"):
            checkpoint.save(forgery.tiny(), saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_an_error_at_the_end_leaves_the_previous_checkpoint(saved, monkeypatch, failing):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = saved.read_bytes()
    monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match="No space left on device"):
        checkpoint.save(forgery.tiny(), saved)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


@pytest.mark.parametrize("value", [Path("x"), {1, 2}, b"bytes", torch.nn.Linear(1, 1), torch.eye(2).to_sparse(), 1j])
def test_what_could_not_be_read_back_is_not_saved(tmp_path, value):
    with pytest.raises(ValueError, match="tensors and plain data only"):
        sealed.write({"state": value}, tmp_path / "model.ckpt")
    assert os.listdir(tmp_path) == []


def test_leftovers_are_cleaned_and_only_they(tmp_path):
    leftover = tmp_path / f".last.ckpt.{'0' * 32}.partial"
    others = [tmp_path / "notes.partial", tmp_path / ".hidden.partial", tmp_path / "model.ckpt"]
    for path in [leftover, *others]:
        path.write_bytes(b"x")
    assert clean_leftovers(tmp_path) == [leftover]
    assert sorted(tmp_path.iterdir()) == sorted(others)
    leftover.write_bytes(b"x")
    with leftover.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert clean_leftovers(tmp_path) == []
    checkpoint.save(forgery.tiny(), tmp_path / "model.ckpt")
    assert not leftover.exists()
