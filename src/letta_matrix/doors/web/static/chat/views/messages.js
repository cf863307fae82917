/** Messages as a list: day lines, notes and bubbles, changed as little as possible. */

import { shortName } from "../store/names.js";
import { summaryOf } from "./content.js";
import { arrange, h, icon, setText } from "./dom.js";
import { MessageView } from "./message.js";
import { Roving } from "./roving.js";
import { dayTitle } from "./times.js";

/** @typedef {import("../types.js").Item} Item */
/** @typedef {import("../store/room.js").Room} Room */

const GROUP_WITHIN = 5 * 60 * 1000;

export class MessageList {
  /** @type {Map<string, MessageView>} */
  #messages = new Map();
  /** @type {Map<string, HTMLElement>} day lines and notes */
  #lines = new Map();
  /** @type {Set<string>} ids of our messages that wait for their turn */
  #queued = new Set();
  element = h("div.messages", {});

  /**
   * @param {import("../media.js").Media} media
   * @param {import("../history.js").History} history
   * @param {{inThread?: boolean}} [where]
   */
  constructor(media, history, { inThread = false } = {}) {
    this.media = media;
    this.history = history;
    this.inThread = inThread;
    this.rovings = [".add-reaction", ".reply-in-thread", ".more"].map((one) => new Roving(this.element, one));
  }

  clear() {
    this.#messages.clear();
    this.#lines.clear();
    this.element.replaceChildren();
  }

  /** @param {Item[]} items oldest first @param {Room} room @param {Set<string>} queued ids of those that wait */
  render(items, room, queued) {
    this.#queued = queued;
    arrange(this.element, this.#elements(items, room));
    for (const roving of this.rovings) roving.update();
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
      if (item.beside !== "trace") previous = item;
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
    if (item.kind === "thread") return this.#threadLine(item, room);
    if (item.kind === "renamed") {
      const name = shortName(String(item.content.name));
      const text = `${room.member(item.sender).name} renamed the room to “${name}”`;
      return this.#line(item.key, text, "p.note");
    }
    const view = this.#messages.get(item.key) ?? new MessageView(item.key, this.media, this.inThread);
    this.#messages.set(item.key, view);
    const quoted = item.replyTo ? this.history.find(room, item.replyTo) : null;
    const queued = this.#queued.has(item.id ?? "");
    view.update(item, room, { grouped: isContinued(item, previous), quoted, queued });
    return view.element;
  }

  /** Stands for a thread whose first message is further up. @param {Item} item @param {Room} room */
  #threadLine(item, room) {
    const text = `${room.member(item.sender).name} in a thread: ${summaryOf(item)}`;
    const line = this.#lines.get(item.key) ?? h("p.note", {}, h("button.thread-chip", { type: "button" }, icon("thread"), h("span", {})));
    this.#lines.set(item.key, line);
    const button = /** @type {HTMLElement} */ (line.firstChild);
    button.dataset.thread = item.thread ?? "";
    setText(/** @type {Node} */ (button.lastChild), text);
    return line;
  }

  /** @param {string} id of an event @returns {HTMLElement|null} */
  find(id) {
    return this.element.querySelector(`[data-id="${CSS.escape(id)}"]`);
  }
}

/** Whether a message needs no name of its own. @param {Item} item @param {Item|null} previous */
function isContinued(item, previous) {
  if (!previous || previous.kind === "renamed" || previous.kind === "thread" || item.replyTo) return false;
  return previous.sender === item.sender && item.ts - previous.ts < GROUP_WITHIN;
}
