/** Suggestions for what one types in a text box: a list above it, and the keys that choose. */

import { avatar } from "./avatar.js";
import { h } from "./dom.js";

/** @typedef {import("../completions.js").Found} Found */
/** @typedef {import("../completions.js").Option} Option */

export class Suggestions {
  /** @type {Found|null} */
  #found = null;
  #at = 0;
  /** @type {string|null} the text for which the list was sent away */
  #dismissed = null;
  /** What is shown, as text. */
  #stamp = "";

  /**
   * @param {HTMLTextAreaElement} box
   * @param {import("../media.js").Media} media
   * @param {{find: (before: string) => Found|null, onChosen: (option: Option) => void}} handlers
   */
  constructor(box, media, { find, onChosen }) {
    this.box = box;
    this.media = media;
    this.find = find;
    this.onChosen = onChosen;
    const id = `${box.id}-suggestions`;
    // It scrolls, so it can have the focus; its keys are the box's all the same.
    const list = { id, role: "listbox", tabindex: "0", "aria-label": "Suggestions", hidden: true };
    this.element = h("ul.suggestions", list);
    box.setAttribute("aria-autocomplete", "list");
    box.addEventListener("input", () => this.update());
    box.addEventListener("click", () => this.update());
    box.addEventListener("blur", () => this.#close());
    box.addEventListener("keydown", (event) => this.#onKey(event));
    // The box keeps the focus.
    this.element.addEventListener("mousedown", (/** @type {Event} */ event) => event.preventDefault());
    this.element.addEventListener("click", (/** @type {MouseEvent} */ event) => {
      const item = /** @type {HTMLElement} */ (event.target).closest("li");
      if (item) this.#choose([...this.element.children].indexOf(item));
    });
  }

  /** What is known may have changed while somebody types. */
  refresh() {
    if (document.activeElement === this.box) this.update();
  }

  update() {
    const { selectionStart: caret, selectionEnd, value } = this.box;
    if (value !== this.#dismissed) this.#dismissed = null;
    const typing = caret === selectionEnd && this.#dismissed === null;
    const found = typing ? this.find(value.slice(0, caret)) : null;
    if (!found) return this.#close();
    const before = this.#found?.options[this.#at]?.key;
    this.#found = found;
    this.#at = Math.max(0, found.options.findIndex(({ key }) => key === before));
    this.#render();
  }

  #render() {
    const options = this.#found?.options ?? [];
    const stamp = JSON.stringify([options, this.#at]);
    if (stamp === this.#stamp) return;
    this.#stamp = stamp;
    const items = options.map((option, index) => {
      const attributes = {
        id: `${this.element.id}-${index}`,
        role: "option",
        "aria-selected": String(index === this.#at),
      };
      return h("li", attributes, this.#face(option), h("span.label", {}, option.label), h("span.detail", {}, option.detail));
    });
    this.element.replaceChildren(...items);
    this.element.hidden = false;
    this.box.setAttribute("aria-controls", this.element.id);
    this.box.setAttribute("aria-activedescendant", items[this.#at].id);
    items[this.#at].scrollIntoView({ block: "nearest" });
  }

  /** @param {Option} option */
  #face({ person }) {
    return person && avatar(this.media, { ...person, mxc: person.avatar });
  }

  #close() {
    this.#found = null;
    this.#stamp = "";
    this.element.hidden = true;
    this.box.removeAttribute("aria-controls");
    this.box.removeAttribute("aria-activedescendant");
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    if (!this.#found || event.isComposing || event.ctrlKey || event.altKey || event.metaKey) return;
    const { options } = this.#found;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      this.#at = (this.#at + step + options.length) % options.length;
      this.#render();
    } else if (event.key === "Escape") {
      this.#dismissed = this.box.value;
      this.#close();
    } else if (event.key === "Tab" && event.shiftKey) {
      return this.#close();
    } else if ((event.key === "Enter" || event.key === "Tab") && !event.shiftKey) {
      // A command that stands there as a whole is sent.
      if (event.key === "Enter" && options[this.#at].whole) return this.#close();
      this.#choose(this.#at);
    } else {
      return;
    }
    event.preventDefault();
  }

  /** @param {number} index */
  #choose(index) {
    const { from = 0, options = [] } = this.#found ?? {};
    const option = options[index];
    this.box.setRangeText(option.text, from, this.box.selectionStart, "end");
    this.onChosen(option);
    this.#dismissed = this.box.value;
    this.box.dispatchEvent(new Event("input"));
  }
}
