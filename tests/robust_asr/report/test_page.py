"""The page as a whole: complete, self-contained, legible, and a text of a stranger is nothing but text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from robust_asr.report import report
from robust_asr.report.grid import Grid, tabulate
from robust_asr.report.page import page_text
from robust_asr.report.runs import read_runs
from robust_asr.report.series import NUM_COLOURS
from robust_asr.report.style import REPORT_CSS
from tests.robust_asr.report.example import CONDITIONS, SYSTEMS, write_example

HOSTILE = "</style></script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&`|=\u202e\x1b]0;x\x07"
VOID = {"meta", "link", "br", "img", "path", "rect", "circle"}


class Page(HTMLParser):
    """Tags, attributes and text of a page, and whether every element was closed in its place."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text, self._open = "", []
        self.feed(text)
        assert self._open == [], f"left open: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, tag

    def handle_data(self, data):
        self.text += data

    def values(self, name: str) -> list[str]:
        return [value for attribute, value in self.attributes if attribute == name]


@pytest.fixture(scope="module")
def text(example: Grid) -> str:
    return page_text(example, "Title", max_bytes=2_000_000)


@pytest.fixture(scope="module")
def shown(text: str) -> Page:
    return Page(text)


def test_sections_stand_in_the_order_of_a_readers_questions(text, shown):
    order = re.findall(r'<section id="(\w+)">', text)
    assert order == "checks wer strength utterances differences papers errors cost worst tables method".split()
    assert [value for value in shown.values("href") if value.startswith("#")] == [f"#{name}" for name in order]


def test_nothing_comes_from_elsewhere(text, shown):
    sources = [value for name in ("src", "href", "data", "action") for value in shown.values(name)]
    assert all(value.startswith(("data:", "#")) for value in sources)
    assert not {"script", "iframe", "object", "embed", "form", "base"} & set(shown.tags)
    assert "http" not in re.sub(r"http-equiv", "", re.sub(r"base64,[^\"]*", "", text)) and "url(" not in re.sub(
        r"url\(#\w+\)", "", text
    )
    # The policy allows neither style attributes nor handlers.
    assert not [name for name, _ in shown.attributes if name == "style" or name.startswith("on")]


def test_every_name_that_is_referred_to_exists(text, shown):
    ids = shown.values("id")
    assert len(ids) == len(set(ids)) and set(re.findall(r"url\(#(\w+)\)", text)) <= set(ids)


def test_every_cell_is_in_the_headline(example, shown):
    for cell in example.done():
        assert f"{cell.wer['value']:.1f}" in shown.text
    assert shown.text.count("emptier") >= 4 and "not run" in shown.text


@pytest.mark.parametrize(("shares", "num_lowest"), [([0.0, 0.0, 0.9], 2), ([0.0, 0.0, 0.0], 0), ([0.0], 0)])
def test_systems_share_the_lowest_rate(tmp_path, shares, num_lowest):
    systems = {f"system {index}": ("none", "", [share], 0.0) for index, share in enumerate(shares)}
    conditions = {"clean": CONDITIONS["clean"]}
    folder = write_example(tmp_path / "run", systems=systems, conditions=conditions, num_utterances=5, keep_audio=0)
    text = page_text(tabulate(read_runs([folder])), "T", max_bytes=10**7)
    assert text.split('id="wer"')[1].split("</section>")[0].count(">lowest<") == num_lowest


def test_pictures_and_players_have_names(text, shown):
    assert len(shown.values("alt")) == shown.tags.count("img") and all(shown.values("alt"))
    assert (
        text.count('role="img"')
        == text.count('<svg class="plot"')
        == len(re.findall(r'role="img" aria-label="[^"]{20}', text))
    )
    unnamed = [svg for svg in re.findall(r"<svg[^>]*>", text) if "role=" not in svg and 'aria-hidden="true"' not in svg]
    assert unnamed == [] and re.findall(r"<audio(?![^>]*aria-label)", text) == []


def test_boxes_that_scroll_can_be_reached_by_keyboard(text):
    boxes = re.findall(r'<div class="scroll[^>]*>', text)
    assert boxes and all('tabindex="0"' in box and 'role="region"' in box and "aria-label" in box for box in boxes)


def test_failed_checks_stand_first(text):
    assert (
        text.index("1 of 4 checks failed: gradient reaches the waveform")
        < text.index('id="checks"')
        < text.index('id="wer"')
    )
    verdicts = re.findall(r'<li class="(bad|caution|good)">', text)
    assert verdicts == ["bad", "caution", "good", "good"]


def test_much_that_passed_is_folded_away(tmp_path):
    verdicts = ["pass"] * 5 + ["fail", "not run", "fail"]
    checks = [{"name": f"check {verdict}", "verdict": verdict, "value": 3} for verdict in verdicts]
    folder = write_example(tmp_path / "run", num_utterances=1, keep_audio=0, checks=checks)
    text = page_text(tabulate(read_runs([folder])), "T", max_bytes=10**7)
    Page(text)
    shown, folded = text.split('id="checks"')[1].split("</section>")[0].split("<details")
    assert (
        re.findall(r'<li class="(\w+)">', shown) == ["bad", "bad", "caution"] and folded.count('<li class="good">') == 5
    )
    assert "5 checks passed" in folded and "Value: 3" in shown
    # Each question once.
    assert "2 of 8 checks failed: check fail. Explain" in text


def test_a_reviewer_finds_hashes_seed_sizes_and_definitions(example, shown):
    for entries in (example.evaluation.systems, example.evaluation.conditions):
        assert all(about["hash"] in shown.text for about in entries.values())
    for words in (
        "seed: 0",
        "840 of 840",
        "0 of 16 is [0, 20.6]",
        "Hall 1992",
        "Clopper and Pearson",
        "can exceed 100 %",
        "WER_capped",
    ):
        assert words in shown.text


def test_the_page_keeps_its_limit(example):
    for limit in (400_000, 700_000):
        content = page_text(example, "T", max_bytes=limit)
        assert len(content.encode()) <= limit and "left out: the page would be larger" in content


def test_an_unfinished_evaluation_says_so(tmp_path):
    folder = write_example(tmp_path / "half", num_utterances=4, rows=0.5, keep_audio=0)
    shown = Page(page_text(tabulate(read_runs([folder])), "T", max_bytes=10**7))
    assert "Run half holds 42 of 84 results" in shown.text and "partial: 2 of 4" in shown.text


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "run"
    names = {HOSTILE: SYSTEMS["baseline"], "=cmd|' /C calc'!A0": SYSTEMS["RS 0.01"]}
    attack = CONDITIONS["pgd7-0.01"] | dict.fromkeys(
        ("attack", "norm", "strength", "strength_unit", "knowledge"), HOSTILE
    )
    conditions = {"clean": CONDITIONS["clean"], HOSTILE: attack, "noise": CONDITIONS["noise-0.01"]}
    checks = [
        {
            "name": HOSTILE,
            "verdict": "fail",
            "system": HOSTILE,
            "condition": HOSTILE,
            "value": HOSTILE,
            "detail": HOSTILE,
        }
    ]
    write_example(folder, systems=names, conditions=conditions, num_utterances=4, keep_audio=0, checks=checks)
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    for row in rows:
        row |= {name: f"{row[name]} {HOSTILE}" for name in ("id", "reference", "hypothesis")}
        row |= {"note": HOSTILE, "target": HOSTILE, "target_errors": 1, "target_words": 1}
    description = json.loads((folder / "evaluation.json").read_text())
    description |= {"seed": HOSTILE, HOSTILE: {HOSTILE: [HOSTILE]}}
    description["systems"][HOSTILE] |= {"hash": HOSTILE, "description": {HOSTILE: HOSTILE}}
    description["systems"][HOSTILE]["columns"] = dict.fromkeys(("model", "defense", "sigma", HOSTILE), HOSTILE)
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "evaluation.json").write_text(json.dumps(description))
    return folder


def test_no_text_of_a_stranger_becomes_markup(hostile, tmp_path):
    report([hostile], tmp_path, title=HOSTILE)
    text = (tmp_path / "index.html").read_text()
    shown = Page(text)
    assert not {"script", "img"} & set(shown.tags) and shown.tags.count("style") == shown.tags.count("title") == 1
    assert not [name for name, _ in shown.attributes if name.startswith("on")]
    assert not set(text) & {"\u202e", "\x1b", "\x07", "\x00"}
    assert shown.text.count("<script>alert(1)</script>") > 20
    csv = (tmp_path / "summary.csv").read_text()
    assert "\n=cmd" not in csv and "\n'=cmd" in csv and not set(csv) & {"\u202e", "\x1b"}


def test_strange_but_legal_evaluations_have_a_page(tmp_path):
    """Nobody, nothing, one word, no word, huge numbers."""
    empty = {"systems": {}, "conditions": {}, "num_utterances": 0}
    one = {"systems": {"a": SYSTEMS["baseline"]}, "num_utterances": 1}
    cases = {
        "nothing": empty,
        "no conditions": {"conditions": {}},
        "no utterance": {"num_utterances": 0},
        "no row": {"rows": 0.0},
        "one": one | {"conditions": {"clean": CONDITIONS["clean"]}},
        "one attack": one | {"conditions": {"pgd": CONDITIONS["pgd7-0.01"]}},
    }
    for name, chosen in cases.items():
        folder = write_example(tmp_path / name, **{"num_utterances": 2, "keep_audio": 0} | chosen)
        found = report([folder], tmp_path / "out" / name)
        text = (tmp_path / "out" / name / "index.html").read_text()
        Page(text)
        assert ("No result is there yet." in text) == (not found.evaluation.rows), name


@pytest.mark.parametrize(
    "extreme",
    [
        {"words": 0, "insertions": 3, "deletions": 0, "substitutions": 0},
        {"words": 0, "insertions": 0, "deletions": 0, "substitutions": 0, "hypothesis": "", "reference": ""},
        {"words": 1, "insertions": 2**53 - 1},
        {"seconds": 1e299, "audio_seconds": 1e299, "forwards": 2**53 - 1, "snr_db": -1e299, "size": 1e299},
        {"seconds": 0.0, "audio_seconds": 0.0},
        {"reference": "A" * 5000, "hypothesis": "B " * 2000},
    ],
)
def test_extreme_values_have_a_page_without_nan(tmp_path, extreme):
    folder = write_example(tmp_path / "run", num_utterances=2, keep_audio=0)
    rows = [json.loads(line) | extreme for line in (folder / "results.jsonl").read_text().splitlines()]
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report([folder], tmp_path / "out")
    text = (tmp_path / "out" / "index.html").read_text()
    Page(text)
    drawings = " ".join(re.findall(r'(?: d| x| y|width|transform)="([^"]*)"', text))
    assert "nan" not in drawings and "inf" not in drawings


def luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    digits = "".join(digit * 2 for digit in digits) if len(digits) == 3 else digits
    channels = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(first: str, second: str) -> float:
    bright, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_contrast_is_that_of_wcag_aa(dark):
    """4.5 to 1 for text, 3 to 1 for what a drawing says."""
    screen = REPORT_CSS.split("@media print")[0]
    blocks = re.findall(r"(@media screen and \(prefers-color-scheme: dark\) \{ )?:root \{([^}]*)\}", screen)
    names: dict[str, str] = {}
    for is_dark, block in blocks:
        if not is_dark or dark:
            names |= dict(re.findall(r"--([\w-]+): (#\w+)", block))
    texts = [(text, ground) for text in ("text", "muted") for ground in ("page", "card", "shade", "edit-background")]
    texts += [("accent", "page"), ("accent", "card"), ("text", "good-background")]
    texts += [(name, f"{name}-background") for name in ("edit", "good", "caution")]
    drawn = [f"s{index}" for index in range(NUM_COLOURS)] + ["substituted", "deleted", "inserted"]

    def low(pairs: list[tuple[str, str]], least: float) -> list[tuple[str, str]]:
        return [pair for pair in pairs if contrast(*(names[name] for name in pair)) < least]

    assert low(texts, 4.5) == [] and low([(name, "card") for name in drawn], 3) == []
