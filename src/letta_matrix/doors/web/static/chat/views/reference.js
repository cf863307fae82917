/** What the text in a message box is about: the message it answers, or the one it replaces. */

import { summaryOf } from "./content.js";
import { h, icon } from "./dom.js";

/** @typedef {import("../types.js").Item} Item */
/** @typedef {import("../store/room.js").Room} Room */
/** @typedef {{kind: "reply"|"edit", item: Item}} About */

export class Reference {
  /** @type {About|null} */
  about = null;
  #sign = h("span.sign", {});
  #title = h("strong", {});
  #words = h("span.words", {});

  /** @param {() => void} onCancel */
  constructor(onCancel) {
    const attributes = { type: "button", "aria-label": "Cancel", title: "Cancel", onclick: onCancel };
    const cancel = h("button.remove", attributes, icon("close"));
    this.element = h("div.reference", { role: "status", hidden: true }, this.#sign, this.#title, this.#words, cancel);
  }

  /** @param {About} about @param {Room} room */
  show(about, room) {
    this.about = about;
    const { kind, item } = about;
    this.#sign.replaceChildren(icon(kind));
    const name = item.sender === room.ownUserId ? "yourself" : room.member(item.sender).name;
    this.#title.textContent = kind === "edit" ? "Editing your message" : `Replying to ${name}`;
    this.#words.textContent = summaryOf(item);
    this.element.hidden = false;
  }

  clear() {
    this.about = null;
    this.element.hidden = true;
  }
}
