/** The list of rooms. */

import { avatar } from "./avatar.js";
import { summaryOf } from "./content.js";
import { arrange, h, setText } from "./dom.js";
import { listTime } from "./times.js";

/** @typedef {import("../store/room.js").Room} Room */
/** @typedef {import("../store/rooms.js").RoomStore} RoomStore */
/**
 * @typedef {object} Handlers
 * @property {(id: string) => void} open
 * @property {(id: string) => void} accept
 * @property {(id: string) => void} decline
 */

const FILTER_FROM = 12;

export class RoomList {
  /** @type {Map<string, {element: HTMLElement, stamp: string}>} */
  #entries = new Map();
  /** @type {Map<string, HTMLElement>} */
  #sections = new Map();
  #current = "";
  #pointed = false;
  /** @type {string[]} ids of the rooms in the order last shown */
  #order = [];
  #list = h("div.sections", {});
  #empty = h("p.empty-list", {});
  #filter = h("input", { type: "search", placeholder: "Find a room", "aria-label": "Find a room", hidden: true });

  /** @param {RoomStore} rooms @param {import("../media.js").Media} media @param {Handlers} handlers */
  constructor(rooms, media, handlers) {
    this.rooms = rooms;
    this.media = media;
    this.handlers = handlers;
    this.element = h("nav.room-list", { "aria-label": "Rooms" }, this.#filter, this.#list, this.#empty);
    this.#filter.addEventListener("input", () => this.render(this.#current));
    this.element.addEventListener("pointerenter", (/** @type {PointerEvent} */ event) => {
      this.#pointed = event.pointerType === "mouse";
    });
    this.element.addEventListener("pointerleave", () => {
      this.#pointed = false;
      this.render(this.#current);
    });
  }

  /** @param {string} current id of the open room */
  render(current) {
    this.#current = current;
    const sections = this.rooms.sections().map(({ title, rooms }) => ({ title, rooms: this.#steady(rooms) }));
    this.#order = sections.flatMap(({ rooms }) => rooms.map((room) => room.id));
    const count = sections.reduce((sum, section) => sum + section.rooms.length, 0);
    this.#filter.hidden = count < FILTER_FROM;
    const wanted = this.#filter.value.trim().toLocaleLowerCase();
    const shown = sections
      .map(({ title, rooms }) => ({ title, rooms: rooms.filter((room) => matches(room, wanted)) }))
      .filter((section) => section.rooms.length);
    arrange(this.#list, shown.map(({ title, rooms }) => this.#section(title, rooms)));
    this.#empty.hidden = shown.length > 0;
    setText(this.#empty, this.#emptyText(Boolean(wanted)));
  }

  /** Nothing moves away under the pointer; new rooms come last until it leaves. @param {Room[]} rooms */
  #steady(rooms) {
    if (!this.#pointed) return rooms;
    const places = new Map(this.#order.map((id, index) => [id, index]));
    const placeOf = (/** @type {Room} */ room) => places.get(room.id) ?? places.size;
    return [...rooms].sort((one, other) => placeOf(one) - placeOf(other));
  }

  /** @param {boolean} filtered */
  #emptyText(filtered) {
    if (!this.rooms.ready) return "Loading your rooms …";
    if (filtered) return "No room has this name.";
    return "No agents yet. They appear here by themselves as soon as they exist.";
  }

  /** @param {string} title @param {Room[]} rooms */
  #section(title, rooms) {
    const known = this.#sections.get(title);
    const section = known ?? h("section", { "aria-label": title }, h("h2", {}, title), h("ul", {}));
    this.#sections.set(title, section);
    arrange(section.lastElementChild, rooms.map((room) => this.#entry(room)));
    return section;
  }

  /** @param {Room} room */
  #entry(room) {
    const last = room.timeline.lastSaid();
    const preview = last ? summaryOf(last) : room.topic || "Nothing said yet";
    const stamp = JSON.stringify([
      room.name, room.avatar, room.unread, room.membership, room.typing.length,
      preview, room.id === this.#current, last?.sender, last?.ts,
    ]);
    const known = this.#entries.get(room.id) ?? { element: h("li", {}), stamp: "" };
    this.#entries.set(room.id, known);
    if (known.stamp !== stamp) {
      known.stamp = stamp;
      this.#fill(known.element, room, preview);
    }
    return known.element;
  }

  /** @param {HTMLElement} element @param {Room} room @param {string} preview */
  #fill(element, room, preview) {
    const focused = element.contains(document.activeElement);
    const invited = room.membership === "invite";
    element.replaceChildren(invited ? this.#invitation(room) : this.#button(room, preview));
    if (focused) /** @type {HTMLElement|null} */ (element.querySelector("button"))?.focus();
  }

  /** @param {Room} room @param {string} preview */
  #button(room, preview) {
    const current = room.id === this.#current;
    const last = room.timeline.lastSaid();
    const said = last?.sender === room.ownUserId ? `You: ${preview}` : preview;
    const says = room.typing.length ? "is writing …" : said;
    const count = String(room.unread);
    const unread = room.unread > 0 && h("span.unread", { role: "img", "aria-label": `${count} unread` }, count);
    const attributes = {
      type: "button",
      "data-room": room.id,
      "aria-current": current ? "true" : null,
      title: room.fullName,
      onclick: () => this.handlers.open(room.id),
    };
    return h("button.room", attributes,
      this.#avatar(room),
      h("span.room-name", {}, room.name),
      last && h("span.room-time", {}, listTime(last.ts)),
      h(room.typing.length ? "span.preview.writing" : "span.preview", {}, says),
      unread,
    );
  }

  /** @param {Room} room */
  #invitation(room) {
    const from = room.inviter ? `${room.member(room.inviter).name} invites you` : "Invitation";
    return h("div.invitation", {},
      this.#avatar(room),
      h("span.room-name", {}, room.name),
      h("span.preview", {}, from),
      h("span.answers", {},
        h("button.primary", { type: "button", onclick: () => this.handlers.accept(room.id) }, "Join"),
        h("button", { type: "button", onclick: () => this.handlers.decline(room.id) }, "Decline"),
      ),
    );
  }

  /** @param {Room} room */
  #avatar(room) {
    return avatar(this.media, { id: room.agentId ?? room.id, name: room.name, mxc: room.avatar });
  }

  focus() {
    const room = this.#list.querySelector("button[aria-current]") ?? this.#list.querySelector("button");
    room?.focus();
  }
}

/** @param {Room} room @param {string} wanted lower case */
function matches(room, wanted) {
  return room.fullName.toLocaleLowerCase().includes(wanted);
}
