from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
import torchaudio
from torch import Tensor
from torch.nn import functional
from torchaudio.models import Wav2Vec2Model, wav2vec2_model
from torchaudio.pipelines import Wav2Vec2ASRBundle

from robust_asr.models.adapter import LabelTokenizer
from robust_asr.models.wav2vec2 import Wav2Vec2, _sizes, load_bundle
from robust_asr.storage.describe import describe
from tests.robust_asr.test_contract import LENGTHS, TEXTS, audio

LABELS = ("|", "E", "T", "A", "O", "N")
SMALL = {
    "convolutions": [[6, 10, 5], [6, 3, 2], [8, 3, 2], [8, 2, 2]],
    "width": 12,
    "num_layers": 2,
    "num_heads": 2,
    "feed_forward_width": 16,
    "position_kernel": 6,
    "position_groups": 2,
}


def params(**options: object) -> dict:
    return {
        "extractor_mode": "group_norm",
        "extractor_conv_layer_config": [(6, 10, 5), (6, 3, 2), (8, 3, 2), (8, 2, 2)],
        "extractor_conv_bias": False,
        "encoder_embed_dim": 12,
        "encoder_projection_dropout": 0.1,
        "encoder_pos_conv_kernel": 6,
        "encoder_pos_conv_groups": 2,
        "encoder_num_layers": 2,
        "encoder_num_heads": 2,
        "encoder_attention_dropout": 0.1,
        "encoder_ff_interm_features": 16,
        "encoder_ff_interm_dropout": 0.1,
        "encoder_dropout": 0.1,
        "encoder_layer_norm_first": False,
        "encoder_layer_drop": 0.1,
        "aux_num_out": 7,
        **options,
    }


LV60K = {"extractor_mode": "layer_norm", "extractor_conv_bias": True, "encoder_layer_norm_first": True}


@pytest.fixture(params=["base", "lv60k"])
def published(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple:
    """A bundle of small size, torchaudio's network with random weights, and the file that would be published."""
    lv60k = request.param == "lv60k"
    sizes = params(**(LV60K if lv60k else {}))
    bundle = Wav2Vec2ASRBundle("tiny.pth", sizes, 16_000, lv60k, "Wav2Vec2", _labels=LABELS)
    monkeypatch.setattr(torchaudio.pipelines, "TINY", bundle, raising=False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = wav2vec2_model(**sizes).eval()
        for parameter in network.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    state = dict(network.state_dict())
    for name in ("aux.weight", "aux.bias"):
        value = state[name]
        # The three rows that torchaudio leaves out, behind the first.
        state[name] = torch.cat([value[:1], torch.full_like(value[:3], 9.0), value[1:]])
    path = tmp_path / "tiny.pth"
    torch.save(state, path)
    return network, path, hashlib.sha256(path.read_bytes()).hexdigest()


def alone(network: Wav2Vec2Model, waveform: Tensor, *, normalize: bool) -> Tensor:
    """torchaudio's own answer for one utterance without padding. Shape: (T,) -> (F, V)."""
    if normalize:
        waveform = functional.layer_norm(waveform, waveform.shape)
    return network(waveform[None])[0][0].log_softmax(-1)


@torch.no_grad()
def test_a_padded_batch_is_torchaudio_alone(published: tuple) -> None:
    network, path, digest = published
    recognizer = load_bundle("TINY", file=str(path), sha256=digest)
    assert not recognizer.training and recognizer.padding_invariant
    emissions = recognizer.emissions(audio(LENGTHS, size=9000), LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        expected = alone(network, audio(LENGTHS)[row, :length], normalize=recognizer.normalize_waveform)
        assert int(emissions.frame_lengths[row]) == len(expected)
        torch.testing.assert_close(emissions.log_probs[row, : len(expected)], expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_torchaudio_itself_hears_the_padding(published: tuple) -> None:
    """Why the group norm is our own."""
    network, _, _ = published
    together = network(audio(LENGTHS), LENGTHS)[0][2, :2]
    alone_ = network(audio(LENGTHS)[2:, :700], LENGTHS[2:])[0][0, :2]
    group_norm = network.feature_extractor.conv_layers[1].layer_norm is None
    assert bool((together - alone_).abs().max() > 1e-2) is group_norm


def test_it_writes_the_labels_of_its_bundle(published: tuple) -> None:
    _, path, digest = published
    recognizer = load_bundle("TINY", file=str(path), sha256=digest.upper())
    assert recognizer.tokenizer.labels == ["-", *LABELS]
    targets = recognizer.targets(["no tea"])
    assert targets.tokens.tolist() == [[6, 5, 1, 3, 2, 4]]
    assert recognizer.tokenizer.decode([6, 5, 1, 3, 2, 4]) == "NO TEA"
    with pytest.raises(ValueError, match="'X'"):
        recognizer.targets(["X"])


def test_described_without_the_bundle(published: tuple) -> None:
    _, path, digest = published
    description = describe(load_bundle("TINY", file=str(path), sha256=digest))
    assert description["class_path"] == "robust_asr.models.wav2vec2.Wav2Vec2"
    assert "TINY" not in str(description) and str(path) not in str(description)


def test_downloads_without_unpickling(published: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    _, path, digest = published
    asked = []

    def download(url: str, **options: object) -> dict:
        asked.append((url, options))
        return torch.load(path, weights_only=True)

    monkeypatch.setattr(torchaudio.pipelines._wav2vec2.utils, "load_state_dict_from_url", download)
    downloaded = load_bundle("TINY")
    ((url, options),) = asked
    assert url.endswith("/tiny.pth") and options["weights_only"] is True
    local = load_bundle("TINY", file=str(path), sha256=digest)
    assert all(torch.equal(value, local.state_dict()[name]) for name, value in downloaded.state_dict().items())


class Unwanted:
    def __reduce__(self) -> tuple:
        return print, ("this file was executed",)


def test_what_is_wrong_with_a_file_is_named(published: tuple, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    _, path, digest = published

    def load(file: Path) -> None:
        load_bundle("TINY", file=str(file), sha256=hashlib.sha256(file.read_bytes()).hexdigest())

    with pytest.raises(ValueError, match=rf"tiny.pth: its sha256 is {digest}, not 0000"):
        load_bundle("TINY", file=str(path), sha256="0000")
    with pytest.raises(ValueError, match=r"file is .*tiny.pth and sha256 None: give both"):
        load_bundle("TINY", file=str(path))
    with pytest.raises(FileNotFoundError, match=r"there is no .*absent"):
        load_bundle("TINY", file=str(tmp_path / "absent"), sha256="0")
    other = tmp_path / "other.pth"
    torch.save(Unwanted(), other)
    with pytest.raises(ValueError, match=r"other.pth: is no file of weights"):
        load(other)
    assert "executed" not in capsys.readouterr().out
    torch.save({"aux.weight": "a text"}, other)
    with pytest.raises(ValueError, match="holds no map from names to tensors"):
        load(other)
    torch.save({name: value for name, value in torch.load(path).items() if "1.conv" not in name}, other)
    with pytest.raises(
        ValueError, match=r"other.pth: these are no weights of TINY. Missing key.*conv_layers.1.conv.weight"
    ):
        load(other)


@pytest.mark.parametrize("name", ["WAV2VEC2_BASE", "WAVLM_BASE", "Wav2Vec2Bundle", "NOTHING"])
def test_other_bundles_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"HUBERT_ASR_LARGE, .*WAV2VEC2_ASR_BASE_960H.*, found '{name}'"):
        load_bundle(name)


@pytest.mark.parametrize("name", ["WAV2VEC2_ASR_BASE_960H", "HUBERT_ASR_LARGE", "VOXPOPULI_ASR_BASE_10K_DE"])
def test_bundles_can_be_built(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the sizes of torchaudio, on no memory; the weights are not here."""

    def weights(self: Wav2Vec2ASRBundle, options: dict) -> dict:
        return wav2vec2_model(**self._params).state_dict()

    monkeypatch.setattr(Wav2Vec2ASRBundle, "_get_state_dict", weights)
    with torch.device("meta"):
        recognizer = load_bundle(name)
    assert recognizer.normalize_waveform is ("HUBERT" in name)
    assert recognizer.tokenizer.size == recognizer.head.out_features


def test_every_bundle_says_what_is_asked_of_it() -> None:
    bundles = [getattr(torchaudio.pipelines, name) for name in dir(torchaudio.pipelines) if "_ASR_" in name]
    assert len(bundles) >= 15
    for bundle in bundles:
        sizes = _sizes(bundle)
        assert bundle._model_type == "Wav2Vec2" and bundle.sample_rate == 16_000
        assert sizes["norm"] == ("layer_norm" if sizes["normalize_waveform"] else "group_norm")


def test_the_old_names_of_weights_are_read(published: tuple) -> None:
    """Those of the published files, which are older than torch's parametrizations."""
    _, path, digest = published
    expected = load_bundle("TINY", file=str(path), sha256=digest)
    state = torch.load(path)
    for new, old in (
        ("parametrizations.weight.original0", "weight_g"),
        ("parametrizations.weight.original1", "weight_v"),
    ):
        name = f"encoder.transformer.pos_conv_embed.conv.{new}"
        state[name.replace(new, old)] = state.pop(name)
    torch.save(state, path)
    found = load_bundle("TINY", file=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in found.state_dict().items())


def test_number_of_parameters() -> None:
    with torch.device("meta"):
        recognizer, theirs = Wav2Vec2(), torchaudio.models.wav2vec2_large(aux_num_out=29)
    counts = [sum(parameter.numel() for parameter in model.parameters()) for model in (recognizer, theirs)]
    assert counts[0] == counts[1] == 315_457_693


def test_waveforms_are_normalised_each_by_itself() -> None:
    recognizer = Wav2Vec2(normalize_waveform=True, **SMALL)
    # Loud and with an offset, which a sum over the padding would spread.
    waveforms = torch.where(torch.arange(9000) < LENGTHS[:, None], 3 * audio(LENGTHS, size=9000) + 0.5, 0.0)
    found = recognizer._normalized(waveforms, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        expected = functional.layer_norm(waveforms[row, :length], (length,))
        torch.testing.assert_close(found[row, :length], expected, rtol=0, atol=1e-5)
        assert not found[row, length:].any()


@pytest.mark.parametrize("length", [1, 104, 105, 399, 400, 719, 720, 16_001])
def test_frames_are_counted_as_they_come(length: int) -> None:
    lengths = torch.tensor([length])
    for convolutions in (SMALL["convolutions"], [[4, 10, 5], *[[4, 3, 2]] * 4, *[[4, 2, 2]] * 2]):
        recognizer = Wav2Vec2(**{**SMALL, "convolutions": convolutions}).eval()
        hidden, frame_lengths = recognizer.encode(audio(lengths), lengths)
        assert hidden.shape[1] == int(frame_lengths) == int(recognizer.num_frames(lengths))
    assert recognizer.receptive_field == 400 and recognizer.frame_shift == 0.02
    assert int(frame_lengths) == max(length - 400, 0) // 320 + 1


@pytest.mark.parametrize("norm", ["group_norm", "layer_norm"])
def test_bfloat16_autocast(norm: str) -> None:
    torch.manual_seed(0)
    recognizer = Wav2Vec2(norm=norm, **SMALL).eval()
    targets = recognizer.targets(TEXTS)
    exact = recognizer.loss(audio(LENGTHS), LENGTHS, targets)
    waveforms = audio(LENGTHS).requires_grad_(True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = recognizer.loss(waveforms, LENGTHS, targets)
    (gradient,) = torch.autograd.grad(losses.sum(), waveforms)
    assert losses.dtype == gradient.dtype == torch.float32 and bool(gradient.isfinite().all())
    torch.testing.assert_close(losses, exact, rtol=0.05, atol=0)


def test_training_does_not_hear_the_padding() -> None:
    torch.manual_seed(0)
    recognizer = Wav2Vec2(dropout=0.0, **SMALL).train().double()
    targets = recognizer.targets(TEXTS)
    found = []
    for size in (8000, 12_000):
        losses = recognizer.loss(audio(LENGTHS, size=size).double(), LENGTHS, targets)
        found.append([losses, *torch.autograd.grad(losses.sum(), list(recognizer.parameters()))])
    for short, long in zip(*found, strict=True):
        torch.testing.assert_close(short, long, rtol=1e-6, atol=1e-9)


def test_labels_may_be_others() -> None:
    recognizer = Wav2Vec2(LabelTokenizer(["-", "|", "A"]), **SMALL)
    assert recognizer.head.out_features == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"convolutions": [[4, 3]]},
            r"convolutions is \[\[4, 3\]\], accepted are lists of channels, kernel and stride",
        ),
        ({"convolutions": []}, "convolutions is "),
        ({"norm": "batch_norm"}, "norm is 'batch_norm', accepted is group_norm or layer_norm"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"num_heads": 5}, "width 12 must be a multiple of num_heads 5"),
        ({"position_groups": 7}, "multiple of position_groups 7"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_what_it_cannot_be_is_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Wav2Vec2(**{**SMALL, **options})
