"""An agent's Markdown as the plain and the formatted body of a Matrix message.

The HTML is the subset of the client-server specification (m.room.message msgtypes, v1.18).
"""

import re
from dataclasses import dataclass
from functools import lru_cache

import nh3
from markdown_it import MarkdownIt
from markdown_it.common.normalize_url import normalizeLink
from markdown_it.common.utils import escapeHtml
from markdown_it.token import Token

from letta_matrix.common.lenient_json import whole_text
from letta_matrix.matrix.cjk_emphasis import CjkInline
from letta_matrix.matrix.honest_links import clean_url, tell_targets, visible_urls
from letta_matrix.matrix.markdown_rules import add_rules, write_as

_TAGS = {
    *("h1", "h2", "h3", "h4", "h5", "h6", "p", "blockquote", "pre", "hr", "br", "div", "span"),
    *("b", "strong", "i", "em", "u", "s", "del", "sup", "sub", "code", "a"),
    *("ul", "ol", "li", "table", "caption", "thead", "tbody", "tr", "th", "td"),
    *("details", "summary"),
}
_ATTRIBUTES = {
    "a": {"href"},
    "code": {"class"},
    "div": {"data-mx-maths"},
    "ol": {"start"},
    "span": {"data-mx-bg-color", "data-mx-color", "data-mx-maths", "data-mx-spoiler"},
}
_LINKS = ("https://", "http://", "mailto:", "ftp://", "magnet:", "matrix:")
_SCHEMES = {"http", "https", "mailto", "ftp", "magnet", "matrix"}
_MAX_NESTING = 100

_CONTROL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u206f\ufff9-\ufffb]"
)
# Invisible copies of ASCII; they have a use in the flags of England, Scotland and Wales alone.
_TAGS_OF_NO_FLAG = re.compile(
    "(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0000-\U000e007f]+"
    "|(?<=[\U0001f3f4\U000e0020-\U000e007f])[\U000e0000-\U000e001f]+"
)
_MARKS = "\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
_PILED_UP = re.compile(f"([{_MARKS}]{{6}})[{_MARKS}]+")
_SURROGATE = re.compile("[\ud800-\udfff]")
_RAW_TAG = re.compile(r"<!--.{0,4000}?-->|</?([A-Za-z][A-Za-z0-9-]*)(?:\s[^<>]*|/)?>", re.DOTALL)
_TAG = re.compile(r"<(/?)([a-z0-9]+)")
_TRAILING_CLOSERS = re.compile(r"(?:</[a-z0-9]+>\s*)*\Z")


@dataclass(frozen=True, slots=True)
class Formatted:
    """A message's `body` and its `formatted_body`."""

    body: str
    html: str

    @property
    def is_plain(self) -> bool:
        """Whether it is one line of plain text, of which the HTML tells nothing more."""
        return "\n" not in self.body and self.html == escapeHtml(self.body)

    def with_cursor(self, cursor: str) -> "Formatted":
        """The same with `cursor` after the last word, inside the block that is still growing."""
        end = _innermost_end(self.html)
        return Formatted(self.body + cursor, f"{self.html[:end]}{cursor}{self.html[end:]}")


@lru_cache(maxsize=16)
def render(markdown: str) -> Formatted:
    """Render CommonMark with tables, strikethrough, spoilers, task lists and formulas.

    The body is the Markdown itself, without controls that could hide or reorder text. Nothing is
    lost in the HTML either: tags outside Matrix's list, links with other schemes and unfinished
    constructs show as written. A newline is a line break, as chat clients have it.
    """
    text = clean_text(markdown)
    tokens = _MARKDOWN.parse(text)
    _unwrap_single_paragraph(tokens)
    html = _MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {})
    html = tell_targets(_CLEANER.clean(html)).strip("\n")
    if not html or _nesting(html) > _MAX_NESTING:
        html = escapeHtml(text).replace("\n", "<br>\n")
    return Formatted(text, html)


def clean_text(text: str) -> str:
    """`text` with "\\n" line ends and nothing that hides or reorders text: controls, overrides
    of direction, invisible tags, accents piled up, broken surrogates, gaps in URLs."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if _SURROGATE.search(text):
        text = whole_text(text)
    text = _TAGS_OF_NO_FLAG.sub("", _CONTROL.sub("", text))
    return visible_urls(_PILED_UP.sub(r"\1", text)).strip("\n").rstrip()


def _innermost_end(html: str) -> int:
    match = _TRAILING_CLOSERS.search(html)
    return match.start() if match else len(html)


def _unwrap_single_paragraph(tokens: list[Token]) -> None:
    if len(tokens) == 3 and tokens[0].type == "paragraph_open":
        tokens[0].hidden = tokens[2].hidden = True


def _nesting(html: str) -> int:
    depth = deepest = 0
    if html.count("<") <= _MAX_NESTING:
        return depth
    for closing, tag in _TAG.findall(html):
        if tag in ("br", "hr"):
            continue
        depth += -1 if closing else 1
        deepest = max(deepest, depth)
    return deepest


def _keep_attribute(tag: str, name: str, value: str) -> str | None:
    if tag == "code":
        return value if re.fullmatch(r"language-[^\s]+", value) else None
    if name.endswith("-color"):
        return value if re.fullmatch(r"#[0-9a-fA-F]{6}", value) else None
    if name == "href":
        return clean_url(value) if _may_link(value) else None
    return value


def _may_link(url: str) -> bool:
    return url.lower().startswith(_LINKS)


def _normalized(url: str) -> str:
    return normalizeLink(clean_url(url))


def escape_unknown_tags(html: str) -> str:
    """Raw HTML in which everything but comments and tags of Matrix's list is text."""
    shown: list[str] = []
    end = 0
    for match in _RAW_TAG.finditer(html):
        tag = match[1]
        known = tag is None or tag.lower() in _TAGS
        shown += escapeHtml(html[end : match.start()]), match[0] if known else escapeHtml(match[0])
        end = match.end()
    return "".join(shown) + escapeHtml(html[end:])


def _image(token: Token) -> str:
    # A picture is fetched by whoever reads the message, from a server and with an id that the
    # writer chose: it would tell that server of the reader, or carry off what an agent was
    # tricked into writing there. So every picture is a link.
    source = escapeHtml(str(token.attrs.get("src", "")))
    return f'<a href="{source}">{escapeHtml(token.content) or source}</a>'


def _struck(token: Token) -> str:
    # As Element's composer has it; not every client that knows `del` knows `s`.
    return "<del>" if token.nesting == 1 else "</del>"


def markdown_parser(*, html: bool) -> MarkdownIt:
    """A parser of Markdown as agents write it; without `html` tags are text."""
    md = MarkdownIt("zero")
    md.inline = CjkInline()
    md.configure("commonmark", {"breaks": True, "html": html, "xhtmlOut": False})
    # Definitions would vanish from the text, and "text\n-" would flash as a headline in a stream.
    md.enable(["table", "strikethrough"]).disable(["reference", "lheading"])
    md.validateLink = _may_link
    md.normalizeLink = _normalized
    add_rules(md)
    return md


def _build_markdown() -> MarkdownIt:
    md = markdown_parser(html=True)
    for kind in ("html_inline", "html_block"):
        write_as(md, kind, lambda token: escape_unknown_tags(token.content))
    for kind in ("s_open", "s_close"):
        write_as(md, kind, _struck)
    write_as(md, "image", _image)
    return md


_MARKDOWN = _build_markdown()
_CLEANER = nh3.Cleaner(
    tags=_TAGS,
    attributes=_ATTRIBUTES,
    attribute_filter=_keep_attribute,
    url_schemes=_SCHEMES,
    url_relative="deny",
    link_rel=None,
)
