"""The look of the report, over the theme that all our pages share: light and dark, phone and paper."""

from __future__ import annotations

from robust_asr.report.markup import THEME_CSS
from robust_asr.text.alignment import ALIGNMENT_CSS

# Each colour has a contrast of 4.5 to 1 at least to the card behind it.
_LIGHT = ("#1f5fbf", "#b8400c", "#0b6e67", "#8b3fa8", "#6b5600", "#b3195e", "#3b4657", "#3f6b0c")
_DARK = ("#7fb2ff", "#ff9b66", "#4fd1c1", "#d49bf0", "#e0c35a", "#ff8fb8", "#c3cad6", "#a6d65c")


def _colours(values: tuple[str, ...]) -> str:
    return " ".join(f"--s{index}: {value};" for index, value in enumerate(values))


_COLOURS = f"""\
:root {{ {_colours(_LIGHT)} --shade: #eef0f4; --bar: #9db4d6; --rule: #e3e6ec; --substituted: #2f6db5; --deleted: #a3480c;
  --deleted-ground: #ffd9b8; --inserted: #5b2a86; --inserted-ground: #eadcf7; }}
@media screen and (prefers-color-scheme: dark) {{ :root {{ {_colours(_DARK)} --shade: #262a32; --bar: #4a6693; --rule: #31363f;
  --substituted: #6fa8ee; --deleted: #ffb37a; --deleted-ground: #5a3310; --inserted: #d9b8ff;
  --inserted-ground: #46305f; }} }}
{"".join(f".s{index} {{ --c: var(--s{index}); }}" for index in range(len(_LIGHT)))}
"""

_PAGE = """\
body { max-width: 74rem; }
h1 { font-size: 1.6rem; line-height: 1.25; text-wrap: balance; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .3rem; } h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
p { margin: .3rem 0 .7rem; max-width: 50rem; overflow-wrap: anywhere; }
.intro, .aside, .legend, figcaption { color: var(--muted); font-size: .875rem; }
.aside { font-size: .8rem; font-weight: 400; line-height: 1.35; }
nav { display: flex; flex-wrap: wrap; gap: .3rem .4rem; margin: .9rem 0 0; font-size: .85rem; }
nav a { color: var(--accent); text-decoration: none; border: 1px solid var(--line); border-radius: 1rem; padding: .1rem .65rem;
  background: var(--card); }
nav a:hover, nav a:focus-visible { text-decoration: underline; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.verdict { font-size: 1.05rem; margin: .5rem 0; max-width: 56rem; }
.notice { border-left: .3rem solid var(--caution); background: var(--caution-background); color: var(--caution);
  padding: .5rem .8rem; border-radius: .3rem; }
.notice.failed { border-color: var(--edit); background: var(--edit-background); color: var(--edit); font-weight: 600; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.defs { position: absolute; }
.chip { display: inline-block; padding: 0 .45rem; margin: .1rem .2rem 0 0; border-radius: .8rem; font-size: .75rem;
  font-weight: 600; line-height: 1.5; white-space: nowrap; border: 1px solid transparent; }
.chip.good { color: var(--good); background: var(--good-background); }
.chip.bad { color: var(--edit); background: var(--edit-background); }
.chip.caution { color: var(--caution); background: var(--caution-background); }
.chip.plain { color: var(--muted); border-color: var(--line); }
"""

_TABLES = """\
.scroll { position: relative; overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  margin: .5rem 0 1rem; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; line-height: 1.4; }
th, td { padding: .35rem .7rem; text-align: left; vertical-align: top; border-top: 1px solid var(--rule); }
thead th { border-top: 0; vertical-align: bottom; font-size: .8rem; color: var(--muted); font-weight: 600; }
tbody th { font-weight: 600; overflow-wrap: break-word; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.group th { background: var(--shade); font-weight: 600; padding-block: .25rem; }
.group th > span { position: sticky; left: .7rem; display: inline-block; max-width: calc(100vw - 4rem); }
.headline th:first-child, .papers tbody th:first-child, .papers th[rowspan], .strips tbody th:first-child {
  position: sticky; left: 0; background: var(--card); z-index: 1; }
.headline .group th:first-child, .papers .group th:first-child, .strips .group th:first-child { background: var(--shade); }
.headline { font-variant-numeric: tabular-nums; }
.headline th { min-width: 6rem; max-width: 16rem; } .headline th:first-child { width: 12rem; }
.headline td { min-width: 9.5rem; width: 20rem; } .headline td b { font-size: 1.15rem; margin-right: .15rem; }
.headline thead th { color: var(--text); font-size: .875rem; overflow-wrap: break-word; }
.headline .aside { display: block; } .headline .chip { vertical-align: .1rem; margin: 0 .1rem 0 0; }
.ci { color: var(--muted); white-space: nowrap; }
.absent { color: var(--muted); font-style: italic; }
.strips th { min-width: 7rem; } .strips th .swatch { vertical-align: -.1rem; } .strips .chip { margin-top: 0; }
.strips td:last-child { white-space: nowrap; }
.cost td { min-width: 8rem; } .cost td .aside { display: block; } .cost th { min-width: 7rem; }
.cost thead th { color: var(--text); }
.papers th { min-width: 8rem; } .papers .kind { text-align: center; min-width: 0; border-left: 1px solid var(--rule); }
.papers .n { min-width: 5rem; } .papers thead .n { border-top: 1px solid var(--rule); }
.papers .ours tr > td, .papers tbody.ours tr > th:first-child { background: var(--good-background); }
.papers .ours .aside { color: var(--text); }
.papers .ours tr > th:first-child { border-left: .25rem solid var(--good); }
.remarks { color: var(--muted); font-size: .8rem; margin: .2rem 0 1rem; padding-left: 1.2rem; overflow-wrap: anywhere; }
.checks { list-style: none; padding: 0; margin: .5rem 0; background: var(--card); border: 1px solid var(--line);
  border-radius: .6rem; overflow: hidden; }
.checks li { display: grid; grid-template-columns: 5.2rem 1fr; gap: .2rem .5rem; padding: .4rem .7rem; font-size: .9rem;
  border-top: 1px solid var(--rule); overflow-wrap: anywhere; }
.checks li:first-child { border-top: 0; } .checks li.bad { box-shadow: inset .3rem 0 var(--edit); }
.checks .chip { justify-self: start; align-self: start; }
.checks li.bad > div { font-weight: 600; }
.dense table { font-size: .75rem; width: auto; } .dense td, .dense th { white-space: nowrap; padding: .2rem .5rem; }
.dense { max-height: 32rem; overflow: auto; } .dense thead th { position: sticky; top: 0; background: var(--card); }
details { margin: .4rem 0; } summary { cursor: pointer; color: var(--accent); font-size: .875rem; padding: .15rem 0; }
details.group > summary { font-size: 1rem; font-weight: 600; padding: .4rem 0; overflow-wrap: anywhere; }
figure > details { margin-bottom: 0; }
dl { max-width: 56rem; } dt { font-weight: 600; margin-top: .6rem; } dd { margin: 0; color: var(--muted); font-size: .9rem; }
pre { font-size: .75rem; overflow-x: auto; margin: .3rem 0; padding: .6rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .4rem; max-height: 24rem; }
"""

_PLOTS = """\
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 1rem;
  margin: .6rem 0 1rem; align-items: start; }
.plots > figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  padding: .7rem .8rem .5rem; max-width: 30rem; min-width: 0; }
figcaption { font-weight: 600; color: var(--text); margin-bottom: .3rem; overflow-wrap: anywhere; }
.key { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; padding: 0; margin: .5rem 0; font-size: .9rem; }
.key li { overflow-wrap: anywhere; } .key svg { vertical-align: -.1rem; }
svg { overflow: visible; } .plot { display: block; width: 100%; height: auto; overflow: hidden; }
svg text { font: 11px system-ui, sans-serif; fill: var(--text); }
svg .tick-label, svg .axis, svg .aside { fill: var(--muted); } svg .aside { font-weight: 400; font-size: 11px; }
svg .name { font-weight: 600; font-size: 12px; paint-order: stroke; stroke: var(--card); stroke-width: 3px; }
.rule { stroke: var(--rule); fill: none; } .rule.zero { stroke: var(--muted); }
.rule.whole { stroke: var(--muted); stroke-dasharray: 2 3; }
.tick, .cut { stroke: var(--muted); fill: none; }
.line { stroke: var(--c); stroke-width: 2; fill: none; stroke-linejoin: round; }
.band { fill: var(--c); stroke: none; }
.marker { fill: var(--c); stroke: var(--card); stroke-width: 1; paint-order: stroke; }
.marker.hollow { fill: var(--card); stroke: var(--c); stroke-width: 1.6; }
.box { fill: var(--c); fill-opacity: .16; stroke: var(--c); } .median { stroke: var(--c); stroke-width: 3; }
.whisker { stroke: var(--c); stroke-width: 1.4; fill: none; }
.dots { stroke: var(--c); stroke-opacity: .38; stroke-width: 3; stroke-linecap: round; fill: none; }
.strip { display: block; } .bar { display: block; width: 100%; height: 6px; margin: .15rem 0 .2rem; }
.bar .ground { fill: var(--shade); } .bar .filled { fill: var(--bar); } .bar .range { fill: var(--text); }
.substituted { fill: var(--substituted); } .deleted { fill: url(#hatch); stroke: var(--deleted); stroke-width: .7; }
.inserted { fill: url(#speckle); stroke: var(--inserted); stroke-width: .7; }
.deleted-ground { fill: var(--deleted-ground); } .deleted-line { stroke: var(--deleted); stroke-width: 2; }
.inserted-ground { fill: var(--inserted-ground); } .inserted-dot { fill: var(--inserted); }
"""

_CARDS = """\
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(30rem, 100%), 1fr)); gap: .8rem; align-items: start; }
.cards article { margin: 0; min-width: 0; } .cards header { gap: .2rem .6rem; } .cards .swatch { align-self: center; }
.id { overflow-wrap: anywhere; }
.players { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(12rem, 100%), 1fr)); gap: .3rem .8rem; }
.spectrograms { display: grid; grid-template-columns: repeat(auto-fit, minmax(6rem, 1fr)); gap: .4rem; }
.spectrograms figure { margin: 0; }
.spectrograms img { display: block; width: 100%; height: 6rem; border-radius: .25rem; }
.spectrograms figcaption { font-size: .75rem; font-weight: 400; color: var(--muted); }
.player audio { margin-bottom: .4rem; } .remark { font-size: .875rem; margin: .5rem 0 0; }
"""

_MEDIA = """\
@media (max-width: 40rem) {
  body { padding: 1rem .75rem 2rem; } h1 { font-size: 1.3rem; } .verdict { font-size: 1rem; }
  th, td { padding: .3rem .45rem; } .group th > span { left: .45rem; }
  .headline td { min-width: 7.6rem; } .headline th { min-width: 5.5rem; } .headline th:first-child { max-width: 5.6rem; }
}
@media print {
  @page { margin: 14mm 12mm; }
  :root { color-scheme: light; --page: #fff; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav, .player, .plots details { display: none; }
  table { font-size: 7.5pt; } .headline td, .headline th, .papers th, .papers .n, .cost td { min-width: 0; }
  th, td, .group th > span { position: static !important; } thead th { font-size: 7.5pt; }
  .strips th { min-width: 8.5rem; } .strips .group th { min-width: 0; } .strip { width: 12rem; height: auto; }
  .scroll { overflow: visible; border: 0; } .dense { max-height: none; } th, td { padding: .15rem .35rem; }
  .dense td, .dense th { white-space: normal; overflow-wrap: anywhere; font-size: 6pt; padding: .1rem; }
  .headline td b { font-size: 10pt; } .aside { font-size: 6.5pt; } .chip { font-size: 6.5pt; padding: 0 .25rem; }
  .plots, .cards { grid-template-columns: 1fr 1fr; } h2 { margin-top: 1.4rem; }
  figure, article, tr, dt, .notice, .checks li { break-inside: avoid; }
  h2, h3, summary, .group, dt, .intro, .key { break-after: avoid; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
@media (forced-colors: active) { svg { forced-color-adjust: none; } .plot, .strip, .bar, .swatch { background: var(--card); } }
"""

REPORT_CSS = "".join((THEME_CSS, ALIGNMENT_CSS, _COLOURS, _PAGE, _TABLES, _PLOTS, _CARDS, _MEDIA))
