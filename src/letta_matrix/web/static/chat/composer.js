/** The message box: Markdown in, a message event's content out. */

import { messageContent } from "./markdown.js";
import { h, icon } from "./views/dom.js";

const TALLEST = 220;

export class Composer {
  /** @type {Map<string, string>} unsent texts by room */
  #drafts = new Map();
  #roomId = "";
  #box = h("textarea", { id: "composer", rows: "1", enterkeyhint: "send", dir: "auto", maxlength: "60000" });
  #button = h("button.send", { type: "submit", "aria-label": "Send", disabled: true }, icon("send"));

  /** @param {(roomId: string, content: Record<string, string>) => void} onMessage */
  constructor(onMessage) {
    this.onMessage = onMessage;
    this.element = h("form.composer", {}, h("div.composer-box", {}, this.#box, this.#button));
    this.element.addEventListener("submit", (/** @type {Event} */ event) => this.#submit(event));
    this.#box.addEventListener("input", () => this.#changed());
    this.#box.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      const plain = !event.shiftKey && !event.ctrlKey && !event.altKey && !event.metaKey;
      if (event.key === "Enter" && plain && !event.isComposing) this.#submit(event);
    });
  }

  /** @param {import("./store/room.js").Room} room */
  show(room) {
    const { id: roomId, encrypted } = room;
    const invitation = encrypted ? "Encrypted room: write from another client" : `Message ${room.name}`;
    this.#box.placeholder = invitation;
    this.#box.setAttribute("aria-label", invitation);
    this.#box.disabled = encrypted;
    if (roomId === this.#roomId) return;
    this.#roomId = roomId;
    this.#box.value = this.#drafts.get(roomId) ?? "";
    this.#changed();
  }

  /** @param {string} text */
  suggest(text) {
    this.#box.value = text;
    this.#changed();
    this.focus();
  }

  focus() {
    this.#box.focus();
  }

  #changed() {
    this.#drafts.set(this.#roomId, this.#box.value);
    this.#button.disabled = !this.#box.value.trim();
    this.#box.style.height = "auto";
    this.#box.style.height = `${Math.min(this.#box.scrollHeight, TALLEST)}px`;
  }

  /** @param {Event} event */
  #submit(event) {
    event.preventDefault();
    const text = this.#box.value.trim();
    if (!text || !this.#roomId) return;
    this.#box.value = "";
    this.#changed();
    this.onMessage(this.#roomId, messageContent(text));
  }
}
