"""Pages that carry everything: escaped text, and a policy that names the one style sheet."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from robust_asr.report.markup import data_uri, document, escaped


class Text(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.content, self.values = "", []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.values += [value for _, value in attrs]

    def handle_data(self, data):
        self.content += data


@given(st.text(st.characters(codec="utf-8")))
def test_a_text_is_itself_in_content_and_in_attributes(text):
    shown = "".join(character if character.isprintable() else "\ufffd" for character in text)
    page = Text(f'<p title="{escaped(text)}">{escaped(text)}</p>')
    assert page.tags == ["p"] and page.content == shown and page.values == [shown]


def test_any_value_is_escaped():
    assert escaped(None) == "None" and escaped(3.5) == "3.5" and escaped("<\x1b\u202e>") == "&lt;\ufffd\ufffd&gt;"


def test_the_policy_names_the_style_sheet_and_forbids_the_rest():
    page = document("T<", "<p>x</p>", css=":root { color: red; }\n")
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert f"style-src 'sha256-{digest}'" in policy and policy.startswith("default-src 'none';")
    assert "unsafe" not in policy and "script-src" not in policy and "http" not in policy
    assert "<title>T&lt;</title>" in page


def test_a_data_address_decodes_to_its_content():
    kind, _, content = data_uri("image/png", b"\x00\xff").partition(",")
    assert kind == "data:image/png;base64" and base64.b64decode(content) == b"\x00\xff"
