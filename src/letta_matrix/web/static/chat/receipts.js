/** Telling the homeserver what was read. */

const PAUSE = 400;

export class Receipts {
  /** @type {Map<string, string>} room -> newest event marked as read */
  #marked = new Map();
  /** @type {Set<string>} rooms whose receipt waits to be sent */
  #waiting = new Set();

  /**
   * @param {import("./api.js").Api} api
   * @param {import("./store/rooms.js").RoomStore} rooms
   */
  constructor(api, rooms) {
    this.api = api;
    this.rooms = rooms;
  }

  /** A person sees the newest message of a room. @param {import("./store/room.js").Room} room */
  seen(room) {
    const last = room.timeline.last();
    if (!last?.id || this.#marked.get(room.id) === last.id) return;
    const first = !this.#marked.has(room.id);
    this.#marked.set(room.id, last.id);
    // Nothing unread, or our own message: the homeserver knows already.
    if (!room.unread && (first || last.sender === room.ownUserId)) return;
    room.unread = 0;
    if (this.#waiting.has(room.id)) return;
    this.#waiting.add(room.id);
    setTimeout(() => this.#mark(room.id), PAUSE);
  }

  /** @param {string} roomId */
  #mark(roomId) {
    this.#waiting.delete(roomId);
    const id = this.#marked.get(roomId);
    if (id) this.api.markRead(roomId, id).catch(() => this.#marked.delete(roomId));
  }
}
