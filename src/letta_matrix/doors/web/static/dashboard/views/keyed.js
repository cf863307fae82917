/** Lists whose items stay themselves as they change: what is open or focused remains so. */

import { arrange, morph } from "../../chat/views/dom.js";

export class Keyed {
  /** @type {Map<string, Element>} */
  #elements = new Map();

  /**
   * @param {Element} list
   * @param {(item: any) => string} keyOf
   * @param {(item: any) => Element} view pure: the same for the same item; what is pressed in it
   *   says so by `data-do`
   */
  constructor(list, keyOf, view) {
    this.list = list;
    this.keyOf = keyOf;
    this.view = view;
  }

  /** @param {any[]} items */
  render(items) {
    const elements = new Map(items.map((item) => [this.keyOf(item), this.#shown(item)]));
    this.#elements = elements;
    arrange(this.list, [...elements.values()]);
  }

  /** @param {any} item */
  #shown(item) {
    const present = this.#elements.get(this.keyOf(item));
    const next = this.view(item);
    if (!present) return next;
    present.className = next.className;
    morph(present, next);
    return present;
  }
}
