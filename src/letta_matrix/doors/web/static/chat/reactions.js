/** Our own reactions: sent once, taken back once, however often one clicks before that is seen. */

import { MatrixError, newTransactionId } from "./api.js";

/** @typedef {import("./store/room.js").Room} Room */

export class Reactions {
  /** @type {Set<string>} reactions on their way */
  #running = new Set();

  /**
   * @param {import("./api.js").Api} api
   * @param {import("./store/rooms.js").RoomStore} rooms
   */
  constructor(api, rooms) {
    this.api = api;
    this.rooms = rooms;
  }

  /** Adds our reaction, or takes it back. @param {Room} room @param {string} eventId @param {string} key */
  async toggle(room, eventId, key) {
    const own = ownReaction(room, eventId, key);
    await this.#once(room, eventId, key, own, () => {
      return own ? this.#redact(room, own) : this.#send(room, eventId, key);
    });
  }

  /** Adds our reaction unless it is there. @param {Room} room @param {string} eventId @param {string} key */
  async add(room, eventId, key) {
    if (ownReaction(room, eventId, key)) return;
    await this.#once(room, eventId, key, null, () => this.#send(room, eventId, key));
  }

  /**
   * @param {Room} room @param {string} eventId @param {string} key
   * @param {string|null} own the reaction as it is shown: a click means to change that
   * @param {() => Promise<void>} act
   */
  async #once(room, eventId, key, own, act) {
    // A sync can bring what was sent before its answer comes: then it may be taken back.
    const name = JSON.stringify([room.id, eventId, key, own]);
    if (this.#running.has(name)) return;
    this.#running.add(name);
    try {
      await act();
    } finally {
      this.#running.delete(name);
      this.rooms.changed([room.id]);
    }
  }

  /** @param {Room} room @param {string} eventId @param {string} key */
  async #send(room, eventId, key) {
    const content = { "m.relates_to": { rel_type: "m.annotation", event_id: eventId, key } };
    try {
      const answer = await this.api.send(room.id, "m.reaction", newTransactionId(), content);
      const event = { event_id: answer.event_id, type: "m.reaction", sender: room.ownUserId, content };
      // Shown before the next sync brings it: another click means taking it back.
      room.timeline.relations.take({ ...event, origin_server_ts: Date.now() });
    } catch (error) {
      // Made from elsewhere, and not at hand here.
      if (!(error instanceof MatrixError) || error.code !== "M_DUPLICATE_ANNOTATION") throw error;
    }
  }

  /** @param {Room} room @param {string} own the reaction's event id */
  async #redact(room, own) {
    await this.api.redact(room.id, own, newTransactionId());
    room.timeline.relations.redact(own);
  }
}

/** @param {Room} room @param {string} eventId @param {string} key */
function ownReaction(room, eventId, key) {
  const reactions = room.timeline.relations.reactionsOf(eventId);
  return reactions.find((one) => one.key === key)?.own ?? null;
}
