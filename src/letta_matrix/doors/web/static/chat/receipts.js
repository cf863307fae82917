/** Telling the homeserver what was read. */

const PAUSE = 400;

export class Receipts {
  /** @type {Map<string, string>} room -> newest event seen */
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
    this.#clearCount(room);
    const last = room.timeline.last();
    // Read here or elsewhere, or our own message: the homeserver knows already.
    if (!last?.id || room.isRead || last.sender === room.ownUserId) return;
    room.readUpTo = last.id;
    this.#marked.set(room.id, last.id);
    if (this.#waiting.has(room.id)) return;
    this.#waiting.add(room.id);
    setTimeout(() => this.#mark(room.id), PAUSE);
  }

  /**
   * A person sees the newest message of a thread (specification, threaded read receipts).
   *
   * @param {import("./store/room.js").Room} room
   * @param {string} root
   */
  seenThread(room, root) {
    const { unreadCount: unread } = room;
    const last = room.timeline.threads.events(root).at(-1);
    if (!last || room.isRead || unread.isThreadRead(root)) return;
    unread.threadRead(root, last.event_id);
    // Whoever shows the count may be drawing at this moment.
    queueMicrotask(() => this.rooms.changed([room.id]));
    if (last.sender === room.ownUserId) return;
    const sent = this.api.markThreadRead(room.id, root, last.event_id);
    sent.catch(() => unread.threadUnread(root, last.event_id));
  }

  /** @param {import("./store/room.js").Room} room */
  #clearCount(room) {
    if (!room.unread) return;
    room.unreadCount.clear();
    // Whoever shows the count may be drawing at this moment.
    queueMicrotask(() => this.rooms.changed([room.id]));
  }

  /** @param {string} roomId */
  #mark(roomId) {
    this.#waiting.delete(roomId);
    const id = this.#marked.get(roomId) ?? "";
    this.api.markRead(roomId, id).catch(() => this.#tryAgain(roomId, id));
  }

  /** Lets the next look at the room send the receipt. @param {string} roomId @param {string} id */
  #tryAgain(roomId, id) {
    const room = this.rooms.get(roomId);
    if (room?.readUpTo === id) room.readUpTo = null;
  }
}
