"""Pictures and files that a person sends, and what is said where that fails."""

import re

from playwright.async_api import FilePayload, Locator, Route, expect
from tests.browser.chat_page import ChatPage, OpenPage, opened
from tests.browser.furniture import AgentRoom, newest
from tests.browser.pictures import red_png

_PASTE = """(box, bytes) => {
    const data = new DataTransfer();
    data.items.add(new File([new Uint8Array(bytes)], "shot.png", { type: "image/png" }));
    box.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
}"""


def files_of(chat: ChatPage) -> Locator:
    return chat.page.locator(".room-pane input[type=file]")


def notes(text: bytes = b"milk\neggs\n") -> FilePayload:
    return {"name": "notes.txt", "mimeType": "text/plain", "buffer": text}


async def test_a_file_and_a_pasted_picture(open_page: OpenPage, room: AgentRoom) -> None:
    chat = await opened(open_page, room)
    await files_of(chat).set_input_files([notes()])
    chosen = chat.page.get_by_role("list", name="Files to be sent")
    await expect(chosen.get_by_role("listitem")).to_contain_text(["notes.txt"])
    await chat.composer.evaluate(_PASTE, list(red_png(60, 40)))
    await expect(chosen.get_by_role("listitem")).to_have_count(2)
    await chat.page.get_by_role("button", name="Remove notes.txt").click()
    await expect(chosen.get_by_role("listitem")).to_have_count(1)
    await chat.page.get_by_role("button", name="Send").click()
    own = chat.page.locator("article.own")
    await expect(own.locator(".picture img")).to_have_attribute("src", re.compile("^blob:"))
    await expect(chosen).to_be_hidden()
    content = await newest(room.id, room.agent, 1)
    assert content.pop("url").startswith("mxc://localhost/")
    info = {"mimetype": "image/png", "size": len(red_png(60, 40)), "w": 60, "h": 40}
    assert content == {
        "msgtype": "m.image",
        "body": "shot.png",
        "filename": "shot.png",
        "info": info,
    }


async def test_words_go_with_the_file(open_page: OpenPage, room: AgentRoom) -> None:
    chat = await opened(open_page, room)
    await files_of(chat).set_input_files([notes()])
    chosen = chat.page.get_by_role("list", name="Files to be sent")
    await expect(chosen.get_by_role("listitem")).to_have_count(1)
    await chat.type_and_send("what is **missing**?")
    own = chat.page.locator("article.own")
    await expect(own.locator(".caption strong")).to_have_text("missing")
    async with chat.page.expect_download() as download:
        await own.get_by_role("button", name="notes.txt").click()
    assert (await (await download.value).path()).read_bytes() == b"milk\neggs\n"
    content = await newest(room.id, room.agent, 1)
    assert content["msgtype"] == "m.file"
    assert (content["body"], content["filename"]) == ("what is **missing**?", "notes.txt")
    assert content["info"] == {"mimetype": "text/plain", "size": 10}


async def test_what_cannot_be_sent_is_refused_at_once(open_page: OpenPage, room: AgentRoom) -> None:
    chat = await opened(open_page, room)
    cors = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "Authorization"}
    limit = {"m.upload.size": 5}
    await chat.page.route("**/media/config", lambda r: r.fulfill(json=limit, headers=cors))
    await files_of(chat).set_input_files([notes()])
    await expect(chat.page.locator(".toast")).to_have_text(
        "“notes.txt” has 10 B; the homeserver takes at most 5 B. Choose a smaller file."
    )
    await files_of(chat).set_input_files([notes(b"")])
    await expect(chat.page.locator(".toast")).to_contain_text("is empty")
    await expect(chat.page.get_by_role("list", name="Files to be sent")).to_have_count(0)


async def test_a_failed_upload_is_tried_again(open_page: OpenPage, room: AgentRoom) -> None:
    chat = await opened(open_page, room)
    refusal = {"errcode": "M_TOO_LARGE", "error": "no"}
    cors = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "*"}

    async def refuse(route: Route) -> None:
        if route.request.method == "OPTIONS":
            return await route.continue_()
        return await route.fulfill(status=413, json=refusal, headers=cors)

    await chat.page.route("**/media/v3/upload?**", refuse)
    await files_of(chat).set_input_files([notes()])
    await chat.page.get_by_role("button", name="Send").click()
    own = chat.page.locator("article.own")
    await expect(own.get_by_role("alert")).to_contain_text("Choose a smaller file.")
    await chat.page.unroute("**/media/v3/upload?**")
    await own.get_by_role("button", name="Try again").click()
    await expect(own).to_have_attribute("data-state", "sent")
    await expect(own).to_have_count(1)
    assert len(await room.agent.messages(room.id)) == 1


async def test_a_big_picture_comes_as_a_small_one(open_page: OpenPage, room: AgentRoom) -> None:
    mxc = await room.agent.upload(red_png(1600, 1200), "image/png")
    info = {"w": 1600, "h": 1200, "mimetype": "image/png", "size": 4_000_000}
    picture = await room.agent.say(room.id, "big.png", msgtype="m.image", url=mxc, info=info)
    chat = await opened(open_page, room)
    image = chat.message(picture).locator("img[data-mxc]")
    await expect(image).to_have_attribute("src", re.compile("^blob:"))
    width = "element => element.decode().then(() => element.naturalWidth)"
    assert await image.evaluate(width) == 800
    await image.click()
    enlarged = chat.page.locator("dialog img")
    await expect(enlarged).not_to_have_attribute("src", await image.get_attribute("src") or "")
    assert await enlarged.evaluate(width) == 1600
