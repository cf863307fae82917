/** The open room: its messages, who is writing, the message box. */

import { Composer } from "../composer.js";
import { History } from "../history.js";
import { isAgentId } from "../store/ids.js";
import { isLive } from "../store/live.js";
import { replyRelation } from "../store/threads.js";
import { isWorkedOn, queued } from "../store/turns.js";
import { avatar } from "./avatar.js";
import { summaryOf } from "./content.js";
import { h, icon } from "./dom.js";
import { emptyState } from "./empty.js";
import { MessageList } from "./messages.js";
import { Scroll } from "./scroll.js";
import { ThreadPanel } from "./thread.js";
import { STOP, TypingLine } from "./typing.js";
import { WaitingBar } from "./waiting.js";

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
    this.composer = new Composer("composer", account, {
      onMessage: (one) => this.#send(one),
      onNames: (room) => this.history.people(room, { large: true }),
      onProblem,
    });
    this.scroll = new Scroll({ onTop: () => this.#readOlder(), onBottom: () => this.#markSeen() });
    const onStop = (/** @type {string} */ target) => this.#stop(target);
    const onShow = (/** @type {Item} */ question) => this.#showQuestion(question);
    this.typing = new TypingLine(onStop);
    this.waiting = new WaitingBar(onShow, (id) => this.messages.find(id));
    const onClose = () => this.closeThread();
    this.thread = new ThreadPanel(account, this.history, { onStop, onShow, onProblem, onClose });
    this.scroll.content.append(this.#more, this.#empty, this.messages.element);
    const label = "Back to the rooms";
    this.back = h("button.back", { type: "button", "aria-label": label, onclick: back }, icon("back"));
    this.pane = h("div.room-pane", {},
      this.#header,
      this.scroll.element,
      this.typing.element,
      this.waiting.element,
      this.composer.element,
    );
    this.element = h("main.conversation", { hidden: true }, this.pane, this.thread.element);
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
    this.composer.show(room.id, room, invitation(room));
    const all = room.timeline.all();
    // Elsewhere each question begins a thread, and none waits for another.
    const waiting = room.answersAll ? queued(room, room.typing, items) : new Set();
    this.scroll.keepingPlace(() => {
      this.#more.hidden = !room.timeline.older;
      this.messages.render(items, room, waiting);
    });
    this.scroll.count(items.filter((item) => item.kind !== "renamed" && item.beside !== "trace"));
    this.thread.render();
    this.#renderWork(room, all);
    this.#renderEmpty(items, room);
    this.#announce(all, room);
    this.#markSeen();
    if (this.scroll.nearTop) this.#readOlder();
  }

  /** What an open thread shows itself is left to it. @param {Room} room @param {Item[]} all */
  #renderWork(room, all) {
    const { root, isBusy } = this.thread;
    const here = root ? all.filter((item) => item.thread !== root) : all;
    const elsewhere = isBusy && !isWorkedOn(here, room);
    this.typing.update(room, elsewhere ? room.typing.filter((id) => !isAgentId(id)) : room.typing, here);
    this.waiting.update(room, here);
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
    const state = JSON.stringify([room.id, room.name, room.avatar, room.answersAll]);
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
    // Hidden behind a thread, or on a phone behind the list of rooms.
    const shown = this.pane.offsetParent !== null && getComputedStyle(this.pane).visibility === "visible";
    if (this.room && visible && shown && this.scroll.atBottom) this.account.receipts.seen(this.room);
    this.thread.markSeen();
  }

  async #readOlder() {
    const { room } = this;
    if (!room?.timeline.older) return;
    // While offline the next scroll, or the next sync, tries again.
    await this.history.older(room).catch(() => {});
  }

  /** @param {import("../composer.js").Outgoing} message */
  #send({ content, file, replyTo }) {
    if (!this.room) return;
    const relation = replyTo?.id && { "m.relates_to": replyRelation(replyTo.id) };
    this.scroll.toBottom();
    this.account.outbox.send(this.room.id, { ...content, ...relation }, file);
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
    this.render();
  }

  closeThread() {
    const root = this.thread.root;
    this.thread.close();
    delete this.element.dataset.thread;
    this.render();
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

  /** @param {Item} question */
  #showQuestion({ id, thread }) {
    if (!id) return;
    if (thread && this.thread.root !== thread) this.openThread(thread);
    this.reveal(id);
    const shown = (this.thread.root && this.thread.messages.find(id)) || this.messages.find(id);
    /** @type {HTMLElement|null|undefined} */ (shown?.querySelector(".answer"))?.focus({ preventScroll: true });
  }
}

/** What the message box says while nothing is written. @param {Room} room */
function invitation(room) {
  if (room.encrypted) return "Encrypted room: write from another client";
  const isNamed = room.agentId && !room.answersAll;
  // Short enough for one line of a phone.
  return isNamed ? "Message: @ names an agent" : `Message ${room.name}`;
}
