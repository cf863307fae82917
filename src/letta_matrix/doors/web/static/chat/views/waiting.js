/** A bar that says which agents wait for an answer, and leads to a question that is out of sight. */

import { isOpenQuestion } from "../store/questions.js";
import { h, setText } from "./dom.js";

/** @typedef {import("../types.js").Item} Item */
/** @typedef {import("../store/room.js").Room} Room */

export class WaitingBar {
  /** @type {Room|null} */
  #room = null;
  /** @type {Item[]} */
  #open = [];
  /** @type {Map<Element, boolean>} where the questions are answered, and whether that is in sight */
  #places = new Map();
  #sight = new IntersectionObserver((entries) => this.#seen(entries), { threshold: [0, 0.99] });
  /** @type {Item|null} the question out of sight that has waited longest */
  #first = null;
  #words = h("span.words", {});
  #button = h("button.waiting", { type: "button" },
    h("span.pulse", { "aria-hidden": "true" }),
    this.#words,
    h("span.show", {}, "Show"),
  );
  element = h("div.waiting-line", { hidden: true }, this.#button);

  /**
   * @param {(question: Item) => void} onShow
   * @param {(id: string) => HTMLElement|null} find what shows a message here
   */
  constructor(onShow, find) {
    this.find = find;
    this.#button.addEventListener("click", () => this.#first && onShow(this.#first));
  }

  /** @param {Room} room @param {Item[]} items what was said here, oldest first */
  update(room, items) {
    this.#room = room;
    this.#open = items.filter(isOpenQuestion);
    const places = new Set(this.#open.map((item) => this.#placeOf(item)));
    for (const place of this.#places.keys()) {
      if (places.has(place)) continue;
      this.#sight.unobserve(place);
      this.#places.delete(place);
    }
    for (const place of places) {
      if (!place || this.#places.has(place)) continue;
      // In sight until it is known not to be: most questions come at the end, where one reads.
      this.#places.set(place, true);
      this.#sight.observe(place);
    }
    this.#render();
  }

  /** @param {IntersectionObserverEntry[]} entries */
  #seen(entries) {
    for (const { target, intersectionRatio } of entries) {
      if (this.#places.has(target)) this.#places.set(target, intersectionRatio >= 0.99);
    }
    this.#render();
  }

  #render() {
    const away = this.#open.filter((item) => {
      const place = this.#placeOf(item);
      return !place || this.#places.get(place) === false;
    });
    this.#first = away[0] ?? null;
    this.element.hidden = !away.length;
    if (this.#room && away.length) setText(this.#words, sentence(away, this.#room));
  }

  /** The buttons of a question, or all of it while there are none. @param {Item} item */
  #placeOf({ id }) {
    const message = id ? this.find(id) : null;
    return message?.querySelector(".reactions:not([hidden])") ?? message;
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
