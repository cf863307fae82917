/** A thread beside its room: its first message, the replies, a message box of its own. */

import { Composer } from "../composer.js";
import { threadRelation } from "../store/threads.js";
import { isLive } from "./content.js";
import { h, icon } from "./dom.js";
import { MessageList } from "./messages.js";
import { Scroll } from "./scroll.js";
import { TypingLine } from "./typing.js";

/** @typedef {import("../types.js").Item} Item */
/** @typedef {import("../store/room.js").Room} Room */
/** @typedef {import("../account.js").Account} Account */
/**
 * @typedef {object} Handlers
 * @property {(target: string) => void} onStop
 * @property {(text: string) => void} onProblem
 * @property {() => void} onClose
 */

export class ThreadPanel {
  /** @type {Room|null} */
  #room = null;
  /** @type {string|null} event id of the root; null while closed */
  root = null;
  #scroll = new Scroll({ onTop: () => {}, onBottom: () => {} }, "Messages of the thread");
  #loading = h("p.loading", { hidden: true }, "Loading the thread …");

  /** @param {Account} account @param {import("../history.js").History} history @param {Handlers} handlers */
  constructor(account, history, { onStop, onProblem, onClose }) {
    this.account = account;
    this.history = history;
    this.messages = new MessageList(account.media, history, { inThread: true });
    this.typing = new TypingLine(onStop);
    const onMessage = (/** @type {import("../composer.js").Outgoing} */ message) => this.#send(message);
    this.composer = new Composer("thread-composer", account.uploads, { onMessage, onProblem });
    this.#scroll.content.append(this.#loading, this.messages.element);
    const label = "Close the thread";
    const close = h("button.close", { type: "button", "aria-label": label, title: label, onclick: onClose }, icon("close"));
    this.element = h("aside.thread", { "aria-label": "Thread", hidden: true },
      h("header.thread-header", {}, h("h2", {}, "Thread"), close),
      this.#scroll.element,
      this.typing.element,
      this.composer.element,
    );
  }

  /** @param {Room} room @param {string} root */
  open(room, root) {
    this.#room = room;
    this.root = root;
    this.messages.clear();
    this.element.hidden = false;
    this.#scroll.toBottom();
    this.render();
    this.composer.focus();
  }

  close() {
    this.root = null;
    this.element.hidden = true;
  }

  render() {
    const [room, root] = [this.#room, this.root];
    if (!room || !root) return;
    const replies = room.timeline.thread(root);
    const first = this.history.find(room, root);
    const items = first ? [{ ...first, replies: null }, ...replies] : replies;
    this.composer.show(`${room.id} ${root}`, "Reply in the thread", room.encrypted);
    this.#scroll.keepingPlace(() => {
      this.#loading.hidden = room.timeline.threads.isWhole(root);
      this.messages.render(items, room);
    });
    this.#scroll.count(items);
    this.typing.update(room, isWorkedOn(items, room) ? room.typing : [], items);
    this.#readOlder(room, root);
  }

  /** @param {Room} room @param {string} root */
  async #readOlder(room, root) {
    // While offline the next change tries again.
    await this.history.thread(room, root).catch(() => {});
  }

  /** @param {import("../composer.js").Outgoing} message */
  #send({ content, file }) {
    const [room, root] = [this.#room, this.root];
    if (!room || !root) return;
    const last = room.timeline.thread(root).findLast((item) => item.id)?.id ?? root;
    this.#scroll.toBottom();
    this.account.outbox.send(room.id, { ...content, "m.relates_to": threadRelation(root, last) }, file);
  }
}

/** Typing tells of a room only: whether it is about this thread. @param {Item[]} items @param {Room} room */
function isWorkedOn(items, room) {
  const last = items.findLast((item) => !item.beside);
  return Boolean(last) && (last?.sender === room.ownUserId || isLive(/** @type {Item} */ (last)));
}
