/** The message box: Markdown and files in, message events' contents out. */

import { messageContent } from "./markdown.js";
import { fileContent } from "./uploads.js";
import { Attachments } from "./views/attachments.js";
import { h, icon } from "./views/dom.js";

/** @typedef {{content: Record<string, any>, file: File|null}} Outgoing a file is uploaded on the way */
/**
 * @typedef {object} Handlers
 * @property {(message: Outgoing) => void} onMessage
 * @property {(text: string) => void} onProblem
 */

const TALLEST = 220;

export class Composer {
  /** @type {Map<string, string>} unsent texts by place */
  #drafts = new Map();
  #place = "";
  #sending = false;
  #box;
  #button = h("button.send", { type: "submit", "aria-label": "Send", disabled: true }, icon("send"));

  /** @param {string} id of the text box @param {import("./uploads.js").Uploads} uploads @param {Handlers} handlers */
  constructor(id, uploads, { onMessage, onProblem }) {
    this.onMessage = onMessage;
    this.#box = h("textarea", { id, rows: "1", enterkeyhint: "send", dir: "auto", maxlength: "60000" });
    this.attachments = new Attachments(uploads, { onChange: () => this.#changed(), onProblem });
    this.element = h("form.composer", {},
      this.attachments.element,
      h("div.composer-box", {}, this.attachments.opener, this.#box, this.#button),
    );
    this.#listen();
  }

  #listen() {
    this.element.addEventListener("submit", (/** @type {Event} */ event) => this.#submit(event));
    this.#box.addEventListener("input", () => this.#changed());
    this.#box.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      const plain = !event.shiftKey && !event.ctrlKey && !event.altKey && !event.metaKey;
      if (event.key === "Enter" && plain && !event.isComposing) this.#submit(event);
    });
    this.#box.addEventListener("paste", (/** @type {ClipboardEvent} */ event) => {
      const { files = [] } = event.clipboardData ?? {};
      if (!files.length || this.#box.disabled) return;
      event.preventDefault();
      this.attachments.add([...files]);
    });
  }

  /**
   * @param {string} place what the draft belongs to
   * @param {string} invitation
   * @param {boolean} closed whether nobody can write here
   */
  show(place, invitation, closed) {
    this.#box.placeholder = invitation;
    this.#box.setAttribute("aria-label", invitation);
    this.#box.disabled = this.attachments.button.disabled = closed;
    if (place === this.#place) return;
    this.#place = place;
    this.#box.value = this.#drafts.get(place) ?? "";
    this.attachments.clear();
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
    this.#drafts.set(this.#place, this.#box.value);
    this.#button.disabled = !this.#box.value.trim() && this.attachments.isEmpty;
    this.#box.style.height = "auto";
    this.#box.style.height = `${Math.min(this.#box.scrollHeight, TALLEST)}px`;
  }

  /** @param {Event} event */
  async #submit(event) {
    event.preventDefault();
    const text = this.#box.value.trim();
    if ((!text && this.attachments.isEmpty) || !this.#place || this.#sending) return;
    const files = this.attachments.take();
    this.#box.value = "";
    this.#changed();
    if (!files.length) return this.onMessage({ content: messageContent(text), file: null });
    this.#sending = true;
    // Sent as one: what is said stands with the last file, whose message is then answered.
    const contents = await Promise.all(files.map(fileContent));
    this.#sending = false;
    contents.forEach((content, index) => {
      const words = text && index === files.length - 1 ? messageContent(text) : {};
      const { msgtype } = content;
      this.onMessage({ content: { ...content, ...words, msgtype }, file: files[index] });
    });
  }
}
