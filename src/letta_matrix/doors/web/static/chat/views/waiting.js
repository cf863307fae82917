/** A bar that says which agents wait for an answer, and leads to the question. */

import { isOpenQuestion } from "../store/questions.js";
import { h, setText } from "./dom.js";

/** @typedef {import("../types.js").Item} Item */
/** @typedef {import("../store/room.js").Room} Room */

export class WaitingBar {
  /** @type {Item|null} the question that has waited longest */
  #first = null;
  #words = h("span.words", {});
  #button = h("button.waiting", { type: "button" },
    h("span.pulse", { "aria-hidden": "true" }),
    this.#words,
    h("span.show", {}, "Show"),
  );
  element = h("div.waiting-line", { hidden: true }, this.#button);

  /** @param {(question: Item) => void} onShow */
  constructor(onShow) {
    this.#button.addEventListener("click", () => this.#first && onShow(this.#first));
  }

  /** @param {Room} room @param {Item[]} items what was said here, oldest first */
  update(room, items) {
    const open = items.filter(isOpenQuestion);
    this.#first = open[0] ?? null;
    this.element.hidden = !open.length;
    if (open.length) setText(this.#words, sentence(open, room));
  }
}

/** @param {Item[]} open @param {Room} room */
function sentence(open, room) {
  const names = [...new Set(open.map(({ sender }) => room.member(sender).name))];
  const whose = open.every((item) => isForUs(item, room)) ? "your answer" : "an answer";
  if (names.length > 1) return `${names.slice(0, -1).join(", ")} and ${names.at(-1)} wait for ${whose}`;
  return `${names[0]} waits for ${open.length > 1 ? `${open.length} answers` : whose}`;
}

/**
 * Whether we may be the one to answer: a question names whom it is for, if anybody.
 *
 * @param {Item} item
 * @param {Room} room
 */
function isForUs({ content }, room) {
  const named = content["m.mentions"]?.user_ids;
  return !Array.isArray(named) || !named.length || named.includes(room.ownUserId);
}
