/** Our messages on their way: one after the other in each room, shown at once. */

import { MatrixError, newTransactionId } from "./api.js";
import { UploadProblem } from "./uploads.js";

const MOST_TRIES = 4;

export class Outbox {
  /** @type {Map<string, Promise<void>>} the end of each room's queue */
  #queues = new Map();

  /**
   * @param {import("./api.js").Api} api
   * @param {import("./store/rooms.js").RoomStore} rooms
   * @param {import("./uploads.js").Uploads} uploads
   */
  constructor(api, rooms, uploads) {
    this.api = api;
    this.rooms = rooms;
    this.uploads = uploads;
  }

  /**
   * @param {string} roomId
   * @param {Record<string, any>} content of `m.room.message`
   * @param {File|null} [file] to be uploaded first: the content lacks its address
   */
  send(roomId, content, file = null) {
    const txn = newTransactionId();
    this.rooms.get(roomId)?.timeline.addEcho(txn, content, file);
    this.#enqueue(roomId, txn);
  }

  /** Tries a failed message again, in the same transaction. @param {string} roomId @param {string} txn */
  retry(roomId, txn) {
    const echo = this.rooms.get(roomId)?.timeline.echo(txn);
    if (echo?.status !== "failed") return;
    Object.assign(echo, { status: "sending", problem: "" });
    this.#enqueue(roomId, txn);
  }

  /** @param {string} roomId @param {string} txn */
  discard(roomId, txn) {
    this.rooms.get(roomId)?.timeline.dropEcho(txn);
    this.rooms.changed([roomId]);
  }

  /** @param {string} roomId @param {string} txn */
  #enqueue(roomId, txn) {
    const before = this.#queues.get(roomId) ?? Promise.resolve();
    this.#queues.set(roomId, before.then(() => this.#deliver(roomId, txn)));
    this.rooms.changed([roomId]);
  }

  /** @param {string} roomId @param {string} txn */
  async #deliver(roomId, txn) {
    const timeline = this.rooms.get(roomId)?.timeline;
    const echo = timeline?.echo(txn);
    if (!timeline || !echo) return;
    try {
      if (echo.file) echo.content = await this.uploads.complete(echo.content, echo.file);
      echo.file = null;
      const answer = await this.#patiently(roomId, txn, echo.content);
      timeline.confirmEcho(txn, answer.event_id);
    } catch (error) {
      const problem = error instanceof UploadProblem ? error.message : "";
      Object.assign(echo, { status: "failed", problem });
    }
    this.rooms.changed([roomId]);
  }

  /** @param {string} roomId @param {string} txn @param {Record<string, any>} content */
  async #patiently(roomId, txn, content) {
    for (let tries = 1; ; tries += 1) {
      try {
        return await this.api.send(roomId, "m.room.message", txn, content);
      } catch (error) {
        const busy = error instanceof MatrixError && error.status === 429;
        if (!busy || tries === MOST_TRIES) throw error;
        await new Promise((resolve) => setTimeout(resolve, error.retryAfter || 1000 * tries));
      }
    }
  }
}
