/** One message on the screen; updated in place for as long as it lives. */

import { PREVIEW } from "../media.js";
import { isAgentId } from "../store/ids.js";
import { isLive } from "../store/live.js";
import { avatar } from "./avatar.js";
import { renderContent, summaryOf } from "./content.js";
import { h, icon, morph, setText } from "./dom.js";
import { showReactions } from "./reactions.js";
import { clockTime, fullTime, listTime } from "./times.js";

/** @typedef {import("../types.js").Item} Item */
/** @typedef {import("../store/room.js").Room} Room */
/** @typedef {import("../media.js").Media} Media */

export class MessageView {
  #stamp = "";
  #avatarOf = "";
  #gutter = h("div.gutter", {});
  #sender = h("span.sender", {});
  #badge = h("span.badge", {}, "agent");
  #time = h("time", {});
  #edited = h("span.edited", {}, "(edited)");
  #header = h("header", {}, this.#sender, this.#badge, this.#time);
  #quote = h("button.quote", { type: "button", hidden: true });
  #content = h("div.content", { dir: "auto" });
  #status = h("div.status", { hidden: true });
  #reactions = h("div.reactions", { role: "group", hidden: true });
  #thread = h("button.thread-chip", { type: "button", hidden: true }, icon("thread"), h("span", {}), h("time", {}));
  #add = h(
    "button.add-reaction",
    { type: "button", tabindex: "-1", "aria-label": "Add a reaction", "aria-haspopup": "true" },
    icon("smile"),
  );
  #reply = h(
    "button.reply-in-thread",
    { type: "button", tabindex: "-1", "aria-label": "Reply in thread", title: "Reply in thread" },
    icon("thread"),
  );

  #more = h(
    "button.more",
    { type: "button", tabindex: "-1", "aria-label": "More", title: "More", "aria-haspopup": "menu" },
    icon("more"),
  );

  /** @param {string} key @param {Media} media @param {boolean} inThread whether it is shown in a thread */
  constructor(key, media, inThread) {
    this.media = media;
    this.inThread = inThread;
    const bubble = h("div.bubble", {}, this.#quote, this.#content, this.#edited);
    const line = h("div.bubble-line", {}, bubble, h("div.actions", {}, this.#add, this.#reply, this.#more));
    const column = h("div.column", {}, this.#header, line, this.#status, this.#reactions, this.#thread);
    this.element = h("article.message", { "data-key": key }, this.#gutter, column);
  }

  /**
   * @param {Item} item
   * @param {Room} room
   * @param {{grouped: boolean, quoted: Item|null, queued: boolean}} place
   */
  update(item, room, { grouped, quoted, queued }) {
    const sender = room.member(item.sender);
    const live = isLive(item);
    const stamp = JSON.stringify([
      item.id, item.kind, item.revision, item.status, item.problem, item.reactions, item.replies,
      live, grouped, sender, quoted && [quoted.revision, quoted.sender, quoted.kind], item.replyTo, queued,
    ]);
    if (stamp === this.#stamp) return;
    this.#stamp = stamp;
    this.#classify(item, grouped, live, item.sender === room.ownUserId);
    this.#updateHeader(item, sender);
    this.#updateQuote(item, quoted, room);
    this.#updateContent(item, sender.name);
    this.#updateStatus(item, queued);
    showReactions(this.#reactions, item, room);
    this.#updateThread(item);
  }

  /** @param {Item} item @param {boolean} grouped @param {boolean} live @param {boolean} own */
  #classify(item, grouped, live, own) {
    const { element } = this;
    element.dataset.id = item.id ?? "";
    element.dataset.state = item.status;
    element.classList.toggle("own", own);
    element.classList.toggle("grouped", grouped);
    element.classList.toggle("live", live);
    element.classList.toggle("notice", item.content.msgtype === "m.notice");
    element.classList.toggle("gone", item.kind === "redacted" || item.kind === "encrypted");
    for (const kind of ["approval", "trace"]) element.classList.toggle(kind, item.beside === kind);
    const closed = !item.id || item.kind === "redacted" || item.beside === "trace";
    this.#add.hidden = closed;
    this.#reply.hidden = closed || this.inThread || Boolean(item.beside);
    this.#more.hidden = closed || item.kind === "encrypted";
  }

  /** @param {Item} item @param {import("../types.js").Member} sender */
  #updateHeader(item, sender) {
    const face = `${sender.name} ${sender.avatar}`;
    if (face !== this.#avatarOf) {
      this.#avatarOf = face;
      const whose = { id: item.sender, name: sender.name, mxc: sender.avatar };
      this.#gutter.replaceChildren(avatar(this.media, whose));
    }
    setText(this.#sender, sender.name);
    this.#sender.title = item.sender;
    const agent = isAgentId(item.sender);
    this.#badge.hidden = !agent;
    // An agent's reply grows by edits: only a person's edit means "changed my mind".
    this.#edited.hidden = !item.revision || agent || item.kind !== "message";
    setText(this.#time, clockTime(item.ts));
    this.#time.dateTime = new Date(item.ts).toISOString();
    this.#time.title = fullTime(item.ts);
  }

  /** @param {Item} item @param {Item|null} quoted @param {Room} room */
  #updateQuote(item, quoted, room) {
    this.#quote.hidden = !item.replyTo;
    if (!item.replyTo) return;
    this.#quote.dataset.target = item.replyTo;
    const name = quoted ? room.member(quoted.sender).name : "";
    const text = quoted ? summaryOf(quoted) : "an earlier message";
    this.#quote.replaceChildren(h("strong", {}, name), ` ${text}`);
    this.#quote.setAttribute("aria-label", `In reply to ${name}: ${text}`);
  }

  /** @param {Item} item @param {string} senderName */
  #updateContent(item, senderName) {
    morph(this.#content, renderContent(item, senderName));
    for (const image of this.#content.querySelectorAll("img[data-mxc]:not([src])")) {
      this.#loadPicture(image);
    }
  }

  /** @param {HTMLImageElement} image */
  async #loadPicture(image) {
    const size = "big" in image.dataset ? PREVIEW : undefined;
    const url = await this.media.picture(image.dataset.mxc ?? "", size).catch(() => null);
    if (url) image.src = url;
    else image.classList.add("broken");
  }

  /** @param {Item} item @param {boolean} queued */
  #updateStatus(item, queued) {
    this.#status.hidden = item.status === "sent" && !queued;
    this.#status.title = queued ? "The agent is still at an earlier message" : "";
    if (item.status === "sent") this.#status.replaceChildren(queued ? "queued" : "");
    if (item.status === "sending") this.#status.replaceChildren("Sending …");
    if (item.status !== "failed") return;
    this.#status.replaceChildren(
      h("span.failed", { role: "alert" }, `Not sent. ${item.problem}`),
      h("button.retry", { type: "button", "data-txn": item.key }, "Try again"),
      h("button.discard", { type: "button", "data-txn": item.key }, "Discard"),
    );
  }

  /** @param {Item} item */
  #updateThread({ id, replies }) {
    const [, words, time] = this.#thread.children;
    this.#thread.hidden = !replies || this.inThread;
    if (!replies) return;
    this.#thread.dataset.thread = id ?? "";
    setText(words, `${replies.count} ${replies.count > 1 ? "replies" : "reply"}`);
    setText(time, listTime(replies.ts));
    this.#thread.setAttribute("aria-label", `Open the thread: ${words.textContent}`);
  }
}
