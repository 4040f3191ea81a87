"""The page in a real browser: quiet, self-contained, within a phone's width, with labels that do not touch.

Skipped without Chromium, unless RASR_REQUIRE_CHROMIUM=1 is set.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from robust_asr.report import report
from robust_asr.report.markup import document
from tests.robust_asr.report.chromium import Chromium, find_chromium
from tests.robust_asr.report.example import CONDITIONS, SYSTEMS, write_example

PHONE, DESKTOP = 375, 1280
LONG = "a system with a rather_long_name_that_has_no_place_to_break/" * 2
SNR = {"attack": "PGD-50", "norm": "SNR", "strength_unit": "dB", "knowledge": "exact"}
OVERLAPS = """
[...document.querySelectorAll('svg.plot, svg.strip')].flatMap(svg => {
  const boxes = [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
  const touch = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom - 2 && b.top < a.bottom - 2;
  return boxes.flatMap(([name, box], place) =>
    boxes.slice(place + 1).filter(([, other]) => touch(box, other)).map(([other]) => name + ' | ' + other));
})
"""
OUTSIDE = """
[...document.querySelectorAll('svg.plot')].flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter(text => {
    const box = text.getBoundingClientRect();
    return box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1;
  }).map(text => text.textContent);
})
"""
METADATA = """
new Promise(done => {
  const audio = document.querySelector('details[open] audio');
  audio.onloadedmetadata = () => done(audio.duration);
  audio.onerror = () => done(-1);
  audio.preload = 'metadata';
  audio.load();
})
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    binary = find_chromium()
    if binary is None:
        if os.environ.get("RASR_REQUIRE_CHROMIUM") == "1":
            pytest.fail("RASR_REQUIRE_CHROMIUM=1, and there is no Chromium here")
        pytest.skip("no Chromium here")
    with Chromium(binary) as started:
        yield started


@pytest.fixture(scope="module")
def pages(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    systems = {"one": SYSTEMS["RS 0.01"], LONG: SYSTEMS["baseline"]}
    strengths = {f"pgd {d}": SNR | {"strength": d} for d in (35, 30, 25, 22.5, 20, 17.5, 15)}
    linf = SNR | {"norm": "Linf", "strength_unit": "amplitude"}
    strengths |= {f"eps {e}": linf | {"strength": e} for e in (1e-5, 3e-5, 1e-4, 3e-4)}
    conditions = {"clean": CONDITIONS["clean"], **strengths, LONG: SNR | {"attack": LONG, "strength": LONG, "norm": ""}}
    runs = {
        "example": [run_dir],
        "wide": [
            write_example(folder / "wide", systems=systems, conditions=conditions, num_utterances=2, keep_audio=0)
        ],
        "empty": [write_example(folder / "empty", num_utterances=2, rows=0.0)],
    }
    for name, run_dirs in runs.items():
        report(run_dirs, folder / "out" / name)
    return {name: folder / "out" / name / "index.html" for name in runs}


@pytest.mark.parametrize(("width", "dark"), [(PHONE, True), (DESKTOP, False)])
@pytest.mark.parametrize("name", ["example", "wide", "empty"])
def test_a_page_is_quiet_self_contained_and_fits(browser, pages, name, width, dark):
    browser.open(pages[name], width=width, dark=dark)
    assert browser.complaints() == []
    assert {url.split(":")[0] for url in browser.requests()} <= {"file", "data"}
    assert [url for url in browser.requests() if url.startswith("file:")] == [pages[name].as_uri()]
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    # The style sheet applies: its hash is the one in the policy.
    ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(20, 22, 26)" if dark else "rgb(246, 247, 249)")
    assert (browser.evaluate(OVERLAPS), browser.evaluate(OUTSIDE)) == ([], [])


def test_labels_that_touch_would_be_seen(browser, tmp_path):
    """The control of the test above."""
    labels = '<text x="10" y="20">one</text><text x="15" y="22">two</text><text x="195" y="60">three</text>'
    path = tmp_path / "page.html"
    path.write_text(document("t", f'<svg class="plot" width="200" viewBox="0 0 200 100">{labels}</svg>', css=""))
    browser.open(path, width=PHONE)
    assert (browser.evaluate(OVERLAPS), browser.evaluate(OUTSIDE)) == (["one | two"], ["three"])


def test_plots_are_legible_on_a_phone(browser, pages):
    browser.open(pages["example"], width=PHONE)
    scales = browser.evaluate(
        "[...document.querySelectorAll('svg.plot')].map(svg => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width)"
    )
    assert len(scales) == 10 and min(scales) * 11 >= 9


def test_tables_scroll_in_a_box_of_their_own(browser, pages):
    browser.open(pages["wide"], width=PHONE)
    wider = browser.evaluate(
        "[...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth).length"
    )
    assert wider >= 2
    heads = "[...document.querySelectorAll('.headline tbody tr:not(.group) th')].map(head => head.getBoundingClientRect().left)"
    still = browser.evaluate(heads)
    browser.evaluate("document.querySelector('.scroll').scrollLeft = 100")
    assert browser.evaluate(heads) == still


def test_pictures_and_audio_decode(browser, pages):
    browser.open(pages["example"], width=DESKTOP)
    browser.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    sizes = browser.evaluate(
        "Promise.all([...document.images].map(image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])))"
    )
    assert len(sizes) > 20 and all(width > 10 and height == 96 for width, height in sizes)
    assert browser.evaluate(METADATA) == pytest.approx(1.0, abs=0.01)
    assert browser.complaints() == []


def test_paper_has_no_players_and_no_dark_ground(browser, pages):
    browser.open(pages["example"], width=800, dark=True, media="print")
    hidden = "[...document.querySelectorAll('nav, .player')].every(part => getComputedStyle(part).display === 'none')"
    assert browser.evaluate(hidden)
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_plots_have_names_for_those_who_do_not_see(browser, pages):
    browser.open(pages["example"], width=DESKTOP)
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    images = [node for node in nodes if node.get("role", {}).get("value") in ("image", "img", "graphics-document")]
    names = [node.get("name", {}).get("value", "") for node in images]
    assert len(names) >= 10 and all(len(name) > 20 for name in names)
    assert any("baseline: clean" in name for name in names)


def test_what_slipped_through_an_escape_would_not_run(browser, tmp_path):
    """The control of the tests above: the policy complains, and nothing happens."""
    injected = (
        '<script>document.title = "run"</script><p style="color: red">x</p><img src="http://192.0.2.1/x.png">'
        '<img src="data:," onerror="document.title = 1"><a href="javascript:document.title = 2">x</a>'
    )
    path = tmp_path / "page.html"
    path.write_text(document("safe", injected, css="p { color: blue; }\n"))
    browser.open(path)
    browser.evaluate("document.querySelector('a').click()")
    complaints = browser.complaints()
    assert len([text for text in complaints if "Content Security Policy" in text]) >= 4
    assert browser.evaluate("document.title") == "safe"
    assert browser.evaluate("getComputedStyle(document.querySelector('p')).color") == "rgb(0, 0, 255)"
