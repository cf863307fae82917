/** A thread beside its room: its first message, the replies, a message box of its own. */

import { Composer } from "../composer.js";
import { threadRelation, threadReplyRelation } from "../store/threads.js";
import { isWorkedOn, queued } from "../store/turns.js";
import { h, icon } from "./dom.js";
import { MessageList } from "./messages.js";
import { Scroll } from "./scroll.js";
import { TypingLine } from "./typing.js";
import { WaitingBar } from "./waiting.js";

/** @typedef {import("../types.js").Item} Item */
/** @typedef {import("../store/room.js").Room} Room */
/** @typedef {import("../account.js").Account} Account */
/**
 * @typedef {object} Handlers
 * @property {(target: string) => void} onStop
 * @property {(question: Item) => void} onShow
 * @property {(text: string) => void} onProblem
 * @property {() => void} onClose
 */

export class ThreadPanel {
  /** @type {Room|null} */
  #room = null;
  /** @type {string|null} event id of the root; null while closed */
  root = null;
  /** Whether an agent is at what is said in it. */
  isBusy = false;
  #scroll = new Scroll({ onTop: () => {}, onBottom: () => this.markSeen() }, "Messages of the thread");
  #loading = h("p.loading", { hidden: true }, "Loading the thread …");

  /** @param {Account} account @param {import("../history.js").History} history @param {Handlers} handlers */
  constructor(account, history, { onStop, onShow, onProblem, onClose }) {
    this.account = account;
    this.history = history;
    this.messages = new MessageList(account.media, history, { inThread: true });
    this.typing = new TypingLine(onStop);
    this.waiting = new WaitingBar(onShow, (id) => this.messages.find(id));
    const onMessage = (/** @type {import("../composer.js").Outgoing} */ message) => this.#send(message);
    this.composer = new Composer("thread-composer", account, {
      onMessage,
      onNames: (one) => history.people(one, { large: true }),
      onProblem,
    });
    this.#scroll.content.append(this.#loading, this.messages.element);
    const label = "Close the thread";
    const close = h("button.close", { type: "button", "aria-label": label, title: label, onclick: onClose }, icon("close"));
    this.element = h("aside.thread", { "aria-label": "Thread", hidden: true },
      h("header.thread-header", {}, h("h2", {}, "Thread"), close),
      this.#scroll.element,
      this.typing.element,
      this.waiting.element,
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
    this.isBusy = false;
    this.element.hidden = true;
  }

  render() {
    const [room, root] = [this.#room, this.root];
    if (!room || !root) return;
    const replies = room.timeline.thread(root);
    const first = this.history.find(room, root);
    const items = first ? [{ ...first, replies: null }, ...replies] : replies;
    // Where an agent answers everything, the first message was answered in the room.
    const said = room.answersAll ? replies : items;
    this.isBusy = isWorkedOn(said, room);
    const writers = this.isBusy ? room.typing : [];
    this.composer.show(`${room.id} ${root}`, room, "Reply in the thread");
    this.#scroll.keepingPlace(() => {
      this.#loading.hidden = room.timeline.threads.isWhole(root);
      this.messages.render(items, room, queued(room, writers, said));
    });
    this.#scroll.count(items);
    this.typing.update(room, writers, said);
    this.waiting.update(room, replies);
    this.#readOlder(room, root);
  }

  /** What stands on the screen is read. */
  markSeen() {
    const visible = document.visibilityState === "visible" && this.element.offsetParent !== null;
    if (this.#room && this.root && visible && this.#scroll.atBottom) {
      this.account.receipts.seenThread(this.#room, this.root);
    }
  }

  /** @param {Room} room @param {string} root */
  async #readOlder(room, root) {
    // While offline the next change tries again.
    await this.history.thread(room, root).catch(() => {});
  }

  /** @param {import("../composer.js").Outgoing} message */
  #send({ content, file, replyTo }) {
    const [room, root] = [this.#room, this.root];
    if (!room || !root) return;
    const last = room.timeline.thread(root).findLast((item) => item.id)?.id ?? root;
    const relation = replyTo?.id ? threadReplyRelation(root, replyTo.id) : threadRelation(root, last);
    this.#scroll.toBottom();
    this.account.outbox.send(room.id, { ...content, "m.relates_to": relation }, file);
  }
}
