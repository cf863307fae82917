/** The open room: its messages, who is writing, the message box. */

import { Composer } from "../composer.js";
import { History } from "../history.js";
import { shortName } from "../store/room.js";
import { avatar } from "./avatar.js";
import { isLive, summaryOf } from "./content.js";
import { arrange, h, icon, setText } from "./dom.js";
import { emptyState } from "./empty.js";
import { MessageView } from "./message.js";
import { Roving } from "./roving.js";
import { Scroll } from "./scroll.js";
import { dayTitle } from "./times.js";

/** @typedef {import("../types.js").Item} Item */
/** @typedef {import("../store/room.js").Room} Room */
/** @typedef {import("../account.js").Account} Account */

const GROUP_WITHIN = 5 * 60 * 1000;

export class Conversation {
  /** @type {Room|null} */
  room = null;
  /** @type {Map<string, MessageView>} */
  #messages = new Map();
  /** @type {Map<string, HTMLElement>} day lines and notes */
  #lines = new Map();
  /** @type {Set<string>} messages a screen reader was told of */
  #announced = new Set();
  #header = h("header.room-header", {});
  #list = h("div.messages", {});
  #more = h("p.loading", { hidden: true }, "Loading earlier messages …");
  #empty = h("div.empty-room", { hidden: true });
  #typing = h("p.typing", { hidden: true });

  /** @param {Account} account @param {{back: () => void}} handlers */
  constructor(account, { back }) {
    this.account = account;
    this.history = new History(account.api, account.rooms);
    this.composer = new Composer((roomId, content) => this.#send(roomId, content));
    this.scroll = new Scroll({ onTop: () => this.#readOlder(), onBottom: () => this.#markSeen() });
    this.reactionButtons = new Roving(this.#list, ".add-reaction");
    this.scroll.content.append(this.#more, this.#empty, this.#list);
    const label = "Back to the rooms";
    this.back = h("button.back", { type: "button", "aria-label": label, onclick: back }, icon("back"));
    this.element = h("main.conversation", { hidden: true },
      this.#header,
      this.scroll.element,
      h("div.typing-line", {}, this.#typing),
      this.composer.element,
    );
    document.addEventListener("visibilitychange", () => this.#markSeen());
  }

  /** @param {Room} room */
  open(room) {
    if (this.room?.id !== room.id) {
      this.room = room;
      this.#messages.clear();
      this.#lines.clear();
      this.#announced = new Set(room.timeline.items().filter((item) => !isLive(item)).map((item) => item.key));
      this.#list.replaceChildren();
      this.scroll.toBottom();
      this.history.people(room);
    }
    this.element.hidden = false;
    this.render();
  }

  close() {
    this.room = null;
    this.element.hidden = true;
  }

  render() {
    const { room } = this;
    if (!room) return;
    const items = room.timeline.items();
    this.#renderHeader(room);
    this.composer.show(room);
    this.scroll.keepingPlace(() => {
      this.#more.hidden = !room.timeline.older;
      arrange(this.#list, this.#elements(items, room));
    });
    this.reactionButtons.update();
    this.scroll.count(items.filter((item) => item.kind !== "renamed"));
    this.#renderTyping(room);
    this.#renderEmpty(items, room);
    this.#announce(items, room);
    this.#markSeen();
    if (this.scroll.nearTop) this.#readOlder();
  }

  /** @param {Room} room */
  #renderHeader(room) {
    const state = JSON.stringify([room.id, room.name, room.topic, room.avatar]);
    if (this.#header.dataset.state === state) return;
    this.#header.dataset.state = state;
    const face = { id: room.agentId ?? room.id, name: room.name, mxc: room.avatar };
    this.element.setAttribute("aria-label", `Conversation: ${room.name}`);
    this.#header.replaceChildren(
      this.back,
      avatar(this.account.media, face),
      h("div.room-title", {},
        h("h1", { title: room.fullName }, room.name),
        h("p", { title: room.topic }, room.topic),
      ),
    );
  }

  /** @param {Item[]} items @param {Room} room */
  #elements(items, room) {
    /** @type {HTMLElement[]} */
    const elements = [];
    /** @type {Item|null} */
    let previous = null;
    for (const item of items) {
      const day = dayTitle(item.ts);
      const newDay = !previous || dayTitle(previous.ts) !== day;
      if (newDay) elements.push(this.#line(`day ${day}`, day, "h2.day"));
      elements.push(this.#element(item, newDay ? null : previous, room));
      previous = item;
    }
    return elements;
  }

  /** @param {string} key @param {string} text @param {string} tag */
  #line(key, text, tag) {
    const line = this.#lines.get(key) ?? h(tag, {}, h("span", {}));
    this.#lines.set(key, line);
    setText(/** @type {Node} */ (line.firstChild), text);
    return line;
  }

  /** @param {Item} item @param {Item|null} previous @param {Room} room */
  #element(item, previous, room) {
    if (item.kind === "renamed") {
      const name = shortName(String(item.content.name));
      const text = `${room.member(item.sender).name} renamed the room to “${name}”`;
      return this.#line(item.key, text, "p.note");
    }
    const view = this.#messages.get(item.key) ?? new MessageView(item.key, this.account.media);
    this.#messages.set(item.key, view);
    const quoted = item.replyTo ? this.history.find(room, item.replyTo) : null;
    view.update(item, room, { grouped: isContinued(item, previous), quoted });
    return view.element;
  }

  /** @param {Room} room */
  #renderTyping(room) {
    const names = room.typing.map((id) => room.member(id).name);
    this.#typing.hidden = !names.length;
    if (!names.length) return;
    const some = names.length > 2 ? `${names.length} people` : names.join(" and ");
    const who = `${some} ${names.length > 1 ? "are" : "is"}`;
    if (this.#typing.dataset.who === who) return;
    this.#typing.dataset.who = who;
    const dots = h("span.dots", { "aria-hidden": "true" }, h("i", {}), h("i", {}), h("i", {}));
    this.#typing.replaceChildren(dots, `${who} writing …`);
  }

  /** @param {Item[]} items @param {Room} room */
  #renderEmpty(items, room) {
    const empty = !items.length && !room.timeline.older;
    this.#empty.hidden = !empty;
    const state = JSON.stringify([room.id, room.name, room.avatar]);
    if (!empty || this.#empty.dataset.state === state) return;
    this.#empty.dataset.state = state;
    this.#empty.replaceChildren(emptyState(this.account.media, room, (text) => this.composer.suggest(text)));
  }

  /** Reads out what others said, once it is complete. @param {Item[]} items @param {Room} room */
  #announce(items, room) {
    for (const item of items) {
      if (this.#announced.has(item.key) || isLive(item) || !item.id) continue;
      this.#announced.add(item.key);
      const old = Date.now() - item.revisedAt > 60000;
      if (item.sender === room.ownUserId || item.kind === "renamed" || old) continue;
      const announcer = /** @type {HTMLElement} */ (document.getElementById("announcer"));
      announcer.textContent = `${room.member(item.sender).name}: ${summaryOf(item)}`;
    }
  }

  #markSeen() {
    const visible = document.visibilityState === "visible" && !this.element.hidden;
    const shown = this.element.offsetParent !== null || getComputedStyle(this.element).display !== "none";
    if (this.room && visible && shown && this.scroll.atBottom) this.account.receipts.seen(this.room);
  }

  async #readOlder() {
    const { room } = this;
    if (!room?.timeline.older) return;
    // While offline the next scroll, or the next sync, tries again.
    await this.history.older(room).catch(() => {});
  }

  /** @param {string} roomId @param {Record<string, any>} content */
  #send(roomId, content) {
    this.scroll.toBottom();
    this.account.outbox.send(roomId, content);
  }

  /** Scrolls to the message a reply points to. @param {string} id */
  reveal(id) {
    const element = this.#list.querySelector(`[data-id="${CSS.escape(id)}"]`);
    if (!element) return;
    element.scrollIntoView({ block: "center" });
    element.classList.add("pointed-at");
    setTimeout(() => element.classList.remove("pointed-at"), 1600);
  }
}

/** Whether a message needs no name of its own. @param {Item} item @param {Item|null} previous */
function isContinued(item, previous) {
  if (!previous || previous.kind === "renamed" || item.replyTo) return false;
  return previous.sender === item.sender && item.ts - previous.ts < GROUP_WITHIN;
}
