"""One self-contained page of what a recogniser heard: audio players over aligned transcripts. Every text is escaped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from robust_asr.report.audio import flac_uri
from robust_asr.report.markup import THEME_CSS, document, escaped
from robust_asr.text.alignment import ALIGNMENT_CSS, Alignment, align, align_html


@dataclass(frozen=True)
class Sample:
    """An utterance and what was heard. Shape: waveform (T,), on the CPU. Units: sample_rate in Hz."""

    id: str
    reference: str
    hypothesis: str
    waveform: Tensor
    sample_rate: int


def samples_page(title: str, parts: Mapping[str, Sequence[Sample]], *, notes: Mapping[str, str] | None = None) -> str:
    """The page as text. ``notes`` holds a remark for each part, such as its word error rate."""
    notes = notes or {}
    sections = [
        f"<h2>{escaped(part)} <small>{escaped(notes.get(part, ''))}</small></h2>{''.join(map(_card, samples))}"
        for part, samples in parts.items()
    ]
    body = f"""<h1>{escaped(title)}</h1>
<p class="legend">Reference words; where the recogniser differs, what it heard stands below:
S substituted, D deleted, I inserted.</p>
{"".join(sections)}"""
    return document(title, body, css=THEME_CSS + ALIGNMENT_CSS)


def error_summary(alignment: Alignment) -> str:
    """Edits in words, with the rate where the reference has any word."""
    if not alignment.edits:
        return "no errors"
    edits = "1 error" if alignment.edits == 1 else f"{alignment.edits} errors"
    rate = alignment.word_error_rate
    return f"{edits}, no words to be heard" if math.isnan(rate) else f"{edits}, WER {100 * rate:.0f} %"


def _card(sample: Sample) -> str:
    alignment = align(sample.reference, sample.hypothesis)
    seconds = len(sample.waveform) / sample.sample_rate
    return f"""<article><header><b>{escaped(sample.id)}</b><span class="facts">{seconds:.1f} s</span>
<span class="badge {"bad" if alignment.edits else "good"}">{error_summary(alignment)}</span></header>
<audio controls preload="metadata" aria-label="{escaped(sample.id)}" src="{flac_uri(sample.waveform, sample.sample_rate)}"></audio>
{align_html(sample.reference, sample.hypothesis)}</article>
"""
