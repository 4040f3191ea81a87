"""Self-contained pages: every text escaped, one style sheet that the page's own policy names by its hash, no network."""

from __future__ import annotations

import base64
import hashlib
import html

from robust_asr.text.terminal import printable

THEME_CSS = """\
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --line: #dfe2e8; --text: #1b1f27; --muted: #5c6370;
  --accent: #1f5fbf; --edit: #a4131f; --edit-background: #fdeaea; --good: #14683a; --good-background: #e3f4e9;
  --caution: #7a4b00; --caution-background: #fdf1d8; }
@media screen and (prefers-color-scheme: dark) { :root { --page: #14161a; --card: #1d2026; --line: #31363f; --text: #e7e9ee;
  --muted: #a2a9b6; --accent: #7fb2ff; --edit: #ff9aa2; --edit-background: #43232a; --good: #86dba8;
  --good-background: #1c3a2a; --caution: #f2c265; --caution-background: #3d3117; } }
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


def escaped(value: object) -> str:
    """The text of a value for HTML, in content or in a quoted attribute.

    Characters that are not shown, or that turn the direction of a text, become U+FFFD.
    """
    return html.escape(printable(str(value)))


def data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def document(title: str, body: str, *, css: str) -> str:
    """A whole page. ``body`` is markup; ``title`` is text.

    The policy of the page allows its one style sheet, and images and audio that it carries: no script runs, no style attribute
    applies and nothing is fetched, even if an escape were forgotten.
    """
    # A browser hashes the text between <style> and </style>, without the two.
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; media-src data:; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}"><link rel="icon" href="data:,">
<title>{escaped(title)}</title><style>{css}</style></head><body>
{body}
</body></html>
"""
