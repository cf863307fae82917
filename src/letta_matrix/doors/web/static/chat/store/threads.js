/** The threads of one room (Matrix specification, Threading). */

/** @typedef {import("../types.js").MatrixEvent} MatrixEvent */
/** @typedef {{count: number, ts: number}} Summary how many replies, and when the last one came */

/** The root of the thread an event is in. @param {Record<string, any>} [content] @returns {string|null} */
export function threadOf(content) {
  const relation = content?.["m.relates_to"];
  const threaded = relation?.rel_type === "m.thread" && typeof relation.event_id === "string";
  return threaded ? relation.event_id : null;
}

/** `m.relates_to` of a message in a thread. @param {string} root @param {string} last its newest event */
export function threadRelation(root, last) {
  return {
    rel_type: "m.thread",
    event_id: root,
    is_falling_back: true,
    "m.in_reply_to": { event_id: last },
  };
}

/** `m.relates_to` of a reply. @param {string} id */
export function replyRelation(id) {
  return { "m.in_reply_to": { event_id: id } };
}

/** `m.relates_to` of a reply in a thread. @param {string} root @param {string} id */
export function threadReplyRelation(root, id) {
  return { ...threadRelation(root, id), is_falling_back: false };
}

export class Threads {
  /** @type {Map<string, Map<string, MatrixEvent>>} root -> event id -> event */
  #events = new Map();
  /** @type {Map<string, Summary>} root -> what the homeserver said when it gave us the root */
  #told = new Map();
  /** @type {Set<string>} threads whose older events were fetched */
  #whole = new Set();

  /** @param {MatrixEvent} event */
  take(event) {
    const bundled = event.unsigned?.["m.relations"]?.["m.thread"];
    if (bundled?.count) {
      this.#told.set(event.event_id, { count: bundled.count, ts: bundled.latest_event?.origin_server_ts ?? 0 });
    }
    const root = threadOf(event.content);
    if (root) this.#events.set(root, (this.#events.get(root) ?? new Map()).set(event.event_id, event));
  }

  /** Events we know of a thread, oldest first. @param {string} root */
  events(root) {
    const events = [...(this.#events.get(root)?.values() ?? [])];
    return events.sort((one, other) => one.origin_server_ts - other.origin_server_ts);
  }

  /** @param {string} root @returns {Summary|null} null where there is no thread */
  summary(root) {
    const events = this.events(root);
    const told = this.#told.get(root) ?? { count: 0, ts: 0 };
    const later = events.filter((event) => event.origin_server_ts > told.ts).length;
    const count = Math.max(events.length, told.count + later);
    const ts = Math.max(told.ts, events.at(-1)?.origin_server_ts ?? 0);
    return count ? { count, ts } : null;
  }

  /** @param {string} root */
  isWhole(root) {
    return this.#whole.has(root);
  }

  /** @param {string} root */
  markWhole(root) {
    this.#whole.add(root);
  }

  /** Forgets everything, since events may be missing. */
  clear() {
    this.#events.clear();
    this.#whole.clear();
  }
}
