/** The open room: its messages, who is writing, the message box. */

import { Composer } from "../composer.js";
import { History } from "../history.js";
import { avatar } from "./avatar.js";
import { isLive, summaryOf } from "./content.js";
import { h, icon } from "./dom.js";
import { emptyState } from "./empty.js";
import { MessageList } from "./messages.js";
import { Scroll } from "./scroll.js";
import { ThreadPanel } from "./thread.js";
import { STOP, TypingLine } from "./typing.js";

/** @typedef {import("../types.js").Item} Item */
/** @typedef {import("../store/room.js").Room} Room */
/** @typedef {import("../account.js").Account} Account */

export class Conversation {
  /** @type {Room|null} */
  room = null;
  /** @type {Set<string>} messages a screen reader was told of */
  #announced = new Set();
  #header = h("header.room-header", {});
  #more = h("p.loading", { hidden: true }, "Loading earlier messages …");
  #empty = h("div.empty-room", { hidden: true });

  /**
   * @param {Account} account
   * @param {{back: () => void, onProblem: (text: string) => void}} handlers
   */
  constructor(account, { back, onProblem }) {
    this.account = account;
    this.onProblem = onProblem;
    this.history = new History(account.api, account.rooms);
    this.messages = new MessageList(account.media, this.history);
    this.composer = new Composer("composer", account.uploads, { onMessage: (one) => this.#send(one), onProblem });
    this.scroll = new Scroll({ onTop: () => this.#readOlder(), onBottom: () => this.#markSeen() });
    const onStop = (/** @type {string} */ target) => this.#stop(target);
    this.typing = new TypingLine(onStop);
    const onClose = () => this.closeThread();
    this.thread = new ThreadPanel(account, this.history, { onStop, onProblem, onClose });
    this.scroll.content.append(this.#more, this.#empty, this.messages.element);
    const label = "Back to the rooms";
    this.back = h("button.back", { type: "button", "aria-label": label, onclick: back }, icon("back"));
    this.element = h("main.conversation", { hidden: true },
      h("div.room-pane", {}, this.#header, this.scroll.element, this.typing.element, this.composer.element),
      this.thread.element,
    );
    document.addEventListener("visibilitychange", () => this.#markSeen());
  }

  /** @param {Room} room */
  open(room) {
    if (this.room?.id !== room.id) {
      this.room = room;
      this.thread.close();
      delete this.element.dataset.thread;
      this.messages.clear();
      this.#announced = new Set(room.timeline.all().filter((item) => !isLive(item)).map((item) => item.key));
      this.scroll.toBottom();
      this.history.people(room);
    }
    this.element.hidden = false;
    this.render();
  }

  close() {
    this.room = null;
    this.element.hidden = true;
  }

  render() {
    const { room } = this;
    if (!room) return;
    const items = room.timeline.items();
    this.#renderHeader(room);
    const invitation = room.encrypted ? "Encrypted room: write from another client" : `Message ${room.name}`;
    this.composer.show(room.id, invitation, room.encrypted);
    this.scroll.keepingPlace(() => {
      this.#more.hidden = !room.timeline.older;
      this.messages.render(items, room);
    });
    this.scroll.count(items.filter((item) => item.kind !== "renamed" && item.beside !== "trace"));
    const all = room.timeline.all();
    this.typing.update(room, room.typing, all);
    this.thread.render();
    this.#renderEmpty(items, room);
    this.#announce(all, room);
    this.#markSeen();
    if (this.scroll.nearTop) this.#readOlder();
  }

  /** @param {Room} room */
  #renderHeader(room) {
    const state = JSON.stringify([room.id, room.name, room.topic, room.avatar]);
    if (this.#header.dataset.state === state) return;
    this.#header.dataset.state = state;
    const face = { id: room.agentId ?? room.id, name: room.name, mxc: room.avatar };
    this.element.setAttribute("aria-label", `Conversation: ${room.name}`);
    this.#header.replaceChildren(
      this.back,
      avatar(this.account.media, face),
      h("div.room-title", {},
        h("h1", { title: room.fullName }, room.name),
        h("p", { title: room.topic }, room.topic),
      ),
    );
  }

  /** @param {Item[]} items @param {Room} room */
  #renderEmpty(items, room) {
    const empty = !items.length && !room.timeline.older;
    this.#empty.hidden = !empty;
    const state = JSON.stringify([room.id, room.name, room.avatar]);
    if (!empty || this.#empty.dataset.state === state) return;
    this.#empty.dataset.state = state;
    this.#empty.replaceChildren(emptyState(this.account.media, room, (text) => this.composer.suggest(text)));
  }

  /** Reads out what others said, once it is complete. @param {Item[]} items @param {Room} room */
  #announce(items, room) {
    for (const item of items) {
      if (this.#announced.has(item.key) || isLive(item) || !item.id) continue;
      this.#announced.add(item.key);
      const old = Date.now() - item.revisedAt > 60000;
      const quiet = item.kind === "renamed" || item.beside === "trace";
      if (item.sender === room.ownUserId || quiet || old) continue;
      const announcer = /** @type {HTMLElement} */ (document.getElementById("announcer"));
      announcer.textContent = `${room.member(item.sender).name}: ${summaryOf(item)}`;
    }
  }

  #markSeen() {
    const visible = document.visibilityState === "visible" && !this.element.hidden;
    const shown = this.element.offsetParent !== null || getComputedStyle(this.element).display !== "none";
    if (this.room && visible && shown && this.scroll.atBottom) this.account.receipts.seen(this.room);
  }

  async #readOlder() {
    const { room } = this;
    if (!room?.timeline.older) return;
    // While offline the next scroll, or the next sync, tries again.
    await this.history.older(room).catch(() => {});
  }

  /** @param {import("../composer.js").Outgoing} message */
  #send({ content, file }) {
    if (!this.room) return;
    this.scroll.toBottom();
    this.account.outbox.send(this.room.id, content, file);
  }

  /** Stops the agent at what it does. @param {string} target event id */
  #stop(target) {
    if (!this.room) return;
    this.account.reactions.add(this.room, target, STOP).catch((error) => {
      this.onProblem(`The agent could not be stopped: ${error.message}`);
    });
  }

  /** @param {string} root event id */
  openThread(root) {
    if (!this.room) return;
    this.thread.open(this.room, root);
    this.element.dataset.thread = "open";
  }

  closeThread() {
    const root = this.thread.root;
    this.thread.close();
    delete this.element.dataset.thread;
    // Who came by the keyboard goes on where the thread was opened.
    const opener = root && this.messages.find(root)?.querySelector(".thread-chip:not([hidden])");
    if (opener instanceof HTMLElement) opener.focus();
    else this.composer.focus();
  }

  /** Scrolls to the message a reply points to. @param {string} id */
  reveal(id) {
    const element = (this.thread.root && this.thread.messages.find(id)) || this.messages.find(id);
    if (!element) return;
    element.scrollIntoView({ block: "center" });
    element.classList.add("pointed-at");
    setTimeout(() => element.classList.remove("pointed-at"), 1600);
  }
}
