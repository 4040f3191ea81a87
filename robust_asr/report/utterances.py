"""The utterances that went worst: what was said, what was heard, and the audio that an evaluation kept of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from robust_asr.metrics import word_edits
from robust_asr.report.blocks import details
from robust_asr.report.clips import Clip, player, read_clip, spectrograms
from robust_asr.report.grid import Cell, Grid
from robust_asr.report.markup import escaped
from robust_asr.report.numbers import count, duration, rate
from robust_asr.report.series import swatch
from robust_asr.results import Row, audio_path, key
from robust_asr.results.worst import worst_rows
from robust_asr.text.alignment import align_html

# Of each cell.
NUM_WORST = 3
# No utterance has as many; an alignment of what a file may hold instead would take hours.
MAX_WORDS = 300


@dataclass(frozen=True)
class Card:
    """One utterance of one cell. ``rank`` is 0 for the worst of the cell."""

    cell: Cell
    row: Row
    rank: int
    markup: str


def worst_utterances(grid: Grid, part: str, *, max_bytes: int) -> tuple[str, str]:
    """The cards of a part by condition, and a sentence on what was left out to keep the page at ``max_bytes`` more.

    Room goes to the worst of every cell first, then to the second of every cell.
    """
    cards, left_out, used = [], 0, 0
    for card in _cards(grid, part):
        size = len(card.markup.encode())
        if used + size > max_bytes:
            left_out += 1
            continue
        used += size
        cards.append(card)
    groups = []
    hardest = max(cards, key=lambda card: card.cell.wer["value"]).cell.condition if cards else ""
    for condition in grid.conditions:
        members = [card for card in cards if card.cell.condition == condition]
        members.sort(key=lambda card: (grid.systems.index(card.cell.system), card.rank))
        if members:
            summary = f"{grid.label(condition)}: {count(len(members), 'utterance')}"
            content = "".join(card.markup for card in members)
            groups.append(
                details(summary, f'<div class="cards">{content}</div>', kind="group", is_open=condition == hardest)
            )
    note = f"{count(left_out, 'utterance')} left out: the page would be larger than its limit." if left_out else ""
    return "".join(groups), note


def _cards(grid: Grid, part: str) -> Iterator[Card]:
    """Built one at a time, the worst of all cells first: no more audio is in memory than goes into the page."""
    cells = [grid.cell(system, condition, part) for condition in grid.conditions for system in grid.systems]
    ranked = [(cell, worst_rows(cell.rows, keep=NUM_WORST)) for cell in cells]
    for rank in range(NUM_WORST):
        for cell, rows in ranked:
            if rank < len(rows):
                yield Card(cell, rows[rank], rank, _markup(grid, cell, rows[rank]))


def _markup(grid: Grid, cell: Cell, row: Row) -> str:
    clips = _clips(grid, cell, row)
    players = "".join(player(name, clip) for name, clip in clips.items())
    sound = f'<div class="players">{players}</div>{spectrograms(clips)}' if clips else ""
    texts = row["reference"], row["hypothesis"]
    remarks = [
        f"The first {MAX_WORDS} words." if any(_cut(text) != text for text in texts) else "",
        f"Attacker's target: {row['target']}" if row.get("target") else "",
        "" if row["hypothesis"].strip() else "The transcript is empty.",
        row.get("note") or "",
    ]
    notes = "".join(f'<p class="remark">{escaped(remark)}</p>' for remark in remarks if remark)
    return (
        f"<article><header>{swatch(grid.systems.index(cell.system))}<b>{escaped(cell.system)}</b>"
        f'<span class="facts id">{escaped(row["id"])}</span><span class="facts">{_facts(row, clips)}</span>'
        f'<span class="badge bad">{_errors(row)}</span></header>'
        f"{sound}{align_html(*map(_cut, texts))}{notes}</article>\n"
    )


def _facts(row: Row, clips: dict[str, Clip]) -> str:
    facts = [duration(row["audio_seconds"])]
    if row.get("snr_db") is not None:
        facts.append(f"SNR {rate(row['snr_db'])} dB")
    facts += {f"the first {clip.cut_at:.0f} s of the audio" for clip in clips.values() if clip.cut_at}
    return ", ".join(facts)


def _cut(text: str) -> str:
    words = text.split(maxsplit=MAX_WORDS)
    return " ".join(words[:MAX_WORDS]) if len(words) > MAX_WORDS else text


def _clips(grid: Grid, cell: Cell, row: Row) -> dict[str, Clip]:
    """Clean and attacked audio as far as it was kept; of clean conditions the one clip that there is."""
    run_dir, (system, condition, part, utterance) = grid.runs.origins[key(row)]
    places = {"clean": (part, utterance)}
    if cell.condition not in grid.clean:
        places["attacked" if row.get("target") or cell.wer["metric"] == "GT_WER" else "noisy"] = (
            system,
            condition,
            part,
            utterance,
        )
    found = {name: read_clip(audio_path(run_dir, *place), run_dir) for name, place in places.items()}
    return {name: clip for name, clip in found.items() if clip is not None and len(clip.waveform)}


def _errors(row: Row) -> str:
    errors = count(word_edits(row), "error")
    return (
        f"{errors}, WER {rate(100 * word_edits(row) / row['words'], digits=0)} %"
        if row["words"]
        else f"{errors}, no words to be heard"
    )
