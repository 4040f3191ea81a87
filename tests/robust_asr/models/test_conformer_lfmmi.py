from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from robust_asr import checkpoint
from robust_asr.lfmmi.lexicon import Lexicon
from robust_asr.lfmmi.phone_lm import estimate_bigram
from robust_asr.models.conformer import ConformerEncoder
from robust_asr.models.conformer_lfmmi import ConformerLFMMI
from robust_asr.search.phones import PhoneBeamSearch

TEXTS = ["THE A", "A", "", "B THE"]
LENGTHS = torch.tensor([12_000, 9_000, 4_000, 8_000])
SIZES = {"num_mels": 20, "subsampling_channels": 4, "width": 12, "num_layers": 1, "num_heads": 2}


@pytest.fixture
def lexicon(tmp_path: Path) -> Lexicon:
    file = tmp_path / "lexicon.txt"
    file.write_text("A AH\nA(2) EY\nTHE DH AH\nTHE(2) DH IY\nB B IY\n")
    return Lexicon(str(file), stress=False)


def _recognizer(lexicon: Lexicon) -> ConformerLFMMI:
    torch.manual_seed(0)
    return ConformerLFMMI(ConformerEncoder(**SIZES, feed_forward_width=24, kernel_size=7), lexicon=lexicon).eval()


def _waveforms(lengths: Tensor) -> Tensor:
    waveforms = 0.1 * torch.randn(len(lengths), int(lengths.max()), generator=torch.Generator().manual_seed(1))
    return waveforms.masked_fill(torch.arange(waveforms.shape[1]) >= lengths[:, None], 0)


def test_a_loss_without_a_language_is_refused(lexicon: Lexicon):
    recognizer = _recognizer(lexicon)
    assert not recognizer.knows_language
    with pytest.raises(RuntimeError, match="call prepare"):
        recognizer.loss(_waveforms(LENGTHS), LENGTHS, recognizer.targets(TEXTS))
    recognizer.estimate_language(TEXTS)
    assert recognizer.knows_language
    assert torch.equal(recognizer.log_bigram, estimate_bigram(TEXTS, lexicon))


def test_a_checkpoint_keeps_the_language(lexicon: Lexicon, tmp_path: Path):
    recognizer = _recognizer(lexicon)
    recognizer.estimate_language(TEXTS)
    path = str(tmp_path / "lfmmi.ckpt")
    checkpoint.save(recognizer, path)
    loaded = checkpoint.load(path)
    assert loaded.knows_language
    losses = [model.loss(_waveforms(LENGTHS), LENGTHS, model.targets(TEXTS)) for model in (recognizer, loaded)]
    assert torch.equal(*losses)


def test_with_one_pronunciation_and_all_phones_alike_it_is_ctc(lexicon: Lexicon):
    # Under a flat bigram and no silence, numerator and CTC differ by a number of the text alone.
    recognizer = _recognizer(lexicon)
    recognizer.log_bigram.fill_(-1.0)
    with torch.no_grad():
        recognizer.head.bias[lexicon.silence] = -1e4
    waveforms, lengths = _waveforms(LENGTHS[:1]).requires_grad_(), LENGTHS[:1]
    emissions = recognizer.emissions(waveforms, lengths)
    phones = torch.tensor([lexicon.encode("B B")])
    arguments = (emissions.frame_lengths, torch.tensor([phones.shape[1]]))
    ctc = functional.ctc_loss(emissions.log_probs.transpose(0, 1), phones, *arguments, reduction="sum")
    everything = recognizer.loss(waveforms, lengths, recognizer.targets([""]))
    nothing = -emissions.log_probs[0, :, 0].sum()
    (expected,) = torch.autograd.grad(ctc - nothing, waveforms, retain_graph=True)
    (found,) = torch.autograd.grad(
        recognizer.loss(waveforms, lengths, recognizer.targets(["B B"])).sum() - everything.sum(), waveforms
    )
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_more_ways_to_say_it_make_it_more_probable(lexicon: Lexicon, tmp_path: Path):
    file = tmp_path / "one.txt"
    file.write_text("A AH\nTHE DH AH\nB B IY\n")
    many, one = _recognizer(lexicon), _recognizer(Lexicon(str(file), stress=False))
    one.load_state_dict(many.state_dict())
    for recognizer in (many, one):
        recognizer.log_bigram.copy_(estimate_bigram(TEXTS, lexicon))
    losses = [model.loss(_waveforms(LENGTHS), LENGTHS, model.targets(TEXTS)) for model in (many, one)]
    said_once = torch.tensor([False, False, True, False])
    assert torch.equal(losses[0] < losses[1], ~said_once)
    assert bool((losses[0] >= 0).all())


def test_a_phrase_outside_the_lexicon_can_be_a_target(lexicon: Lexicon):
    recognizer = _recognizer(lexicon)
    recognizer.estimate_language(TEXTS)
    waveforms = _waveforms(LENGTHS).requires_grad_()
    losses = recognizer.loss(waveforms, LENGTHS, recognizer.targets(["ZELASKO"] * 4))
    (gradient,) = torch.autograd.grad(losses.sum(), waveforms)
    assert losses.isfinite().all() and bool((gradient.abs().sum(1) > 0).all())


def test_a_few_steps_learn_two_words(lexicon: Lexicon):
    recognizer = _recognizer(lexicon).train()
    recognizer.estimate_language(["A", "B"])
    time = torch.arange(8_000) / 16_000
    waveforms = 0.3 * torch.stack([torch.sin(2_000 * time), torch.sin(20_000 * time)])
    lengths, targets = torch.tensor([8_000, 8_000]), recognizer.targets(["A", "B"])
    optimizer = torch.optim.Adam(recognizer.parameters(), lr=0.01)
    for _ in range(40):
        loss = recognizer.loss(waveforms, lengths, targets).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    heard = [transcript.text for transcript in recognizer.eval().transcribe(waveforms, lengths)]
    assert heard[0] in ("AH", "EY") and heard[1] == "B IY"
    recognizer.use_search(PhoneBeamSearch(lexicon=["A B THE"]))
    assert [transcript.text for transcript in recognizer.transcribe(waveforms, lengths)] == ["A", "B"]


def test_mixed_precision_is_near(lexicon: Lexicon):
    recognizer = _recognizer(lexicon)
    recognizer.estimate_language(TEXTS)
    targets = recognizer.targets(TEXTS)
    exact = recognizer.loss(_waveforms(LENGTHS), LENGTHS, targets)
    with torch.autocast("cpu", torch.bfloat16):
        rough = recognizer.loss(_waveforms(LENGTHS), LENGTHS, targets)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.1, atol=0.5)
