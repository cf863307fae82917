/** The message box: Markdown and files in, message events' contents out. */

import { withSign } from "./commands.js";
import { completions } from "./completions.js";
import { messageContent } from "./markdown.js";
import { alsoMentioning, peopleOf } from "./mentions.js";
import { fileContent } from "./uploads.js";
import { Attachments } from "./views/attachments.js";
import { textOf } from "./views/content.js";
import { h, icon } from "./views/dom.js";
import { Reference } from "./views/reference.js";
import { Suggestions } from "./views/suggestions.js";

/** @typedef {import("./types.js").Item} Item */
/** @typedef {import("./store/room.js").Room} Room */
/**
 * @typedef {object} Outgoing
 * @property {Record<string, any>} content
 * @property {File|null} file is uploaded on the way
 * @property {Item|null} replyTo the message it answers
 */
/**
 * @typedef {object} Handlers
 * @property {(message: Outgoing) => void} onMessage
 * @property {(room: Room) => void} onNames somebody is about to be named: who is there has to be known
 * @property {(text: string) => void} onProblem
 */

const TALLEST = 220;

export class Composer {
  /** @type {Map<string, string>} unsent texts by place */
  #drafts = new Map();
  /** @type {Map<string, string>} names that were chosen from a list, and whose they are */
  #chosen = new Map();
  #place = "";
  /** @type {Room|null} */
  #room = null;
  #sending = false;
  #box;
  #button = h("button.send", { type: "submit", "aria-label": "Send", disabled: true }, icon("send"));

  /** @param {string} id of the text box @param {import("./account.js").Account} account @param {Handlers} handlers */
  constructor(id, account, { onMessage, onNames, onProblem }) {
    this.account = account;
    this.onMessage = onMessage;
    this.onNames = onNames;
    this.onProblem = onProblem;
    this.#box = h("textarea", { id, rows: "1", enterkeyhint: "send", dir: "auto", maxlength: "60000" });
    this.attachments = new Attachments(account.uploads, { onChange: () => this.#changed(), onProblem });
    this.reference = new Reference(() => this.#cancel());
    this.suggestions = new Suggestions(this.#box, account.media, {
      find: (before) => this.#completions(before),
      onChosen: ({ person }) => person && this.#chosen.set(person.name, person.id),
    });
    this.element = h("form.composer", {},
      this.suggestions.element,
      this.reference.element,
      this.attachments.element,
      h("div.composer-box", {}, this.attachments.opener, this.#box, this.#button),
    );
    this.#listen();
  }

  /** @param {string} before the text before the caret */
  #completions(before) {
    if (!this.#room) return null;
    if (before.includes("@")) this.onNames(this.#room);
    return completions(this.account, this.#room, before);
  }

  #listen() {
    this.element.addEventListener("submit", (/** @type {Event} */ event) => this.#submit(event));
    this.#box.addEventListener("input", () => this.#changed());
    // A phone that is turned has other lines, and letters of another size.
    addEventListener("resize", () => this.#fit());
    // The button's size changes only where both come and go.
    new ResizeObserver(() => this.#fit()).observe(this.#button);
    this.#box.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.#onKey(event));
    this.#box.addEventListener("paste", (/** @type {ClipboardEvent} */ event) => {
      const { files = [] } = event.clipboardData ?? {};
      if (!files.length || this.#box.disabled) return;
      event.preventDefault();
      this.attachments.add([...files]);
    });
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    if (event.defaultPrevented) return;
    const plain = !event.shiftKey && !event.ctrlKey && !event.altKey && !event.metaKey;
    if (event.key === "Enter" && plain && !event.isComposing) this.#submit(event);
    if (event.key !== "Escape" || !this.reference.about) return;
    event.preventDefault();
    this.#cancel();
  }

  /**
   * @param {string} place what the draft belongs to
   * @param {Room} room
   * @param {string} invitation
   */
  show(place, room, invitation) {
    this.#box.placeholder = invitation;
    this.#box.setAttribute("aria-label", invitation);
    this.#box.disabled = this.attachments.button.disabled = room.encrypted;
    if (place === this.#place) return this.suggestions.refresh();
    this.#cancel();
    this.#place = place;
    this.#room = room;
    this.#box.value = this.#drafts.get(place) ?? "";
    this.#chosen.clear();
    this.attachments.clear();
    this.#changed();
  }

  /** @param {string} text */
  suggest(text) {
    this.#box.value = text;
    this.#changed();
    this.focus();
  }

  /** The next text answers a message, or replaces one. @param {"reply"|"edit"} kind @param {Item} item */
  refer(kind, item) {
    if (!this.#room || this.#box.disabled) return;
    this.#cancel();
    this.reference.show({ kind, item }, this.#room);
    if (kind === "edit") this.suggest(textOf(item));
    this.focus();
  }

  #cancel() {
    const wasEdit = this.reference.about?.kind === "edit";
    this.reference.clear();
    if (!wasEdit) return;
    this.#box.value = this.#drafts.get(this.#place) ?? "";
    this.#changed();
  }

  focus() {
    this.#box.focus();
  }

  #changed() {
    const edits = this.reference.about?.kind === "edit";
    if (!edits) this.#drafts.set(this.#place, this.#box.value);
    this.attachments.button.hidden = edits;
    this.#button.disabled = !this.#box.value.trim() && (edits || this.attachments.isEmpty);
    this.#fit();
  }

  #fit() {
    // What is not shown has no height.
    if (!this.#box.offsetParent) return;
    this.#box.style.height = "auto";
    this.#box.style.height = `${Math.min(this.#box.scrollHeight, TALLEST)}px`;
  }

  /** @param {Event} event */
  async #submit(event) {
    event.preventDefault();
    const [text, room, about] = [this.#box.value.trim(), this.#room, this.reference.about];
    if (this.#button.disabled || !room || this.#sending) return;
    if (about?.kind === "edit") return this.#edit(room, about.item, this.#contentOf(room, text));
    const files = this.attachments.take();
    const answered = about?.item.sender;
    const said = text ? this.#contentOf(room, withSign(text, this.account.commands, room)) : {};
    const content = answered && answered !== room.ownUserId ? alsoMentioning(said, answered) : said;
    this.#box.value = "";
    this.#chosen.clear();
    this.#cancel();
    this.#changed();
    const replyTo = about?.item ?? null;
    if (!files.length) return this.onMessage({ content, file: null, replyTo });
    this.#sending = true;
    // Sent as one: what is said stands with the last file, whose message is then answered.
    const contents = await Promise.all(files.map(fileContent));
    this.#sending = false;
    contents.forEach((named, index) => {
      const isLast = index === files.length - 1;
      const whole = { ...named, ...(isLast && content), msgtype: named.msgtype };
      this.onMessage({ content: whole, file: files[index], replyTo: isLast ? replyTo : null });
    });
  }

  /** @param {Room} room @param {Item} item @param {Record<string, any>} content */
  async #edit(room, item, content) {
    this.#sending = true;
    try {
      await this.account.corrections.edit(room, item, content);
      if (this.reference.about?.item === item) this.#cancel();
    } catch (error) {
      this.onProblem(`The message could not be changed: ${/** @type {Error} */ (error).message}`);
    } finally {
      this.#sending = false;
    }
  }

  /** @param {Room} room @param {string} text */
  #contentOf(room, text) {
    const people = peopleOf(room, this.account.rooms.botUserId).filter(({ id, name }) => {
      return (this.#chosen.get(name) ?? id) === id;
    });
    return messageContent(text, people);
  }
}
