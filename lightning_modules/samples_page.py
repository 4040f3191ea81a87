"""One self-contained page of what a recogniser heard: audio players over aligned transcripts. Every text is escaped."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import soundfile
from torch import Tensor

from robust_asr.alignment import ALIGNMENT_CSS, Alignment, align, align_html, printable

_CSS = """\
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --line: #dfe2e8; --text: #1b1f27; --muted: #5c6370;
  --edit: #a4131f; --edit-background: #fdeaea; --good: #14683a; --good-background: #e3f4e9; }
@media (prefers-color-scheme: dark) { :root { --page: #14161a; --card: #1d2026; --line: #31363f; --text: #e7e9ee;
  --muted: #a2a9b6; --edit: #ff9aa2; --edit-background: #43232a; --good: #86dba8; --good-background: #1c3a2a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.25rem 1rem 3rem; max-width: 56rem; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.35rem; margin: 0; } h2 { font-size: 1.05rem; margin: 2rem 0 .6rem; }
h2 small, .legend, .facts { color: var(--muted); font-weight: 400; font-size: .85rem; }
.legend { margin: .25rem 0 0; }
article { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .8rem 1rem 1rem;
  margin: 0 0 .8rem; }
header { display: flex; flex-wrap: wrap; gap: .2rem .8rem; align-items: baseline; margin-bottom: .5rem; }
header b { overflow-wrap: anywhere; }
.badge { margin-left: auto; padding: 0 .55rem; border-radius: 1rem; font-size: .85rem; font-weight: 600;
  white-space: nowrap; }
.badge.good { color: var(--good); background: var(--good-background); }
.badge.bad { color: var(--edit); background: var(--edit-background); }
audio { display: block; width: 100%; height: 2.25rem; margin: 0 0 .7rem; }
"""


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
        f"<h2>{_text(part)} <small>{_text(notes.get(part, ''))}</small></h2>{''.join(map(_card, samples))}"
        for part, samples in parts.items()
    ]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; media-src data:; style-src 'unsafe-inline'">
<title>{_text(title)}</title><style>
{_CSS}{ALIGNMENT_CSS}</style></head><body>
<h1>{_text(title)}</h1>
<p class="legend">Reference words; where the recogniser differs, what it heard stands below:
S substituted, D deleted, I inserted.</p>
{"".join(sections)}
</body></html>
"""


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
    return f"""<article><header><b>{_text(sample.id)}</b><span class="facts">{seconds:.1f} s</span>
<span class="badge {"bad" if alignment.edits else "good"}">{error_summary(alignment)}</span></header>
<audio controls preload="metadata" aria-label="{_text(sample.id)}" src="{_audio_uri(sample)}"></audio>
{align_html(sample.reference, sample.hypothesis)}</article>
"""


def _audio_uri(sample: Sample) -> str:
    encoded = io.BytesIO()
    waveform = sample.waveform.nan_to_num().clamp(-1, 1).numpy()
    soundfile.write(encoded, waveform, sample.sample_rate, format="FLAC", subtype="PCM_16")
    return f"data:audio/flac;base64,{base64.b64encode(encoded.getvalue()).decode()}"


def _text(text: str) -> str:
    return html.escape(printable(text))
