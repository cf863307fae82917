/** The small set of reactions to choose from. */

import { h } from "./dom.js";

const CHOICES = ["👍", "👎", "❤️", "🎉", "🤔", "✅", "❌", "🔁"];

const GAP = 6;

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
    this.#element.addEventListener("focusout", (/** @type {FocusEvent} */ event) => {
      if (!this.#holds(event.relatedTarget)) this.close(false);
    });
    document.addEventListener("pointerdown", (event) => {
      if (!this.#holds(event.target)) this.close(false);
    });
  }

  /** @param {EventTarget|null} target in the picker, or the button that opened it */
  #holds(target) {
    const node = target instanceof Node ? target : null;
    return this.#element.contains(node) || Boolean(this.#opener?.contains(node));
  }

  /** @param {HTMLElement} opener a message's button */
  toggle(opener) {
    if (this.#opener === opener) return this.close();
    this.#opener = opener;
    const article = /** @type {HTMLElement} */ (opener.closest("article"));
    article.append(this.#element);
    this.#element.hidden = false;
    this.#place(article, opener);
    this.#element.firstElementChild.focus();
  }

  /**
   * Beside the message where there is room; else above it, below it, or right at the button.
   *
   * @param {HTMLElement} article
   * @param {HTMLElement} opener
   */
  #place(article, opener) {
    const [frame, button] = [article.getBoundingClientRect(), opener.getBoundingClientRect()];
    const pane = (article.closest(".timeline") ?? article).getBoundingClientRect();
    const { width, height } = this.#element.getBoundingClientRect();
    const own = article.matches(".own");
    const beside = own ? button.left - GAP - width : button.right + GAP;
    const fits = beside >= frame.left && beside + width <= frame.right;
    const aligned = own ? button.left : button.right - width;
    const left = fits ? beside : between(frame.left, aligned, frame.right - width);
    let top = Math.min(button.top - GAP, pane.bottom - height - GAP);
    if (!fits) top = [frame.top - height - GAP, frame.bottom + GAP].find(visible) ?? button.bottom + GAP;
    Object.assign(this.#element.style, { left: `${left - frame.left}px`, top: `${top - frame.top}px` });

    /** @param {number} y */
    function visible(y) {
      return y >= pane.top && y + height <= pane.bottom;
    }
  }

  close(refocus = true) {
    if (!this.#opener) return;
    const opener = this.#opener;
    this.#opener = null;
    this.#element.hidden = true;
    this.#element.remove();
    if (refocus) opener.focus();
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

/** @param {number} least @param {number} value @param {number} most */
function between(least, value, most) {
  return Math.max(least, Math.min(value, most));
}
