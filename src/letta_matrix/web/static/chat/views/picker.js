/** The small set of reactions to choose from. */

import { h } from "./dom.js";

const CHOICES = ["👍", "👎", "❤️", "🎉", "🤔", "✅", "❌", "🔁"];

export class ReactionPicker {
  /** @type {HTMLElement|null} */
  #opener = null;
  #element = h("div.picker", { role: "menu", "aria-label": "Reactions", hidden: true });

  /** @param {(eventId: string, key: string) => void} onChoice */
  constructor(onChoice) {
    const buttons = CHOICES.map((key) => {
      const choose = () => {
        const id = this.#opener?.closest("article")?.dataset.id;
        this.close();
        if (id) onChoice(id, key);
      };
      return h("button", { type: "button", role: "menuitem", "aria-label": key, onclick: choose }, key);
    });
    this.#element.append(...buttons);
    this.#element.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.#onKey(event));
    document.addEventListener("pointerdown", (event) => {
      const inside = event.target instanceof Node && this.#element.contains(event.target);
      if (!inside && event.target !== this.#opener) this.close(false);
    });
  }

  /** @param {HTMLElement} opener a message's button */
  toggle(opener) {
    if (this.#opener === opener) return this.close();
    this.#opener = opener;
    const article = /** @type {HTMLElement} */ (opener.closest("article"));
    const box = opener.closest(".timeline")?.getBoundingClientRect();
    const below = article.getBoundingClientRect().top - (box?.top ?? 0) < 70;
    this.#element.classList.toggle("below", below);
    article.append(this.#element);
    this.#element.hidden = false;
    this.#element.firstElementChild.focus();
  }

  close(refocus = true) {
    if (!this.#opener) return;
    this.#element.hidden = true;
    this.#element.remove();
    if (refocus) this.#opener.focus();
    this.#opener = null;
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") {
      event.stopPropagation();
      this.close();
    } else if (step) {
      const buttons = [...this.#element.children];
      const at = buttons.indexOf(document.activeElement);
      buttons[(at + step + buttons.length) % buttons.length].focus();
    }
  }
}
