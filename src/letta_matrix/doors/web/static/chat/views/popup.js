/** A small menu that opens at a message's button, in the message. */

import { h } from "./dom.js";

const GAP = 6;

export class Popup {
  /** @type {HTMLElement|null} */
  #opener = null;
  #element;

  /** @param {string} tag with classes @param {string} label @param {{back: string, on: string}} keys that go about in it */
  constructor(tag, label, { back, on }) {
    /** @type {Record<string, number>} */
    this.steps = { [back]: -1, [on]: 1 };
    this.#element = h(tag, { role: "menu", "aria-label": label, hidden: true });
    this.#element.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.#onKey(event));
    this.#element.addEventListener("focusout", (/** @type {FocusEvent} */ event) => {
      if (!this.#holds(event.relatedTarget)) this.close(false);
    });
    document.addEventListener("pointerdown", (event) => {
      if (!this.#holds(event.target)) this.close(false);
    });
  }

  /** @param {EventTarget|null} target in the popup, or the button that opened it */
  #holds(target) {
    const node = target instanceof Node ? target : null;
    return this.#element.contains(node) || Boolean(this.#opener?.contains(node));
  }

  /** @param {HTMLElement} opener a message's button @param {HTMLElement[]} items buttons */
  toggle(opener, items) {
    if (this.#opener === opener) return this.close();
    this.#opener = opener;
    const article = /** @type {HTMLElement} */ (opener.closest("article"));
    this.#element.replaceChildren(...items);
    article.append(this.#element);
    this.#element.hidden = false;
    opener.setAttribute("aria-expanded", "true");
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
    opener.removeAttribute("aria-expanded");
    if (refocus) opener.focus();
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const step = this.steps[event.key];
    if (event.key === "Escape") {
      event.stopPropagation();
      this.close();
    } else if (step) {
      event.preventDefault();
      const buttons = [...this.#element.children];
      const at = buttons.indexOf(document.activeElement);
      buttons[(at + step + buttons.length) % buttons.length].focus();
      // Not for the list of messages around it.
      event.stopPropagation();
    }
  }
}

/** @param {number} least @param {number} value @param {number} most */
function between(least, value, most) {
  return Math.max(least, Math.min(value, most));
}
