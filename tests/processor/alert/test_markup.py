"""Markdown and HTML of alerts: what they say, and that no name in them is read as markup, by real parsers."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from otel_mlmon.processor.alert.alert import Alert, AlertAddresses, AlertLink, RelatedRule
from otel_mlmon.processor.alert.markup import format_alert_html, format_alert_markdown
from otel_mlmon.processor.alert.message import build_alert_message
from tests.support.alerts import CAUSE, FIRING, RESOLVED

ADDRESSES = AlertAddresses(
    web="127.0.0.1:8080",
    trace="https://jaeger/trace/{trace_id}",
    others=(AlertLink(name="wiki", url="https://wiki/{model}"),),
)
FULL = replace(
    FIRING,
    addresses=ADDRESSES,
    exemplars=("4bf92f3577b34da6a3ce929d0e0e4736",),
    related=(RelatedRule(rule="data_drift", title="data drift", stream="input.age", onset_ns=0),),
)
HOSTILE = (
    "<script>alert(1)</script>", "a\nb\x00", "\u202eevil", "](https://evil.example)", "`` ``` `", "@everyone <!here>",
    "**bold** _it_ ~~x~~ # - > |", "![x](https://evil.example/x.png)", "' onmouseover='x", '" onload="x', "{{ 7*7 }}",
    "https://evil.example", "<https://evil.example>", "</pre></td>", "[a]: https://evil.example", "&lt;b&gt;",
)  # fmt: skip


class Tags(HTMLParser):
    """Collects tags, addresses and text of a document."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile(name: str) -> Alert:
    """An alert in which every text from outside is hostile."""
    cause = replace(
        CAUSE, stream=name, reference=name, current=name, summary=name, details=(name,), bins=(name,) * 10
    )  # fmt: skip
    return replace(
        FULL,
        model=name,
        version=name,
        environment=name,
        title=name,
        reason=name,
        causes=(cause, cause),
        exemplars=(name,),
        news=(name,),
        missed=(name,),
        related=(RelatedRule(rule=name, title=name, stream=name, onset_ns=0),),
        addresses=replace(ADDRESSES, others=(AlertLink(name=name, url="https://wiki/{model}"),)),
    )


def links_of(alert: Alert) -> set[str]:
    return {row.url for row in build_alert_message(alert).links}


def test_markdown_says_what_the_message_says() -> None:
    assert (
        format_alert_markdown(FULL)
        == """\
**`FIRING · critical · digits 1 · prediction drift`**

- **What** `prediction.label moved: class 3: 10 % → 45 %`
- **How much** `total variation 35 %, tolerated 2 % (n = 4 210, reference n = 5 000)`
- **Since** `2025-11-22 14:00:00 UTC, 12 s before this alert`

```
prediction.label  reference                now
0                    10 % ███▌                 6 % ██▏
2                    10 % ███▌                 5 % █▊
3                    10 % ███▌                45 % ████████████████
4                    10 % ███▌                 6 % ██▏
5                    10 % ███▌                 6 % ██▏
7                    10 % ███▌                 6 % ██▏
8                    10 % ███▌                 6 % ██▏
9                    10 % ███▌                 6 % ██▏
                  and 2 that moved less
```

- **Related** `data drift (input.age), probably of the same cause`
- **Traces** [4bf92f3577b34da6a3ce929d0e0e4736](https://jaeger/trace/4bf92f3577b34da6a3ce929d0e0e4736)
- **Dashboard** [look at it](http://127.0.0.1:8080/alerts/48da1b4673cf5396)
- **Runbook** [what it means, and what to do](http://127.0.0.1:8080/runbooks/prediction_drift.md)
- **Link** [wiki](https://wiki/digits)

If normal:
```
otel-mlmon reference relearn digits --model-version 1 --stream prediction.label
```

Silence:
```
otel-mlmon alert silence digits --rule prediction_drift --for 2h
```
"""
    )


def test_html_says_what_the_message_says() -> None:
    message = build_alert_message(FULL)
    page = Tags(format_alert_html(FULL))
    rows = (*message.facts, *message.notes, *message.links, *message.commands)
    assert [row.text for row in rows if row.text not in page.text] == []
    assert [bin_.name for bin_ in message.bins if bin_.current_bar not in page.text] == []
    assert {value for name, value in page.attributes if name == "href"} == links_of(FULL)
    assert "this is the new normal" in page.text
    assert page.tags.count("h1") == 1
    assert not {"script", "img", "link", "iframe", "form"} & set(page.tags)


def test_what_is_over_has_no_commands_and_no_histogram() -> None:
    text = format_alert_html(replace(RESOLVED, addresses=ADDRESSES))
    assert "RESOLVED · digits 1 · prediction drift" in text
    assert "otel-mlmon" not in text
    assert "█" not in text
    assert "`RESOLVED · digits 1 · prediction drift`" in format_alert_markdown(RESOLVED)


def check_harmless(alert: Alert) -> None:
    """Holds a message with hostile names against one with harmless names: the same markup, other text."""
    calm = hostile("name")
    page, expected = Tags(format_alert_html(alert)), Tags(format_alert_html(calm))
    assert page.tags == expected.tags
    assert [name for name, _ in page.attributes] == [name for name, _ in expected.attributes]
    assert all(value.startswith(("https://jaeger/", "https://wiki/", "http://127.0.0.1:8080/"))
               for name, value in page.attributes if name == "href" and value is not None)  # fmt: skip
    markdown = format_alert_markdown(alert)
    rendered = Tags(MarkdownIt("commonmark", {"html": True}).render(markdown))
    assert rendered.tags == Tags(MarkdownIt("commonmark", {"html": True}).render(format_alert_markdown(calm))).tags
    assert {html.unescape(value or "") for name, value in rendered.attributes if name == "href"} == {
        re.sub(r"[()]", lambda match: f"%{ord(match[0]):02X}", url) for url in links_of(alert)
    }
    for text in (markdown, format_alert_html(alert)):
        assert all(char.isprintable() or char == "\n" for char in text)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_harmless(name: str) -> None:
    check_harmless(hostile(name))


@given(st.text(min_size=1, max_size=20).filter(str.strip))
@settings(deadline=None, max_examples=20)
def test_any_name_is_harmless(name: str) -> None:
    check_harmless(hostile(name))
