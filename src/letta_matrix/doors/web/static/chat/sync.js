/** Following the account: one long poll after the other, for as long as the page is open. */

import { MatrixError } from "./api.js";
import { TIMELINE_TYPES } from "./store/timeline.js";
import { STATE_TYPES } from "./store/room.js";

const LONG_POLL = 30000;
const LONGEST_PAUSE = 20000;
const NOTHING = { not_types: ["*"] };
const FILTER = {
  presence: NOTHING,
  account_data: NOTHING,
  room: {
    account_data: NOTHING,
    ephemeral: { types: ["m.typing", "m.receipt"] },
    state: { types: STATE_TYPES, lazy_load_members: true },
    timeline: {
      types: [...TIMELINE_TYPES, ...STATE_TYPES],
      limit: 25,
      lazy_load_members: true,
      unread_thread_notifications: true,
    },
  },
};

export class SyncLoop {
  #stopped = new AbortController();
  /** @type {() => void} */
  #wake = () => {};
  /** @type {AbortController|null} */
  #poll = null;

  /**
   * @param {import("./api.js").Api} api
   * @param {import("./store/rooms.js").RoomStore} rooms
   * @param {(online: boolean) => void} onStatus
   */
  constructor(api, rooms, onStatus) {
    this.api = api;
    this.rooms = rooms;
    this.onStatus = onStatus;
  }

  /** Runs until `stop` or until the homeserver refuses us for good. */
  async run() {
    /** @type {string|null} */
    let since = null;
    let failures = 0;
    const signal = this.#stopped.signal;
    addEventListener("online", () => this.retryNow(), { signal });
    document.addEventListener("visibilitychange", () => this.retryNow(), { signal });
    addEventListener("offline", () => this.#poll?.abort(), { signal });
    while (!signal.aborted) {
      try {
        const answer = await this.#once(since, failures ? 0 : LONG_POLL);
        since = answer.next_batch;
        failures = 0;
        this.onStatus(true);
        this.rooms.apply(answer);
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof MatrixError && !error.temporary) throw error;
        failures += 1;
        this.onStatus(false);
        await this.#pause(error, failures);
      }
    }
  }

  /** @param {string|null} since @param {number} wait */
  #once(since, wait) {
    this.#poll = new AbortController();
    const either = AbortSignal.any([this.#stopped.signal, this.#poll.signal]);
    return this.api.sync(since, FILTER, since ? wait : 0, either);
  }

  /** @param {unknown} error @param {number} failures */
  #pause(error, failures) {
    const asked = error instanceof MatrixError ? error.retryAfter : 0;
    const grown = Math.min(LONGEST_PAUSE, 500 * 2 ** failures) * (0.75 + Math.random() / 2);
    return /** @type {Promise<void>} */ (
      new Promise((resolve) => {
        this.#wake = resolve;
        setTimeout(resolve, Math.max(asked, grown));
      })
    );
  }

  retryNow() {
    this.#wake();
  }

  stop() {
    this.#stopped.abort();
    this.#wake();
  }
}
