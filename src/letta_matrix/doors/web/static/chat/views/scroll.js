/** A conversation's scrolling: stays at the end, or where the reader is. */

import { h, icon } from "./dom.js";

/** @typedef {import("../types.js").Item} Item */

const NEAR_BOTTOM = 60;
const NEAR_TOP = 600;

export class Scroll {
  atBottom = true;
  #lastTop = 0;
  /** @type {string|null} the newest message when the reader was last at the end */
  #seenKey = null;
  content = h("div.timeline-content", {});
  #label = h("span", {});
  #jump = h("button.jump", { type: "button", hidden: true }, icon("down"), this.#label);
  #pane;

  /** @param {{onTop: () => void, onBottom: () => void}} handlers @param {string} [label] */
  constructor({ onTop, onBottom }, label = "Messages") {
    this.onTop = onTop;
    this.onBottom = onBottom;
    const attributes = { role: "log", "aria-label": label, "aria-live": "off", tabindex: "0" };
    this.#pane = h("div.timeline", attributes, this.content);
    this.element = h("div.timeline-frame", {}, this.#pane, this.#jump);
    this.#pane.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.#jump.addEventListener("click", () => this.toBottom());
    const resized = new ResizeObserver(() => this.#stay());
    resized.observe(this.#pane);
    resized.observe(this.content);
  }

  get nearTop() {
    return this.#pane.scrollTop < NEAR_TOP && this.#pane.clientHeight > 0;
  }

  #scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.#pane;
    if (!clientHeight) return;
    const near = scrollHeight - scrollTop - clientHeight < NEAR_BOTTOM;
    // Content that grows leaves the end behind as well: only going up means leaving it.
    if (near || scrollTop < this.#lastTop) this.atBottom = near;
    this.#lastTop = scrollTop;
    this.#jump.hidden = this.atBottom;
    if (this.atBottom) this.onBottom();
    if (this.nearTop) this.onTop();
  }

  #stay() {
    if (this.atBottom) this.#pane.scrollTop = this.#pane.scrollHeight;
  }

  toBottom() {
    this.atBottom = true;
    this.#jump.hidden = true;
    this.#stay();
  }

  /**
   * Changes the content so that what the reader looks at stays where it is.
   *
   * @param {() => void} change
   */
  keepingPlace(change) {
    const anchor = this.atBottom ? null : this.#firstVisible();
    const before = anchor?.getBoundingClientRect().top ?? 0;
    change();
    if (anchor?.isConnected) this.#pane.scrollTop += anchor.getBoundingClientRect().top - before;
    this.#stay();
  }

  /** @returns {Element|undefined} */
  #firstVisible() {
    const top = this.#pane.getBoundingClientRect().top;
    const messages = [...this.content.querySelectorAll("article")];
    return messages.find((message) => message.getBoundingClientRect().bottom > top);
  }

  /** Says on the button how much is new. @param {Item[]} items */
  count(items) {
    if (this.atBottom) this.#seenKey = items.at(-1)?.key ?? null;
    const seen = items.findIndex((item) => item.key === this.#seenKey);
    const fresh = seen < 0 ? 0 : items.length - 1 - seen;
    this.#label.textContent = fresh ? `${fresh} new ${fresh > 1 ? "messages" : "message"}` : "";
    this.#jump.setAttribute("aria-label", this.#label.textContent || "Jump to the newest message");
  }
}
