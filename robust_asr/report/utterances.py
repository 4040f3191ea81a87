"""The worst utterances: their texts as said and as heard, and the audio that an evaluation kept of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from robust_asr.metrics import word_edits
from robust_asr.report.blocks import details
from robust_asr.report.clips import Clip, player, read_clip, spectrograms
from robust_asr.report.grid import Cell, Grid
from robust_asr.report.markup import escaped
from robust_asr.report.numbers import count, duration, rate
from robust_asr.report.series import swatch
from robust_asr.results import Row, audio_path, key
from robust_asr.results.compared import compared_reference
from robust_asr.results.worst import worst_rows
from robust_asr.text.alignment import align_html
from robust_asr.types import Status

# Utterances of each cell that are shown.
NUM_WORST = 3
# No utterance has as many words; a file may hold a longer text, whose alignment would take hours.
MAX_WORDS = 300
_STATUS_REMARKS = {
    Status.REFUSED: "The attack refused this utterance.",
    Status.BROKEN_OFF: "The attack broke off.",
    Status.MASKED_GRADIENT: "The attack met a masked gradient and never moved: this transcript says nothing about robustness.",
}


# Compared by identity, so that a card can be a key: rows are maps, which cannot.
@dataclass(frozen=True, eq=False)
class Card:
    """One utterance of one cell. ``rank`` is 0 for the worst of the cell."""

    cell: Cell
    row: Row
    rank: int


def worst_utterances(grid: Grid, part: str, *, max_bytes: int) -> tuple[str, str]:
    """The cards of a part by condition, and a sentence on what was left out to keep the page at ``max_bytes`` more.

    Texts come before audio. Room for either goes to the worst of every cell first, then to the second of every cell; audio is
    encoded only as long as it fits.
    """
    ranked = _ranked(grid, part)
    texts: dict[Card, tuple[str, str]] = {}
    for card in ranked:
        top, rest = _texts(grid, card)
        size = len(f"{top}{rest}".encode())
        if size <= max_bytes:
            texts[card] = top, rest
            max_bytes -= size
    sounds: dict[Card, str] = {}
    for card in texts:
        sound = _sound(_clips(grid, card))
        if len(sound.encode()) > max_bytes:
            break
        max_bytes -= len(sound.encode())
        sounds[card] = sound
    silent = sum(card not in sounds and _has_audio(grid, card) for card in texts)
    left_out = [
        count(len(ranked) - len(texts), "utterance") if len(texts) < len(ranked) else "",
        f"the audio of {count(silent, 'utterance')}" if silent else "",
    ]
    what = " and ".join(text for text in left_out if text)
    note = f"{what[:1].upper()}{what[1:]} left out: the page would be larger than its limit." if what else ""
    markup = {card: f"{top}{sounds.get(card, '')}{rest}" for card, (top, rest) in texts.items()}
    return _groups(grid, markup), note


def _ranked(grid: Grid, part: str) -> list[Card]:
    """The worst of all cells, then the second of all cells."""
    cells = [grid.cell(system, condition, part) for condition in grid.conditions for system in grid.systems]
    worst = [(cell, worst_rows(cell.rows, keep=NUM_WORST)) for cell in cells]
    return [Card(cell, rows[rank], rank) for rank in range(NUM_WORST) for cell, rows in worst if rank < len(rows)]


def _groups(grid: Grid, markup: dict[Card, str]) -> str:
    """The cards of each condition under its name; the hardest condition is open."""
    groups = []
    hardest = max(markup, key=lambda card: card.cell.wer["value"]).cell.condition if markup else ""
    for condition in grid.conditions:
        members = [card for card in markup if card.cell.condition == condition]
        members.sort(key=lambda card: (grid.systems.index(card.cell.system), card.rank))
        if members:
            summary = f"{grid.label(condition)}: {count(len(members), 'utterance')}"
            content = f'<div class="cards">{"".join(markup[card] for card in members)}</div>'
            groups.append(details(summary, content, kind="group", is_open=condition == hardest))
    return "".join(groups)


def _texts(grid: Grid, card: Card) -> tuple[str, str]:
    """A card without its sound: the markup above that, and the markup below."""
    row, system = card.row, card.cell.system
    texts = compared_reference(row), row["hypothesis"]
    remarks = [
        f"The first {MAX_WORDS} words." if any(_cut(text) != text for text in texts) else "",
        f"Attacker's target: {row['target']}" if row.get("target") else "",
        f"Written: {_cut(row['written'])}" if row.get("written") else "",
        "" if row["hypothesis"].strip() else "The transcript is empty.",
        _STATUS_REMARKS.get(row["status"], ""),
        row.get("note") or "",
        f"Found by {row['member']}." if row.get("member") else "",
        f"Recounted: {row['recounted']}." if "recounted" in row else "",
    ]
    notes = "".join(f'<p class="remark">{escaped(remark)}</p>' for remark in remarks if remark)
    top = (
        f"<article><header>{swatch(grid.systems.index(system))}<b>{escaped(system)}</b>"
        f'<span class="facts id">{escaped(row["id"])}</span><span class="facts">{_facts(row)}</span>'
        f'<span class="badge bad">{_errors(row)}</span></header>'
    )
    return top, f"{align_html(*map(_cut, texts))}{notes}</article>\n"


def _sound(clips: dict[str, Clip]) -> str:
    players = "".join(player(name, clip) for name, clip in clips.items())
    cut = "".join(
        f'<p class="aside">The first {at:.0f} s of the audio.</p>' for at in {c.cut_at for c in clips.values()} if at
    )
    return f'<div class="players">{players}</div>{cut}{spectrograms(clips)}' if clips else ""


def _facts(row: Row) -> str:
    facts = [duration(row["audio_seconds"])]
    if row.get("snr_db") is not None:
        facts.append(f"SNR {rate(row['snr_db'])} dB")
    return ", ".join(facts)


def _cut(text: str) -> str:
    words = text.split(maxsplit=MAX_WORDS)
    return " ".join(words[:MAX_WORDS]) if len(words) > MAX_WORDS else text


def _clips(grid: Grid, card: Card) -> dict[str, Clip]:
    """Clean and attacked audio as far as it was kept; a clean condition has one clip."""
    places = _places(grid, card)
    clips = {name: read_clip(path, folder) for name, (path, folder) in places.items()}
    return {name: clip for name, clip in clips.items() if clip is not None and len(clip.waveform)}


def _has_audio(grid: Grid, card: Card) -> bool:
    return any(path.is_file() for path, _ in _places(grid, card).values())


def _places(grid: Grid, card: Card) -> dict[str, tuple[Path, Path]]:
    """Where the audio of a card would be, and the run folder that it must not lead out of."""
    run_dir, (system, condition, part, utterance) = grid.runs.origins[key(card.row)]
    cells = {"clean": (part, utterance)}
    if card.cell.condition not in grid.clean:
        is_attack = card.row.get("target") or card.cell.wer["metric"] == "GT_WER"
        cells["attacked" if is_attack else "noisy"] = (system, condition, part, utterance)
    return {name: (audio_path(run_dir, *cell), run_dir) for name, cell in cells.items()}


def _errors(row: Row) -> str:
    errors = count(word_edits(row), "error")
    return (
        f"{errors}, WER {rate(100 * word_edits(row) / row['words'], digits=0)} %"
        if row["words"]
        else f"{errors}, no words to be heard"
    )
