"""Messages' HTML: what is allowed comes through, everything else is harmless."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from playwright.async_api import expect
from tests.browser.chat_page import ChatPage, OpenPage
from tests.browser.furniture import AgentRoom
from tests.browser.tabs import Tabs

HOSTILE = """
<p onclick="window.hit=1" style="position:fixed" id="app" class="shell">text</p>
<script>window.hit=1</script><style>body{display:none}</style>
<img src="x" onerror="window.hit=1"><img src="https://example.org/track.png" alt="tracked">
<a href="javascript:window.hit=1">js</a><a href="data:text/html,x">data</a>
<svg onload="window.hit=1"><a href="https://example.org">svg</a></svg>
<iframe srcdoc="<script>parent.hit=1</script>"></iframe><form action="/x"><input name=a></form>
<math><mtext><table><mglyph><style><img src=x onerror="window.hit=1"></style></table></math>
<template><img src=x onerror="window.hit=1"></template><base href="//example.org/">
<meta http-equiv="refresh" content="0;url=//example.org"><object data="x"></object>
"""

CASES = [
    ('<b>a</b><font color="red">b</font>', "<b>a</b>b"),
    (
        '<a href="https://x.y/?a=1&amp;b" title="t">l</a>',
        '<a href="https://x.y/?a=1&amp;b" target="_blank" rel="noopener noreferrer">l</a>',
    ),
    ('<a href=" JaVaScRiPt:alert(1)">l</a>', "l"),
    (
        '<a href="mailto:a@b.c">m</a>',
        '<a href="mailto:a@b.c" target="_blank" rel="noopener noreferrer">m</a>',
    ),
    ('<a href="https://matrix.to/#/@ada:x">Ada</a>', '<span class="mention">Ada</span>'),
    ('<code class="language-js evil">x</code>', '<code class="language-js">x</code>'),
    ('<ol start="3" type="a"><li value="9">x</li></ol>', '<ol start="3"><li>x</li></ol>'),
    ('<span data-mx-maths="x^2">x2</span>', '<code class="maths">x^2</code>'),
    (
        '<span data-mx-spoiler="why" lang="x">s</span>',
        '<span data-mx-spoiler="why" class="spoiler" role="button" tabindex="0" '
        'aria-label="Spoiler: why">s</span>',
    ),
    ("<details open><summary>s</summary>b</details>", "<details><summary>s</summary>b</details>"),
    (
        '<img src="mxc://a.b/c" width="9999" height="20">',
        '<img height="20" data-mxc="mxc://a.b/c" class="inline-image" alt="">',
    ),
    (
        "<mx-reply>gone</mx-reply><!-- gone --><h6>h</h6><hr><del>d</del>",
        "<h6>h</h6><hr><del>d</del>",
    ),
]

MARKDOWN = [
    ("plain", "<p>plain</p>"),
    ("a\nb", "<p>a<br>\nb</p>"),
    (
        "**b** *i* _i_ ~~s~~ `c<`",
        "<p><strong>b</strong> <em>i</em> <em>i</em> <del>s</del> <code>c&lt;</code></p>",
    ),
    ("2 * 3 * 4 and snake_case_name", "<p>2 * 3 * 4 and snake_case_name</p>"),
    (
        "```py\nx = 1\n\n<b>\n```",
        '<pre><code class="language-py">x = 1\n\n&lt;b&gt;\n</code></pre>',
    ),
    ("# One\n### Three", "<h1>One</h1>\n<h3>Three</h3>"),
    (
        "- a\n- b\n  - c\n\n1. x\n2. y",
        "<ul>\n<li>a</li>\n<li>b\n<ul>\n<li>c</li>\n</ul>\n</li>\n</ul>\n"
        "<ol>\n<li>x</li>\n<li>y</li>\n</ol>",
    ),
    (
        "> q\n> > r\n\nend",
        "<blockquote>\n<p>q</p>\n<blockquote>\n<p>r</p>\n</blockquote>\n</blockquote>\n<p>end</p>",
    ),
    (
        "[l](https://x.y/_a_) https://z.w/b_c.",
        '<p><a href="https://x.y/_a_">l</a> <a href="https://z.w/b_c">https://z.w/b_c</a>.</p>',
    ),
    ("[l](javascript:alert(1)) \\*no\\*", "<p>[l](javascript:alert(1)) *no*</p>"),
    ("***both***", "<p><em><strong>both</strong></em></p>"),
    ("||dark||", '<p><span data-mx-spoiler="">dark</span></p>'),
    ("a || b, |x| and ||never", "<p>a || b, |x| and ||never</p>"),
    ("||*it* was\nhim||", '<p><span data-mx-spoiler=""><em>it</em> was<br>\nhim</span></p>'),
    (
        "Look:\n| a | **b** |\n|---|:-:|\n| 1 \\| 2 | <i> |\n| 3 |\n\nend",
        "<p>Look:</p>\n<table>\n<thead>\n<tr>\n<th>a</th>\n<th><strong>b</strong></th>\n</tr>\n"
        "</thead>\n<tbody>\n<tr>\n<td>1 | 2</td>\n<td>&lt;i&gt;</td>\n</tr>\n"
        "<tr>\n<td>3</td>\n<td></td>\n</tr>\n</tbody>\n</table>\n<p>end</p>",
    ),
    ("yes | no\n---", "<p>yes | no</p>\n<hr>"),
    ("![p](https://x.y/p.png) <b>", '<p>!<a href="https://x.y/p.png">p</a> &lt;b&gt;</p>'),
]


Call = Callable[[str, str, list[str]], Awaitable[list[str]]]


@pytest.fixture(scope="module")
async def call(tabs: Tabs, chat_url: str) -> AsyncIterator[Call]:
    """Calls a function of one of the page's modules with each of some texts."""
    chat = ChatPage(await tabs.open(chat_url), chat_url)
    await chat.watch()
    await chat.page.goto(chat_url)

    async def run(module: str, function: str, texts: list[str]) -> list[str]:
        return await chat.page.evaluate(_CALL, [module, function, texts])

    yield run
    await tabs.close(chat.page)
    assert not chat.faults


_CALL = """async ([module, name, texts]) => {
    const call = (await import(new URL(module, location.href)))[name];
    const holder = document.createElement("div");
    return texts.map((text) => {
        const result = call(text);
        if (typeof result === "string") return result;
        holder.replaceChildren(result);
        return holder.innerHTML;
    });
}"""


async def test_allow_list(call: Call) -> None:
    """No inline handlers and styles here: the policy would rightly complain of them."""
    got = await call("chat/sanitize.js", "sanitize", [html for html, _ in CASES])
    assert got == [wanted for _, wanted in CASES]


async def test_markdown(call: Call) -> None:
    got = await call("chat/markdown.js", "renderMarkdown", [text for text, _ in MARKDOWN])
    assert got == [wanted for _, wanted in MARKDOWN]


async def test_markdown_is_never_slow(call: Call) -> None:
    """What would take longer than in proportion to the square of these would never end."""
    long = ["*" * 20000, "[" * 20000, "`" * 19999 + "x", "_a" * 20000, "> " * 500]
    assert all(await call("chat/markdown.js", "renderMarkdown", long))


async def test_hostile_message_is_harmless(open_page: OpenPage, room: AgentRoom) -> None:
    event = await room.agent.say(room.id, "hostile", HOSTILE)
    deep = await room.agent.say(room.id, "deep", "<div>" * 3000 + "x" + "</div>" * 3000)
    chat = await open_page()
    chat.watch_hosts()
    await chat.resume(room.person)
    content = chat.message(event).locator(".content")
    await expect(content).to_contain_text("text")
    await expect(chat.message(deep)).to_be_visible()
    assert await chat.page.evaluate("window.hit") is None
    attributes = await content.evaluate(
        "e => [...e.querySelectorAll('*')].flatMap(n => n.getAttributeNames())"
    )
    assert set(attributes) <= {"href", "target", "rel"}, json.dumps(attributes)
    assert await content.locator("script, style, img, svg, iframe, form, input").count() == 0
    assert chat.hosts == {"127.0.0.1"}
    assert all("has been blocked" in fault for fault in chat.faults)
    chat.faults.clear()
