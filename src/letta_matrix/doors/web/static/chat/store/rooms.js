/** Every room of the account, and what of them a list shows. */

import { isAgentId } from "./ids.js";
import { Room } from "./room.js";

/** @typedef {{title: string, rooms: Room[]}} Section */

const AGENTS_SPACE = "Letta Agents";

export class RoomStore extends EventTarget {
  /** @type {Map<string, Room>} */
  #rooms = new Map();
  /** Whether the first sync answer has come. */
  ready = false;

  /** @param {string} ownUserId @param {string} botUserId the appservice's bot */
  constructor(ownUserId, botUserId) {
    super();
    this.ownUserId = ownUserId;
    this.botUserId = botUserId;
  }

  /** @param {any} answer a sync answer */
  apply(answer) {
    const { join = {}, invite = {}, leave = {} } = answer.rooms ?? {};
    for (const [id, data] of Object.entries(join)) this.#room(id).apply(data);
    for (const [id, data] of Object.entries(invite)) this.#room(id).applyInvite(data);
    for (const id of Object.keys(leave)) this.#rooms.delete(id);
    this.ready = true;
    this.changed([...Object.keys(join), ...Object.keys(invite), ...Object.keys(leave)]);
  }

  /** @param {string} id */
  #room(id) {
    const room = this.#rooms.get(id) ?? new Room(id, this.ownUserId);
    this.#rooms.set(id, room);
    return room;
  }

  /** Tells everybody who shows these rooms. @param {string[]} ids */
  changed(ids) {
    this.dispatchEvent(new CustomEvent("change", { detail: new Set(ids) }));
  }

  /** @param {string} id @returns {Room|undefined} */
  get(id) {
    return this.#rooms.get(id);
  }

  /** @param {string} id */
  forget(id) {
    if (this.#rooms.delete(id)) this.changed([id]);
  }

  /** Invitations to accept without asking: by our bot, and by agents of its server. */
  trustedInvites() {
    const server = this.botUserId.split(":").slice(1).join(":");
    return this.#invites().filter(({ inviter }) => {
      if (!inviter || !server) return false;
      return inviter === this.botUserId || (isAgentId(inviter) && inviter.endsWith(`:${server}`));
    });
  }

  #invites() {
    return [...this.#rooms.values()].filter((room) => room.membership === "invite");
  }

  /** The rooms in the order of a list: invitations, each space, everything else. @returns {Section[]} */
  sections() {
    const joined = [...this.#rooms.values()].filter((room) => room.membership === "join");
    const rest = new Set(joined.filter((room) => !room.isSpace).sort(byActivity));
    /** @type {Section[]} */
    const sections = [{ title: "Invitations", rooms: this.#invites() }];
    for (const space of joined.filter((room) => room.isSpace).sort(agentsFirst)) {
      const children = new Set(space.children);
      const rooms = [...rest].filter((room) => children.has(room.id));
      for (const room of rooms) rest.delete(room);
      sections.push({ title: space.name, rooms });
    }
    sections.push({ title: "Other rooms", rooms: [...rest] });
    return sections.filter((section) => section.rooms.length);
  }

  /** Joined rooms in the order of the list. @returns {Room[]} */
  ordered() {
    const rooms = this.sections().flatMap((section) => section.rooms);
    return rooms.filter((room) => room.membership === "join");
  }

  get unread() {
    return this.ordered().reduce((sum, room) => sum + room.unread, 0);
  }
}

/** @param {Room} one @param {Room} other */
function byActivity(one, other) {
  return other.activity - one.activity || one.name.localeCompare(other.name);
}

/** @param {Room} one @param {Room} other */
function agentsFirst(one, other) {
  const rank = (/** @type {Room} */ room) => (room.name === AGENTS_SPACE ? 0 : 1);
  return rank(one) - rank(other) || one.name.localeCompare(other.name);
}
