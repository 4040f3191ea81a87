import base64
import json
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from robust_asr.attacks.goals import Untargeted
from robust_asr.attacks.objectives import FrameMargin, Loss, TokenMargin
from robust_asr.attacks.pgd import PGD, PaperPGD
from robust_asr.attacks.standard import Standard
from robust_asr.defenses.base import Chain, Defended
from robust_asr.metrics import count_errors, word_edits, word_errors
from robust_asr.models.hf_files import INLINE
from robust_asr.models.whisper import Whisper
from robust_asr.models.whisper_features import WhisperLogMel
from robust_asr.models.whisper_files import unpack
from robust_asr.models.whisper_text import normalizer_of
from robust_asr.models.whisper_times import starts_of
from robust_asr.threat import Linf
from robust_asr.types import AudioBatch, TokenTargets
from tests.robust_asr.defenses.parts import Gain
from tests.whisper_folder import END, IDS, WINDOW, tiny_whisper, write_whisper

transformers = pytest.importorskip("transformers", reason="needs the extra [hf]")
generation_whisper = pytest.importorskip("transformers.models.whisper.generation_whisper")
_dynamic_time_warping, _median_filter = generation_whisper._dynamic_time_warping, generation_whisper._median_filter
EnglishTextNormalizer = pytest.importorskip("transformers.models.whisper.english_normalizer").EnglishTextNormalizer

LENGTHS = torch.tensor([WINDOW, 9_000, 321])
TEXTS = ("Hello you.", "A BE", "")


def waveforms(lengths: Tensor = LENGTHS, *, size: int | None = None) -> Tensor:
    """Noise whose level changes, zero in the padding, each utterance by its own seed."""
    rows = torch.zeros(len(lengths), size or int(lengths.max()))
    for row, length in enumerate(lengths.tolist()):
        noise = torch.randn(length, generator=torch.Generator().manual_seed(row))
        rows[row, :length] = 0.2 * noise * torch.linspace(0, 12, length).sin() ** 4
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Large weights, so that what is written depends on what is heard.
    return write_whisper(tmp_path_factory.mktemp("whisper"), init_std=0.4)


@pytest.fixture(scope="module")
def recognizer(folder: Path) -> Whisper:
    return Whisper(str(folder))


@pytest.fixture(scope="module")
def reference(folder: Path):
    return transformers.WhisperForConditionalGeneration.from_pretrained(folder).eval()


@pytest.mark.parametrize("num_mels", [20, 80, 128])
def test_features_are_the_extractors(num_mels: int) -> None:
    extractor = transformers.WhisperFeatureExtractor(feature_size=num_mels, chunk_length=2)
    front_end = WhisperLogMel(num_mels=num_mels, window=32_000)
    lengths = torch.tensor([32_000, 20_001, 321, 1])
    audio = waveforms(lengths)
    rows = [audio[row, :length].numpy() for row, length in enumerate(lengths.tolist())]
    expected = extractor(rows, sampling_rate=16_000, return_tensors="pt").input_features
    torch.testing.assert_close(front_end(audio, lengths), expected, rtol=0, atol=1e-4)


def test_features_do_not_depend_on_the_batch_or_its_padding() -> None:
    front_end = WhisperLogMel(window=WINDOW)
    dirty = waveforms(size=WINDOW + 999)
    dirty[torch.arange(WINDOW + 999) >= LENGTHS[:, None]] = torch.nan
    together = front_end(dirty, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = front_end(waveforms()[row : row + 1, :length], LENGTHS[row : row + 1])
        torch.testing.assert_close(together[row], alone[0], rtol=0, atol=1e-6)


def test_the_floor_follows_each_utterance_alone_and_so_does_its_gradient() -> None:
    front_end = WhisperLogMel(num_mels=20, window=WINDOW).double()
    lengths = torch.tensor([9_000, 9_000])
    # A tone that falls by 200 dB: more than half of it lies below the floor.
    time = torch.arange(9_000, dtype=torch.float64)
    tone = torch.sin(time / 3) * 10 ** (-time / 900)
    audio = torch.stack([tone, 0.1 * tone]).requires_grad_(True)
    features = front_end(audio, lengths)
    for row in (0, 1):
        assert float(features[row].amax() - features[row].amin()) == pytest.approx(2.0)
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((features * weights).sum(), audio)
    direction = torch.randn(audio.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * tone.abs()
    with torch.no_grad():
        step = 1e-8 * direction
        ahead, behind = ((front_end(audio + sign * step, lengths) * weights).sum() for sign in (1, -1))
    assert float((ahead - behind) / 2e-8) == pytest.approx(float((gradient * direction).sum()), rel=1e-4)


def test_loss_is_the_sum_over_the_tokens_and_the_end_of_text(recognizer: Whisper, reference) -> None:
    losses = recognizer.loss(waveforms(), LENGTHS, recognizer.targets(TEXTS))
    for row, text in enumerate(TEXTS):
        tokens = [IDS["<|startoftranscript|>"], IDS["<|notimestamps|>"], *recognizer.targets([text]).tokens[0].tolist()]
        features = recognizer.front_end(waveforms(), LENGTHS)[row : row + 1]
        with torch.no_grad():
            scores = reference(features, decoder_input_ids=torch.tensor([tokens])).logits[0].log_softmax(-1)
        wanted = torch.tensor([*tokens[2:], END])
        expected = -scores[1:].gather(1, wanted[:, None]).sum()
        torch.testing.assert_close(losses[row], expected, rtol=1e-5, atol=1e-4)


def heard_by_transformers(model, features: Tensor, **options: str) -> list[list[int]]:
    prompt = {IDS[name] for name in IDS if name.startswith("<|")}
    rows = model.generate(features, **options).tolist()
    return [[token for token in row if token not in prompt] for row in rows]


def test_transcripts_are_those_of_generate(recognizer: Whisper, reference) -> None:
    lengths = torch.tensor([WINDOW, 12_000, 9_000, 4_000, 321, 1])
    audio = waveforms(lengths)
    expected = heard_by_transformers(reference, recognizer.front_end(audio, lengths))
    written = [transcript.written for transcript in recognizer.transcribe(audio, lengths)]
    assert written == [recognizer._text.decode(tokens) for tokens in expected]
    assert len(set(written)) > 3, "a model that always writes the same would prove nothing"


def test_an_utterance_that_has_ended_is_computed_no_further(
    recognizer: Whisper, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = torch.tensor([WINDOW, 12_000, 9_000, 4_000, 321, 1])
    hidden = recognizer.encode(waveforms(lengths), lengths)[0]
    # Random weights hardly write the end; a token that they write at several places stands for it.
    written = recognizer._search(hidden)[0]
    monkeypatch.setattr(recognizer, "_end", written[2][4])
    rows: list[int] = []
    handle = recognizer.network.decoder.register_forward_hook(
        lambda _, __, found: rows.append(len(found.last_hidden_state))
    )
    try:
        with torch.no_grad():
            together = recognizer._search(hidden)[0]
    finally:
        handle.remove()
    assert sum(rows) == sum(map(len, together)) < len(rows) * len(lengths), "they must end at different places"
    with torch.no_grad():
        assert together == [recognizer._search(one[None])[0][0] for one in hidden]
        assert recognizer._search(hidden[:0])[0] == []
    end = written[2][4]
    for cut, whole in zip(together, written, strict=True):
        assert cut == (whole[: whole.index(end) + 1] if end in whole else whole)


class Generated(dict):
    """What transformers hands on from its search."""

    __getattr__ = dict.__getitem__


def starts_by_transformers(
    folder: Path, features: Tensor, tokens: list[int], prompt: Tensor, frames: int, heads: list
) -> list[float]:
    model = transformers.WhisperForConditionalGeneration.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    ).eval()
    sequences = torch.cat([prompt, torch.tensor(tokens)])[None]
    with torch.no_grad():
        made = model(features, decoder_input_ids=sequences, output_attentions=True)
    found = Generated(cross_attentions=[made.cross_attentions], sequences=sequences)
    times = model._extract_token_timestamps(found, heads, num_frames=[2 * frames], num_input_ids=len(prompt))
    return times[0, len(prompt) : -1].tolist()


def test_words_are_heard_where_transformers_hears_them(recognizer: Whisper, folder: Path) -> None:
    lengths = torch.tensor([WINDOW, 12_000, 9_000, 4_000])
    audio = waveforms(lengths)
    hidden, frame_lengths = recognizer.encode(audio, lengths)
    assert frame_lengths.tolist() == [100, 38, 29, 13]
    with torch.no_grad():
        found, gaze = recognizer._search(hidden)
    features, transcripts = recognizer.front_end(audio, lengths), recognizer.transcribe(audio, lengths)
    for row, frames in enumerate(frame_lengths.tolist()):
        # The last token was not read: it is where the longest transcript ends.
        expected = starts_by_transformers(
            folder, features[row : row + 1], found[row][:-1], recognizer.prompt, frames, recognizer._heads
        )
        starts = gaze.starts(row, frames)
        assert [0.02 * start for start in starts] == pytest.approx(expected, abs=1e-6)
        words = transcripts[row].words
        assert [word.text for word in words] == transcripts[row].written.split()
        for word, (_, place) in zip(words, recognizer._text.words(found[row]), strict=True):
            assert word.start == pytest.approx(0.02 * starts[min(place, len(starts) - 1)])
            assert 0 <= word.start <= word.end <= frames * 0.02 + 1e-9 and 0 < word.confidence <= 1
        assert words[-1].end == pytest.approx(frames * 0.02)


@pytest.mark.parametrize("tokens, frames", [(1, 1), (1, 9), (5, 3), (4, 30), (30, 200)])
def test_token_starts_are_those_of_transformers_warping(tokens: int, frames: int) -> None:
    weights = torch.rand(3, tokens, frames + 7, generator=torch.Generator().manual_seed(frames)).softmax(-1)
    found = starts_of(weights, frames)
    matrix = weights[..., :frames]
    deviation, mean = torch.std_mean(matrix, -2, keepdim=True, unbiased=False)
    smooth = _median_filter(((matrix - mean) / deviation).nan_to_num(0, 0, 0), 7).mean(0)
    text, time = _dynamic_time_warping(-smooth.double().numpy())
    assert found == [int(time[text == token].min()) for token in range(tokens)]


def test_without_alignment_heads_there_are_no_times(tmp_path: Path) -> None:
    folder = write_whisper(tmp_path, init_std=0.4)
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"alignment_heads": None}))
    timeless = Whisper(str(folder))
    assert [heard.words for heard in timeless.transcribe(waveforms(), LENGTHS)] == [()] * 3
    assert "alignment_heads" not in unpack(timeless.model).generation
    for heads in ([[0, 2]], [[2, 0]], [[0]], "all", [[0, True]]):
        path.write_text(json.dumps(settings | {"alignment_heads": heads}))
        with pytest.raises(ValueError, match="alignment_heads must be pairs of a layer and a head, found"):
            Whisper(str(folder))


def test_multilingual_prompts(tmp_path: Path) -> None:
    folder = write_whisper(tmp_path, multilingual=True, init_std=0.4)
    reference = transformers.WhisperForConditionalGeneration.from_pretrained(folder).eval()
    english, german = (Whisper(str(folder), language=language) for language in ("en", "de"))
    features = english.front_end(waveforms(), LENGTHS)
    for recognizer, options in ((english, {"language": "en"}), (german, {"language": "de"})):
        expected = heard_by_transformers(reference, features, task="transcribe", **options)
        written = [transcript.written for transcript in recognizer.transcribe(waveforms(), LENGTHS)]
        assert written == [recognizer._text.decode(tokens) for tokens in expected]
    losses = [model.loss(waveforms(), LENGTHS, model.targets(TEXTS)) for model in (english, german)]
    assert not torch.allclose(*losses)
    for language, task, field in (
        (None, "transcribe", "language"),
        ("fr", "transcribe", "language"),
        ("en", "sing", "task"),
    ):
        with pytest.raises(ValueError, match=f"^{field} must be"):
            Whisper(str(folder), language=language, task=task)


def test_an_english_model_takes_no_language(folder: Path) -> None:
    with pytest.raises(ValueError, match="language must be None and task 'transcribe' for an English-only Whisper"):
        Whisper(str(folder), language="en")


def test_audio_beyond_the_window_is_refused(recognizer: Whisper) -> None:
    lengths = torch.tensor([WINDOW + 1, 9_000])
    targets = recognizer.targets(["A", "A"])
    assert recognizer.feasible(lengths, targets).tolist() == [False, True]
    assert recognizer.window(lengths).tolist() == [WINDOW + 1, WINDOW]
    audio = waveforms(lengths).requires_grad_(True)
    losses = recognizer.loss(audio, lengths, targets)
    assert losses.isfinite().tolist() == [False, True]
    assert torch.autograd.grad(losses.sum(), audio)[0].abs().sum(1).bool().tolist() == [False, True]
    with pytest.raises(ValueError, match=r"Whisper hears 2 s, the utterances at \[0\] of the batch are longer"):
        recognizer.transcribe(audio, lengths)


def test_an_attack_leaves_audio_beyond_the_window_alone(recognizer: Whisper) -> None:
    lengths = torch.tensor([WINDOW + 1, 9_000])
    batch = AudioBatch(waveforms(lengths), lengths, ("A", "A"), ("long", "short"))
    result = PGD(Linf(0.01), objective=Loss(), num_iterations=2)(recognizer, batch, seeds=torch.arange(2))
    assert result.notes == ("not attacked: its audio is longer than the recogniser can hear", "")
    assert torch.equal(result.batch.waveforms[0], batch.waveforms[0]) and result.hypotheses[0] == ""
    defended = Defended(Chain([Gain()]), recognizer)
    assert defended.hears(lengths).tolist() == [False, True]


def test_text_too_long_for_the_decoder_is_infeasible(recognizer: Whisper) -> None:
    # 32 positions, of which the prompt takes two; a space and 29 letters fill the rest.
    targets = recognizer.targets(["b" * 29, "b" * 30])
    lengths = torch.tensor([9_000, 9_000])
    assert recognizer.feasible(lengths, targets).tolist() == [True, False]
    assert recognizer.loss(waveforms(lengths), lengths, targets).isfinite().tolist() == [True, False]


@pytest.mark.parametrize("text", ["Hello you.", "A  BE ", "", "it's well-known", " spaced\nout"])
def test_text_comes_back_in_its_spelling(recognizer: Whisper, text: str) -> None:
    targets = recognizer.targets([text])
    assert recognizer._text.decode(targets.tokens[0].tolist()) == " ".join(text.split())
    assert recognizer.unwritable(text) == []


@pytest.mark.parametrize("text, unknown", [("caf\u00e9", "\u00e9"), ("an <|endoftext|> here", "<|endoftext|>")])
def test_text_without_tokens_is_named(recognizer: Whisper, text: str, unknown: str) -> None:
    assert recognizer.unwritable(text) == [unknown]
    with pytest.raises(ValueError, match="which Whisper's vocabulary cannot write as text"):
        recognizer.targets([text])


WRITTEN = [
    (" Mister Quilter is the apostle.", "MISTER QUILTER IS THE APOSTLE"),
    (
        "Mr. Quilter isn't 21; it's \u201cso\u201d, \u2014 well-known?",
        "MISTER QUILTER IS NOT TWENTY ONE IT'S SO WELL KNOWN",
    ),
    ("Uh, hmm.", ""),
    ("", ""),
]


@pytest.mark.parametrize("written, reference", WRITTEN)
def test_texts_are_compared_after_whispers_normaliser(recognizer: Whisper, written: str, reference: str) -> None:
    assert word_errors(recognizer.compared(reference), recognizer.compared(written))[0] == 0
    assert Defended(Chain([Gain()]), recognizer).compared(written) == recognizer.compared(written)
    assert EnglishTextNormalizer({})(written).strip() == recognizer.compared(written)


def test_what_is_heard_is_written_and_compared(recognizer: Whisper) -> None:
    for heard in recognizer.transcribe(waveforms(), LENGTHS):
        assert heard.text == recognizer.compared(heard.written)
    assert recognizer.cased


@given(st.text(max_size=40) | st.text("0123456789 .,$%\u00b2\u0664one hundred and half point double", max_size=40))
def test_any_text_has_a_compared_form(text: str) -> None:
    """An attacked Whisper writes anything."""
    for english in (True, False):
        assert isinstance(normalizer_of(english=english, spelling={})(text), str)


def test_spellings_are_those_of_the_folder(tmp_path: Path) -> None:
    folder = write_whisper(tmp_path / "one")
    plain = Whisper(str(folder))
    (folder / "normalizer.json").write_text(json.dumps({"colour": "color"}))
    spelling = Whisper(str(folder))
    assert (plain.compared("Colour!"), spelling.compared("Colour!")) == ("colour", "color")
    # The description holds them; without any it is the one from before there were spellings.
    assert Whisper(spelling.model).compared("COLOUR") == "color"
    assert "spelling" not in zlib.decompress(base64.b64decode(plain.model.removeprefix(INLINE))).decode()
    assert spelling.model != plain.model and unpack(plain.model).spelling == {}
    for content, found in ((["colour"], "a list"), ({"colour": 1}, "must map words to words")):
        (folder / "normalizer.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=f"one.*{found}"):
            Whisper(str(folder))


def test_other_languages_have_the_basic_normaliser(tmp_path: Path) -> None:
    folder = str(write_whisper(tmp_path, multilingual=True))
    assert Whisper(folder, language="de").compared("Mr. Uhr, ZWEI.") == "mr uhr zwei"
    for settings in ({"language": "en"}, {"language": "de", "task": "translate"}):
        assert Whisper(folder, **settings).compared("Mr. Who, TWO.") == "mister who 2"


def test_an_attack_climbs_away_from_what_whisper_writes(recognizer: Whisper) -> None:
    lengths = LENGTHS[:2]
    batch = AudioBatch(waveforms(lengths), lengths, TEXTS[:2], ("a", "b"))
    attack = PaperPGD(Linf(0.01), goal=Untargeted(away_from="transcript"), num_iterations=2)
    found = attack(recognizer, batch, seeds=torch.arange(2))
    written = tuple(heard.written for heard in recognizer.transcribe(batch.waveforms, lengths))
    spelled = replace(attack, goal=Untargeted(away_from="reference"))
    expected = spelled.generate(recognizer, replace(batch, texts=written), seeds=torch.arange(2))
    for row, fact in enumerate(found.facts):
        if fact["climbed"] == "transcript":
            assert torch.equal(found.batch.waveforms[row], expected.waveforms[row])
    assert "transcript" in {fact["climbed"] for fact in found.facts}


def test_pgd_raises_the_loss_and_leaves_the_silence(recognizer: Whisper) -> None:
    lengths = LENGTHS[:2]
    batch = AudioBatch(waveforms(lengths), lengths, TEXTS[:2], ("a", "b"))
    goal = Untargeted(away_from="reference")
    attack = PGD(Linf(0.01), goal=goal, objective=Loss(), num_iterations=5)
    result = attack(recognizer, batch, seeds=torch.arange(2))
    clean = recognizer.loss(batch.waveforms, lengths, recognizer.targets(batch.texts)).detach()
    assert bool((result.loss > clean + 1).all())
    assert not result.batch.waveforms[1, 9_000:].any()


def test_forced_scores_are_those_of_the_search(recognizer: Whisper) -> None:
    """The best token after the tokens that the search chose is the one that it chose next."""
    hidden, frame_lengths = recognizer.encode(waveforms(), LENGTHS)
    chosen = [tokens[:-1] if tokens[-1] == END else tokens for tokens in recognizer._search(hidden)[0]]
    tokens = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in chosen], batch_first=True)
    targets = TokenTargets(tokens, torch.tensor([len(row) for row in chosen]))
    forced = recognizer.teacher_forced(hidden, frame_lengths, targets)
    assert forced.lengths.tolist() == [len(row) + 1 for row in chosen]
    for row, length in enumerate(forced.lengths.tolist()):
        # The search stops at its longest transcript, where the end of the text need not be the best.
        compared = length - (length > 22)
        assert torch.equal(forced.scores[row, :compared].argmax(-1), forced.tokens[row, :compared])
        assert forced.tokens[row, length - 1] == END
    assert forced.scores[:, 0, recognizer.suppressed_first].isneginf().all()
    assert forced.scores[:, :, recognizer.suppressed].isneginf().all()


def test_attacks_without_a_choice_of_objective_serve_whisper(recognizer: Whisper) -> None:
    lengths = LENGTHS[:2]
    batch = AudioBatch(waveforms(lengths), lengths, TEXTS[:2], ("a", "b"))
    found = PGD(Linf(0.01), num_iterations=4)(recognizer, batch, seeds=torch.arange(2))
    assert found.iterations.tolist() == [4, 4] and bool(found.success.all())
    found = Standard(Linf(0.01), forwards=60)(recognizer, batch, seeds=torch.arange(2))
    assert set(found.members) <= {"loss cosine", "loss+token margin cosine", "square"}
    with pytest.raises(ValueError, match="FrameMargin needs scores of labels in every frame, which Whisper does not"):
        PGD(Linf(0.01), objective=FrameMargin())(recognizer, batch, seeds=torch.arange(2))
    margin = PGD(Linf(0.01), objective=TokenMargin(), num_iterations=4)
    assert margin(Defended(Chain([Gain()]), recognizer), batch, seeds=torch.arange(2)).success.all()


def test_mixed_precision_trains(tmp_path: Path) -> None:
    recognizer = tiny_whisper(tmp_path).train()
    targets = recognizer.targets(TEXTS)
    expected = recognizer.loss(waveforms(), LENGTHS, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = recognizer.loss(waveforms(), LENGTHS, targets)
    losses.sum().backward()
    torch.testing.assert_close(losses, expected, rtol=0.05, atol=0.5)
    trained = [parameter for parameter in recognizer.parameters() if parameter.requires_grad]
    assert all(parameter.grad.isfinite().all() for parameter in trained)


@pytest.fixture(scope="module")
def real(shared_data: Path) -> tuple[Whisper, Path, list[tuple[str, Tensor]]]:
    """Whisper tiny.en, its folder, and the texts and audio of 28 excerpts of test-clean and dev-clean."""
    import soundfile

    folder = shared_data / "whisper_tiny_en"
    if not folder.is_dir():
        pytest.skip(f"no Whisper in {folder}")
    lists = [
        path
        for part in ("test-clean", "dev-clean")
        for path in (shared_data / "LibriSpeech" / part).rglob("*.trans.txt")
    ]
    excerpts = [
        (text, torch.from_numpy(soundfile.read(path.with_name(f"{name}.flac"), dtype="float32")[0]))
        for path in sorted(lists)
        for name, text in (line.split(" ", 1) for line in path.read_text().splitlines())
    ]
    return Whisper(str(folder)), folder, excerpts


def batched(excerpts: list[tuple[str, Tensor]]) -> tuple[Tensor, Tensor]:
    audio = [samples for _, samples in excerpts]
    return torch.nn.utils.rnn.pad_sequence(audio, batch_first=True), torch.tensor([len(samples) for samples in audio])


@pytest.mark.shared_data
def test_error_rate_of_tiny_en(real) -> None:
    recognizer, _, excerpts = real
    heard = [recognizer.transcribe(*batched(excerpts[first : first + 7])) for first in range(0, len(excerpts), 7)]
    counts = count_errors(
        [recognizer.compared(text) for text, _ in excerpts], [one.text for batch in heard for one in batch]
    )
    assert (len(excerpts), counts["reference_words"], word_edits(counts)) == (28, 581, 29)


@pytest.mark.shared_data
def test_tiny_en_is_transformers_tiny_en(real) -> None:
    recognizer, folder, excerpts = real
    some = excerpts[::9]
    processor = transformers.WhisperProcessor.from_pretrained(folder, local_files_only=True)
    reference = transformers.WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    audio, lengths = batched(some)
    every = processor([samples.numpy() for _, samples in excerpts], sampling_rate=16_000, return_tensors="pt")
    torch.testing.assert_close(recognizer.front_end(*batched(excerpts)), every.input_features, rtol=0, atol=1e-4)
    expected = processor.batch_decode(reference.generate(every.input_features[::9]), skip_special_tokens=True)
    assert [one.written for one in recognizer.transcribe(audio, lengths)] == [text.strip() for text in expected]


@pytest.mark.shared_data
def test_gradient_of_tiny_en_equals_finite_differences(real) -> None:
    _, folder, excerpts = real
    shortest = min(excerpts, key=lambda excerpt: len(excerpt[1]))
    audio, lengths = batched([shortest])
    exact = Whisper(str(folder)).double()
    audio, targets = audio.double().requires_grad_(True), exact.targets([shortest[0]])
    (gradient,) = torch.autograd.grad(exact.loss(audio, lengths, targets).sum(), audio)
    step = 1e-7 * gradient / gradient.norm()
    with torch.no_grad():
        ahead, behind = (exact.loss(audio + sign * step, lengths, targets).item() for sign in (1, -1))
    assert (ahead - behind) / 2e-7 == pytest.approx(gradient.norm().item(), rel=1e-3)
