/** The signed-in page: the list of rooms beside the open one. */

import { localpart } from "../store/ids.js";
import { avatar } from "./avatar.js";
import { confirmed, isAskingNow } from "./confirm.js";
import { textOf } from "./content.js";
import { Conversation } from "./conversation.js";
import { h, icon } from "./dom.js";
import { MessageMenu, onLongPress } from "./menu.js";
import { ReactionPicker } from "./picker.js";
import { RoomList } from "./roomlist.js";

/** @typedef {import("../account.js").Account} Account */
/** @typedef {import("../types.js").Item} Item */

const ROUTE = /^#\/room\/(.+)$/;
const PHONE = matchMedia("(width < 700px)");

export class Shell {
  #offline = h("p.offline", { role: "status", hidden: true }, h("span.pulse", {}), "Offline, trying again …");
  #toast = h("p.toast", { role: "status", hidden: true });
  #lightbox = h("dialog.lightbox", { "aria-label": "Picture" });
  #toastTimer = 0;
  #begun = false;
  #listening = new AbortController();

  /** @param {Account} account @param {{signOut: () => void}} handlers */
  constructor(account, { signOut }) {
    this.account = account;
    this.conversation = new Conversation(account, {
      back: () => this.showList(),
      onProblem: (text) => this.toast(text),
    });
    this.list = new RoomList(account.rooms, account.media, {
      open: (id) => this.open(id, { focus: true }),
      accept: (id) => this.#attempt(account.accept(id), "You could not join"),
      decline: (id) => this.#attempt(account.decline(id), "The invitation could not be declined"),
    });
    this.picker = new ReactionPicker((eventId, key) => this.#react(eventId, key));
    this.menu = new MessageMenu((action, item, article) => this.#act(action, item, article));
    this.nothing = h("main.nothing", {}, icon("mark"), h("p", {}, "Choose a room to talk to its agent."));
    this.element = this.#build(signOut);
    this.#listen();
  }

  /** @param {() => void} signOut */
  #build(signOut) {
    const { userId, homeserver } = this.account.session;
    const name = localpart(userId);
    const toComposer = (/** @type {Event} */ event) => this.#skip(event);
    const skip = h("a.skip-link", { href: "#composer", onclick: toComposer }, "Skip to the message box");
    const leaving = { type: "button", "aria-label": "Sign out", title: "Sign out", onclick: () => this.#leave(signOut) };
    const me = h("div.me", {},
      avatar(this.account.media, { id: userId, name, mxc: null }),
      h("span.me-name", { title: `${userId} on ${homeserver}` }, userId),
      h("button.sign-out", leaving, icon("out")),
    );
    const brand = h("div.brand", {}, icon("mark"), h("h1", {}, "Letta chat"));
    this.sidebar = h("div.sidebar", { "aria-label": "Rooms and account" }, brand, this.list.element, me);
    this.#lightbox.addEventListener("click", () => this.#lightbox.close());
    const shell = h("div.shell", {},
      skip,
      this.#offline,
      this.sidebar,
      this.conversation.element,
      this.nothing,
      this.#toast,
      this.#lightbox,
    );
    this.#showScreen("list", shell);
    return shell;
  }

  /** On a phone one of the two is all that is there. @param {"list"|"room"} name */
  #showScreen(name, shell = this.element) {
    shell.dataset.screen = name;
    this.sidebar.setAttribute("role", name === "list" && PHONE.matches ? "main" : "complementary");
  }

  #listen() {
    const { signal } = this.#listening;
    this.account.rooms.addEventListener("change", (event) => {
      this.#changed(/** @type {CustomEvent<Set<string>>} */ (event).detail);
    });
    PHONE.addEventListener("change", () => this.#showScreen(this.element.dataset.screen), { signal });
    addEventListener("popstate", () => this.#travelled(), { signal });
    document.addEventListener("keydown", (event) => this.#onKey(event), { signal });
    this.conversation.element.addEventListener("click", (/** @type {MouseEvent} */ event) => this.#onClick(event));
    onLongPress(this.conversation.element, (article) => this.#openMenu(article));
    this.conversation.element.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if ((event.key === "Enter" || event.key === " ") && isSpoiler(event.target)) {
        event.preventDefault();
        this.#onClick(event);
      }
    });
  }

  /** @param {Set<string>} ids of the changed rooms */
  #changed(ids) {
    const open = this.conversation.room;
    if (!open) this.#route();
    else if (!this.account.rooms.get(open.id)) this.#roomGone();
    else if (ids.has(open.id)) this.conversation.render();
    this.#renderList();
    if (!this.#begun) this.#begin();
  }

  /** Whoever came here to write can write at once. */
  #begin() {
    if (!this.account.rooms.ready) return;
    this.#begun = true;
    if (document.activeElement !== document.body) return;
    if (!this.conversation.room) this.list.focus();
    else if (!PHONE.matches) this.conversation.composer.focus();
  }

  #roomGone() {
    this.conversation.close();
    history.replaceState(null, "", location.pathname);
    this.showList();
    this.#route();
  }

  #renderList() {
    const { rooms } = this.account;
    this.list.render(this.conversation.room?.id ?? "");
    const room = this.conversation.room;
    const unread = rooms.unread ? `(${rooms.unread}) ` : "";
    document.title = `${unread}${room ? `${room.name} · ` : ""}Letta chat`;
    this.nothing.hidden = Boolean(room);
  }

  #travelled() {
    this.#route();
    if (this.element.dataset.screen === "list") this.list.focus();
  }

  /** Opens the room the address names; else, where both fit, the first one. */
  #route() {
    const match = ROUTE.exec(location.hash);
    const wanted = match ? this.account.rooms.get(decodeURIComponent(match[1])) : undefined;
    if (wanted?.membership === "join") return this.open(wanted.id, { push: false });
    if (PHONE.matches || match) return this.#showScreen("list");
    const first = this.account.rooms.ordered()[0];
    if (first && !this.conversation.room) this.open(first.id, { push: false });
  }

  /** @param {string} id @param {{push?: boolean, focus?: boolean}} [how] */
  open(id, { push = true, focus = false } = {}) {
    const room = this.account.rooms.get(id);
    if (room?.membership !== "join") return;
    const address = `#/room/${encodeURIComponent(id)}`;
    if (push && location.hash !== address) history.pushState(null, "", address);
    this.picker.close(false);
    this.menu.close(false);
    this.#showScreen("room");
    this.conversation.open(room);
    this.#renderList();
    if (focus && !PHONE.matches) this.conversation.composer.focus();
  }

  showList() {
    this.#showScreen("list");
    if (PHONE.matches && ROUTE.test(location.hash)) history.pushState(null, "", location.pathname);
    this.list.focus();
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (event.altKey && step) {
      event.preventDefault();
      this.#step(step);
    } else if (event.key === "Escape" && !isAskingNow() && !event.defaultPrevented) {
      if (this.conversation.thread.root) this.conversation.closeThread();
      else this.showList();
    }
  }

  /** @param {number} step */
  #step(step) {
    const rooms = this.account.rooms.ordered();
    const at = rooms.findIndex((room) => room.id === this.conversation.room?.id);
    const next = rooms[(at + step + rooms.length) % rooms.length];
    if (next) this.open(next.id, { focus: true });
  }

  /** @param {Event} event */
  #skip(event) {
    event.preventDefault();
    this.conversation.composer.focus();
  }

  /** Everything one can press inside messages. @param {MouseEvent} event */
  #onClick(event) {
    const target = /** @type {HTMLElement} */ (event.target);
    const on = (/** @type {string} */ selector) => /** @type {HTMLElement|null} */ (target.closest(selector));
    const room = this.conversation.room;
    const article = on("article");
    const pressed = on("button, a, summary, .spoiler");
    if (!room) return;
    if (pressed?.matches(".thread-chip")) this.conversation.openThread(pressed.dataset.thread ?? "");
    if (!article) return;
    if (!pressed) article.classList.toggle("active");
    else if (pressed.matches(".reply-in-thread")) this.conversation.openThread(article.dataset.id ?? "");
    else if (pressed.matches(".spoiler")) pressed.toggleAttribute("data-revealed");
    else if (pressed.matches(".add-reaction")) this.picker.toggle(pressed);
    else if (pressed.matches(".more")) this.#openMenu(article);
    // A double click answers once: the second of it takes nothing back.
    else if (pressed.dataset.reaction && event.detail < 2) this.#react(article.dataset.id ?? "", pressed.dataset.reaction);
    else if (pressed.matches(".quote")) this.conversation.reveal(pressed.dataset.target ?? "");
    else if (pressed.matches(".retry")) this.account.outbox.retry(room.id, pressed.dataset.txn ?? "");
    else if (pressed.matches(".discard")) this.account.outbox.discard(room.id, pressed.dataset.txn ?? "");
    else if (pressed.matches(".picture")) this.#enlarge(pressed);
    else if (pressed.dataset.file) this.#save(pressed.dataset.file, pressed.dataset.name ?? "file");
    else if (pressed.matches(".copy")) this.#copy(pressed);
  }

  /** @param {string} eventId @param {string} key */
  #react(eventId, key) {
    const room = this.conversation.room;
    if (room) this.#attempt(this.account.reactions.toggle(room, eventId, key), "The reaction did not get through");
  }

  /** @param {HTMLElement} article a message */
  #openMenu(article) {
    const { room, history } = this.conversation;
    const item = room && history.find(room, article.dataset.id ?? "");
    const opener = /** @type {HTMLElement|null} */ (article.querySelector(".more:not([hidden])"));
    if (item && opener) this.menu.toggle(opener, item, room);
  }

  /** @param {import("./menu.js").Action} action @param {Item} item @param {HTMLElement} article */
  #act(action, item, article) {
    const { room, thread, composer } = this.conversation;
    if (!room) return;
    const box = article.closest(".thread") ? thread.composer : composer;
    if (action === "copy") this.#attempt(navigator.clipboard.writeText(textOf(item)), "The clipboard is closed to this page");
    else if (action === "remove") this.#remove(room, item);
    else box.refer(action, item);
  }

  /** @param {import("../store/room.js").Room} room @param {Item} item */
  async #remove(room, item) {
    const text = "It is taken out of the room for everybody. What an agent has read already it may remember.";
    if (!(await confirmed({ title: "Delete this message?", text, yes: "Delete" }))) return;
    await this.#attempt(this.account.corrections.remove(room, item), "The message could not be deleted");
  }

  /** @param {() => void} signOut */
  async #leave(signOut) {
    const text = "This browser forgets your session. Sign in again with your password, or with a new link.";
    if (await confirmed({ title: "Sign out?", text, yes: "Sign out" })) signOut();
  }

  /** @param {string} mxc @param {string} name */
  #save(mxc, name) {
    this.#attempt(this.account.media.save(mxc, name), "The file could not be fetched");
  }

  /** @param {HTMLElement} picture */
  async #enlarge(picture) {
    const shown = /** @type {HTMLImageElement} */ (picture.querySelector("img"));
    const image = h("img", { src: shown.src, alt: shown.alt });
    this.#lightbox.replaceChildren(image);
    this.#lightbox.showModal();
    // Of a big one a smaller picture is shown until here.
    const whole = this.account.media.picture(shown.dataset.mxc ?? "");
    image.src = await whole.catch(() => shown.src);
  }

  /** @param {HTMLElement} button */
  async #copy(button) {
    const code = button.closest(".code-frame")?.querySelector("pre")?.textContent ?? "";
    await this.#attempt(navigator.clipboard.writeText(code), "The clipboard is closed to this page");
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  }

  /** @param {Promise<unknown>} action @param {string} problem what to say if it fails */
  async #attempt(action, problem) {
    await action.catch((error) => this.toast(`${problem}: ${error.message}`));
  }

  /** @param {string} text */
  toast(text) {
    this.#toast.textContent = text;
    this.#toast.hidden = false;
    clearTimeout(this.#toastTimer);
    this.#toastTimer = setTimeout(() => (this.#toast.hidden = true), 6000);
  }

  /** @param {boolean} online */
  setOnline(online) {
    this.#offline.hidden = online;
  }

  dispose() {
    this.#listening.abort();
    /** @type {HTMLElement} */ (document.getElementById("announcer")).textContent = "";
  }
}

/** @param {EventTarget|null} target */
function isSpoiler(target) {
  return target instanceof HTMLElement && target.matches(".spoiler");
}
