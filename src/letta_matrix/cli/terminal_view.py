"""An agent's messages in a terminal: who speaks, Markdown, lines that end between words."""

from collections.abc import Iterator, Sequence
from itertools import dropwhile
from typing import ClassVar

from markdown_it.token import Token
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.markdown import CodeBlock, Markdown
from rich.segment import Segment
from rich.syntax import Syntax
from rich.text import Text

from letta_matrix.cli.transcript import Update
from letta_matrix.cli.views import View
from letta_matrix.matrix.formatting import markdown_parser

_PARSER = markdown_parser(html=False)
_SPEAKER = "bold cyan"


class TerminalView(View):
    """Blocks that are complete are printed for good, the one that still grows is drawn anew."""

    def __init__(self, speaker: str, console: Console | None = None) -> None:
        super().__init__()
        self._speaker = speaker
        self._console = console or Console(highlight=False)
        self._printed: dict[str, str] = {}
        self._last = ""
        self._growing = ""
        self._live: Live | None = None

    def prompt(self, text: str) -> None:
        self.settle()
        if self._introduced:
            self._console.print()
        super().prompt(text)

    def show(self, update: Update) -> None:
        self.withdraw()
        if update.event_id != self._last:
            self.settle()
            self._last = update.event_id
        self._erase()
        printed = self._printed.get(update.event_id, "")
        if not update.text.startswith(printed):
            printed = ""
        sure = len(update.text)
        if update.live:
            sure = max(len(printed), last_block(update.text))
        self._print(update.text[len(printed) : sure], after=printed)
        self._printed[update.event_id] = update.text[:sure]
        self._growing = update.text[sure:]
        if not is_blank(self._growing):
            self._draw()

    def settle(self) -> None:
        self._erase()
        if self._growing and not is_blank(self._growing):
            self._print(self._growing, after=self._printed[self._last])
            self._printed[self._last] += self._growing
        self._growing = ""

    def _print(self, markdown: str, after: str) -> None:
        markdown = continued(after, markdown)
        if not is_blank(markdown):
            self._console.print(self._introduction())
            self._console.print(TerminalMarkdown(markdown))
            self._introduced = True

    def _draw(self) -> None:
        growing = continued(self._printed[self._last], self._growing)
        shown = Group(self._introduction(), _End(TerminalMarkdown(growing)))
        self._live = Live(shown, console=self._console, auto_refresh=False, transient=True)
        self._live.start(refresh=True)

    def _erase(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _introduction(self) -> Text:
        """What stands above a block: the speaker's name, or a blank line below another block."""
        return Text("" if self._introduced else self._speaker, style=_SPEAKER)


class _Code(CodeBlock):
    """Code without the blank lines that Rich puts around it."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if code := str(self.text).rstrip():
            yield Syntax(code, self.lexer_name, theme=self.theme, word_wrap=True, padding=(0, 1))


class TerminalMarkdown(Markdown):
    """Markdown as agents write it. Nothing of it is lost: tags show as written, and links and
    pictures tell where they lead."""

    elements: ClassVar = {**Markdown.elements, "fence": _Code, "code_block": _Code}

    def __init__(self, text: str) -> None:
        super().__init__("", code_theme="ansi_dark", hyperlinks=False)
        self.parsed = list(_for_terminal(_PARSER.parse(text)))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # Rich puts a blank line above some kinds of blocks, also of the first.
        segments = super().__rich_console__(console, options)
        yield from dropwhile(Segment.line().__eq__, segments)


class _End:
    """The last lines of what is higher than the terminal."""

    def __init__(self, whole: RenderableType) -> None:
        self._whole = whole

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._whole, options.update(height=None), pad=False)
        for line in lines[-max(console.height - 3, 1) :]:
            yield from line
            yield Segment.line()


def last_block(text: str) -> int:
    """Where the last block of Markdown begins: what is before it stays as it is while the text
    grows."""
    starts = [
        token.map[0]
        for token in _PARSER.parse(text)
        if token.level == 0 and token.nesting >= 0 and token.map is not None
    ]
    lines = text.split("\n")
    if starts and starts[-1] == len(lines) - 1 and lines[starts[-1] - 1].strip():
        # What else comes in its line tells whether it begins a block, or goes on with the last.
        del starts[-1]
    return sum(len(line) + 1 for line in lines[: starts[-1] if starts else 0])


def is_blank(markdown: str) -> bool:
    """Whether there is nothing to see yet, not even in a fence that has been opened."""
    return all(
        token.type == "fence" and not token.content.strip() for token in _PARSER.parse(markdown)
    )


def continued(before: str, text: str) -> str:
    """What follows `before`, as Markdown of its own: in a fence that is open there it opens it
    again."""
    tokens = _PARSER.parse(before)
    last = tokens[-1] if tokens else None
    if last is None or last.type != "fence" or last.map is None:
        return text
    lines = before.split("\n")[last.map[0] : last.map[1]]
    if len(lines) > 1 and lines[-1].strip() == last.markup:
        return text
    return f"{last.markup}{last.info}\n" + text.removeprefix("\n")


def _for_terminal(tokens: Sequence[Token]) -> Iterator[Token]:
    """Tokens as Rich knows them: it leaves out what it does not."""
    for number, token in enumerate(tokens):
        if _is_bare_link(tokens, number):
            continue
        if token.type == "softbreak":
            yield Token("hardbreak", "br", 0)
        elif token.type == "formula":
            yield Token("code_inline", "code", 0, content=token.markup)
        elif token.type == "formula_block":
            yield Token("fence", "code", 0, content=token.markup)
        elif token.type in ("spoiler_open", "spoiler_close"):
            yield Token("text", "", 0, content="||")
        elif token.type == "image":
            yield Token("text", "", 0, content=f"{token.content} ({token.attrs.get('src', '')})")
        else:
            if token.children:
                token.children = list(_for_terminal(token.children))
            yield token


def _is_bare_link(tokens: Sequence[Token], number: int) -> bool:
    """Whether a token is an end of a link whose text is its address: that is told once."""
    start = {"link_open": number, "link_close": number - 2}.get(tokens[number].type, -1)
    link = tokens[start : start + 3]
    if [token.type for token in link] != ["link_open", "text", "link_close"]:
        return False
    return link[0].attrs.get("href") == link[1].content
