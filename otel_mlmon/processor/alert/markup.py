"""Formats an alert for people as Markdown, for chats, and as HTML, for mail, with the content that `message.py` gives.

Names come from outside, so nothing of them is read as markup. In HTML all is escaped by Jinja2. In Markdown every text
with a name in it is code: chats disagree on how else a character is escaped, and code neither links nor mentions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from otel_mlmon.processor.alert.alert import Alert
from otel_mlmon.processor.alert.message import MessageRow, build_alert_message, format_histogram


def format_alert_markdown(alert: Alert) -> str:
    """Formats an alert as Markdown that CommonMark, Slack, Discord, Teams and Telegram read alike."""
    message = build_alert_message(alert)
    lines = [f"**{_format_markdown_code(message.title)}**", "", *_format_markdown_rows(message.facts)]
    if message.bins:
        lines += ["", *_format_code_block("\n".join(format_histogram(message))), ""]
    lines += [*_format_markdown_rows(message.notes), *_format_markdown_rows(message.links)]
    for row in message.commands:
        lines += ["", f"{row.head}:", *_format_code_block(row.text)]
    return "\n".join(lines) + "\n"


def format_alert_html(alert: Alert) -> str:
    """Formats an alert as a whole HTML document for mail: inline styles, no script, nothing to be loaded."""
    return _load_mail_template().render(alert=alert, message=build_alert_message(alert))


def _format_markdown_rows(rows: Iterable[MessageRow]) -> Iterator[str]:
    for row in rows:
        head = f"**{row.head}** " if row.head else ""
        yield f"- {head}" + (
            f"[{_clean_link_text(row.text)}]({_escape_url(row.url)})" if row.url else _format_markdown_code(row.text)
        )


def _format_markdown_code(text: str) -> str:
    """Formats one line of text as Markdown code, with backticks replaced: chats have no common way to escape them."""
    return f"`{text.replace('`', 'ˋ')}`" if text.strip() else ""


def _format_code_block(text: str) -> list[str]:
    """Returns a Markdown code block, fenced by more backticks than its text has in a row."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [fence, text, fence]


def _clean_link_text(text: str) -> str:
    """Returns the text of a Markdown link without the characters that could end it or make markup of it."""
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])|[^\w .,:-]", "·", text)


def _escape_url(url: str) -> str:
    return re.sub(r"[()<>\s\\`]", lambda match: f"%{ord(match[0]):02X}", url)


@lru_cache(maxsize=1)
def _load_mail_template() -> Template:
    environment = Environment(
        loader=PackageLoader("otel_mlmon.processor.alert"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("message.html.j2")
