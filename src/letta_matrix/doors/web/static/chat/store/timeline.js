/** The events of one room, edits, reactions and redactions applied. */

import { Relations } from "./relations.js";
import { besideOf } from "./marker.js";
import { Threads, threadOf } from "./threads.js";

/** @typedef {import("../types.js").MatrixEvent} MatrixEvent */
/** @typedef {import("../types.js").Item} Item */
/**
 * @typedef {object} Echo a message of ours the homeserver has not given back yet
 * @property {string} txn
 * @property {Record<string, any>} content
 * @property {File|null} file to be uploaded before the message can be sent
 * @property {number} ts
 * @property {"sending"|"sent"|"failed"} status
 * @property {string} problem why it failed
 * @property {string|null} id
 */

export const TIMELINE_TYPES = [
  "m.room.message",
  "m.room.encrypted",
  "m.reaction",
  "m.room.redaction",
];

export class Timeline {
  /** @type {string[]} ids of the events a person sees, threads included, oldest first */
  #order = [];
  /** @type {Map<string, MatrixEvent>} */
  #events = new Map();
  /** @type {Set<string>} events of `#events` that have no place in `#order` */
  #apart = new Set();
  /** @type {Set<string>} the newest message and everything after it: edits, reactions, renames */
  #end = new Set();
  /** @type {Map<string, Echo>} by transaction id */
  #echoes = new Map();
  threads = new Threads();
  /** @type {string|null} where older events continue; null at the beginning of the room */
  older = null;

  /** @param {string} ownUserId */
  constructor(ownUserId) {
    this.ownUserId = ownUserId;
    this.relations = new Relations(ownUserId);
  }

  /** Forgets what is before a gap; relations and our own unsent messages stay. */
  reset() {
    this.#order = [];
    this.#events.clear();
    this.#apart.clear();
    this.#end.clear();
    this.threads.clear();
  }

  /** @param {MatrixEvent} event a new event */
  append(event) {
    if (this.#take(event)) {
      this.#order.push(event.event_id);
      if (event.type !== "m.room.name") this.#end.clear();
    }
    this.#end.add(event.event_id);
    const txn = event.unsigned?.transaction_id;
    if (txn) this.#echoes.delete(txn);
    for (const echo of this.#echoes.values()) {
      if (echo.id === event.event_id) this.#echoes.delete(echo.txn);
    }
  }

  /**
   * @param {MatrixEvent[]} events older events, newest first
   * @returns {number} how many of them a person sees outside of threads
   */
  prepend(events) {
    const seen = events.filter((event) => this.#take(event));
    this.#order.unshift(...seen.map((event) => event.event_id).reverse());
    return seen.filter((event) => !threadOf(event.content)).length;
  }

  /** Takes in events of a thread whose place in the room is unknown. @param {MatrixEvent[]} events */
  adopt(events) {
    for (const event of events) {
      if (!this.#events.has(event.event_id) && this.#take(event)) this.#apart.add(event.event_id);
    }
  }

  /** Takes an event in; true if it stands for itself in the timeline. @param {MatrixEvent} event */
  #take(event) {
    if (this.#events.has(event.event_id) && !this.#apart.delete(event.event_id)) return false;
    if (this.relations.take(event) || !isVisible(event)) return false;
    this.threads.take(event);
    this.#events.set(event.event_id, event);
    return true;
  }

  /** @param {string} txn @param {Record<string, any>} content @param {File|null} file */
  addEcho(txn, content, file) {
    const ts = Date.now();
    this.#echoes.set(txn, { txn, content, file, ts, status: "sending", problem: "", id: null });
  }

  /** @param {string} txn */
  echo(txn) {
    return this.#echoes.get(txn);
  }

  /** @param {string} txn */
  dropEcho(txn) {
    this.#echoes.delete(txn);
  }

  /** @param {string} txn @param {string} id the event id the homeserver answered with */
  confirmEcho(txn, id) {
    const echo = this.#echoes.get(txn);
    if (!echo) return;
    if (this.#events.has(id)) this.#echoes.delete(txn);
    else Object.assign(echo, { status: "sent", id });
  }

  /** What a person sees in the room itself, oldest first. @returns {Item[]} */
  items() {
    const known = this.#order.map((id) => /** @type {MatrixEvent} */ (this.#events.get(id)));
    return [...this.#placed(known), ...this.#echoItems(null)];
  }

  /** @param {MatrixEvent[]} events @returns {Item[]} */
  #placed(events) {
    const newest = new Map(events.map((event) => [threadOf(event.content), event.event_id]));
    return events.flatMap((event) => {
      const root = threadOf(event.content);
      if (!root) return [this.describe(event)];
      // Where its root is not at hand, a thread would be out of sight: a line stands for it.
      const stands = !this.#events.has(root) && newest.get(root) === event.event_id;
      return stands ? [{ ...this.describe(event), key: `thread ${root}`, kind: /** @type {const} */ ("thread") }] : [];
    });
  }

  /** What is said in a thread, without its root, oldest first. @param {string} root @returns {Item[]} */
  thread(root) {
    return [...this.threads.events(root).map((event) => this.describe(event)), ...this.#echoItems(root)];
  }

  /** The room and its threads, oldest first. @returns {Item[]} */
  all() {
    const items = [...this.#events.values()].map((event) => this.describe(event));
    return items.sort((one, other) => one.ts - other.ts);
  }

  /** @param {string} id @returns {Item|null} */
  item(id) {
    const event = this.#events.get(id);
    return event ? this.describe(event) : null;
  }

  /** @param {MatrixEvent} event @returns {Item} */
  describe(event) {
    const edit = this.relations.editOf(event);
    const content = edit ? edit.content["m.new_content"] : event.content;
    const kind = this.#kind(event);
    return {
      key: event.unsigned?.transaction_id ?? event.event_id,
      id: event.event_id,
      kind,
      beside: kind === "message" ? besideOf(event.sender, content) : null,
      sender: event.sender,
      ts: event.origin_server_ts,
      content,
      revision: edit?.event_id ?? null,
      revisedAt: edit?.origin_server_ts ?? event.origin_server_ts,
      replyTo: kind === "message" ? replyTarget(event.content) : null,
      thread: threadOf(event.content),
      replies: this.threads.summary(event.event_id),
      reactions: this.relations.reactionsOf(event.event_id),
      status: "sent",
      problem: "",
    };
  }

  /** @param {MatrixEvent} event @returns {Item["kind"]} */
  #kind(event) {
    if (event.type === "m.room.name") return "renamed";
    if (this.relations.isGone(event)) return "redacted";
    return event.type === "m.room.encrypted" ? "encrypted" : "message";
  }

  /** @param {string|null} root @returns {Item[]} */
  #echoItems(root) {
    const echoes = [...this.#echoes.values()].filter((echo) => threadOf(echo.content) === root);
    return echoes.map((echo) => this.#echoItem(echo));
  }

  /** @param {Echo} echo @returns {Item} */
  #echoItem(echo) {
    return {
      key: echo.txn,
      id: echo.id,
      kind: "message",
      beside: null,
      sender: this.ownUserId,
      ts: echo.ts,
      content: echo.content,
      revision: null,
      revisedAt: echo.ts,
      replyTo: replyTarget(echo.content),
      thread: threadOf(echo.content),
      replies: null,
      reactions: [],
      status: echo.status,
      problem: echo.problem,
    };
  }

  /** The newest message, our own unconfirmed ones aside. @returns {Item|null} */
  last() {
    const id = this.#order.findLast((id) => this.#events.get(id)?.type !== "m.room.name");
    return id ? this.item(id) : null;
  }

  /** The newest message that says something. @returns {Item|null} */
  lastSaid() {
    for (const id of this.#order.toReversed()) {
      const item = this.item(id);
      if (item && item.kind !== "renamed" && item.beside !== "trace") return item;
    }
    return null;
  }

  /** Whether no message comes after an event. @param {string} id */
  endsWith(id) {
    return this.#end.has(id) || this.last()?.id === id;
  }

  get size() {
    return this.#order.length;
  }
}

/** @param {MatrixEvent} event */
function isVisible(event) {
  if (event.type === "m.room.name") return Boolean(event.unsigned?.prev_content?.name);
  return event.type === "m.room.message" || event.type === "m.room.encrypted";
}

/**
 * The event a message replies to; in a thread only where a person chose it.
 *
 * @param {Record<string, any>} [content]
 * @returns {string|null}
 */
function replyTarget(content) {
  const relation = content?.["m.relates_to"];
  if (relation?.rel_type === "m.thread" && relation.is_falling_back) return null;
  return relation?.["m.in_reply_to"]?.event_id ?? null;
}
