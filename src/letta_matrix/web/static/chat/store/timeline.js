/** The events of one room, edits, reactions and redactions applied. */

/** @typedef {import("../types.js").MatrixEvent} MatrixEvent */
/** @typedef {import("../types.js").Item} Item */
/** @typedef {import("../types.js").Reaction} Reaction */
/**
 * @typedef {object} Echo a message of ours the homeserver has not given back yet
 * @property {string} txn
 * @property {Record<string, any>} content
 * @property {number} ts
 * @property {"sending"|"sent"|"failed"} status
 * @property {string|null} id
 */

export const TIMELINE_TYPES = [
  "m.room.message",
  "m.room.encrypted",
  "m.reaction",
  "m.room.redaction",
];

export class Timeline {
  /** @type {string[]} ids of the events a person sees, oldest first */
  #order = [];
  /** @type {Map<string, MatrixEvent>} */
  #events = new Map();
  /** @type {Set<string>} the newest message and everything after it: edits, reactions, renames */
  #end = new Set();
  /** @type {Map<string, Map<string, MatrixEvent>>} edited event -> sender -> newest edit */
  #edits = new Map();
  /** @type {Map<string, Map<string, MatrixEvent>>} target -> reaction's event id -> reaction */
  #reactions = new Map();
  /** @type {Set<string>} */
  #redacted = new Set();
  /** @type {Map<string, Echo>} by transaction id */
  #echoes = new Map();
  /** @type {string|null} where older events continue; null at the beginning of the room */
  older = null;

  /** @param {string} ownUserId */
  constructor(ownUserId) {
    this.ownUserId = ownUserId;
  }

  /** Forgets what is before a gap; relations and our own unsent messages stay. */
  reset() {
    this.#order = [];
    this.#events.clear();
    this.#end.clear();
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
   * @returns {number} how many of them a person sees
   */
  prepend(events) {
    const seen = events.filter((event) => this.#take(event)).map((event) => event.event_id);
    this.#order.unshift(...seen.reverse());
    return seen.length;
  }

  /** Takes an event in; true if it stands for itself in the timeline. @param {MatrixEvent} event */
  #take(event) {
    if (this.#events.has(event.event_id)) return false;
    this.#takeBundled(event);
    const relation = event.content?.["m.relates_to"];
    if (event.type === "m.room.redaction") return this.#takeRedaction(event);
    if (event.type === "m.reaction") return this.#takeReaction(event, relation);
    if (relation?.rel_type === "m.replace") return this.#takeEdit(event, relation.event_id);
    if (!isVisible(event)) return false;
    this.#events.set(event.event_id, event);
    return true;
  }

  /** @param {MatrixEvent} event */
  #takeBundled(event) {
    const edit = event.unsigned?.["m.relations"]?.["m.replace"];
    if (edit?.content) this.#takeEdit(edit, event.event_id);
  }

  /** @param {MatrixEvent} event */
  #takeRedaction(event) {
    const target = event.content?.redacts ?? event.redacts;
    if (typeof target !== "string") return false;
    this.#redacted.add(target);
    for (const reactions of this.#reactions.values()) reactions.delete(target);
    for (const edits of this.#edits.values()) {
      for (const [sender, edit] of edits) if (edit.event_id === target) edits.delete(sender);
    }
    return false;
  }

  /** @param {MatrixEvent} event @param {any} relation */
  #takeReaction(event, relation) {
    const valid = relation?.rel_type === "m.annotation" && typeof relation.key === "string";
    if (valid && !this.#redacted.has(event.event_id)) {
      entry(this.#reactions, relation.event_id).set(event.event_id, event);
    }
    return false;
  }

  /** @param {MatrixEvent} event @param {string} target */
  #takeEdit(event, target) {
    const replacement = event.content?.["m.new_content"];
    if (!replacement || this.#redacted.has(event.event_id)) return false;
    const edits = entry(this.#edits, target);
    const known = edits.get(event.sender);
    if (!known || isNewer(event, known)) edits.set(event.sender, event);
    return false;
  }

  /** @param {string} txn @param {Record<string, any>} content */
  addEcho(txn, content) {
    this.#echoes.set(txn, { txn, content, ts: Date.now(), status: "sending", id: null });
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

  /** Everything a person sees, oldest first. @returns {Item[]} */
  items() {
    const echoes = [...this.#echoes.values()].map((echo) => this.#echoItem(echo));
    return [...this.#order.map((id) => /** @type {Item} */ (this.item(id))), ...echoes];
  }

  /** @param {string} id @returns {Item|null} */
  item(id) {
    const event = this.#events.get(id);
    return event ? this.describe(event) : null;
  }

  /** @param {MatrixEvent} event @returns {Item} */
  describe(event) {
    const edit = this.#edits.get(event.event_id)?.get(event.sender);
    return {
      key: event.unsigned?.transaction_id ?? event.event_id,
      id: event.event_id,
      kind: this.#kind(event),
      sender: event.sender,
      ts: event.origin_server_ts,
      content: edit ? edit.content["m.new_content"] : event.content,
      revision: edit?.event_id ?? null,
      revisedAt: edit?.origin_server_ts ?? event.origin_server_ts,
      replyTo: event.content?.["m.relates_to"]?.["m.in_reply_to"]?.event_id ?? null,
      reactions: this.#reactionsOf(event.event_id),
      status: "sent",
    };
  }

  /** @param {MatrixEvent} event @returns {Item["kind"]} */
  #kind(event) {
    if (event.type === "m.room.name") return "renamed";
    const gone = this.#redacted.has(event.event_id) || event.unsigned?.redacted_because;
    if (gone) return "redacted";
    return event.type === "m.room.encrypted" ? "encrypted" : "message";
  }

  /** @param {Echo} echo @returns {Item} */
  #echoItem(echo) {
    return {
      key: echo.txn,
      id: echo.id,
      kind: "message",
      sender: this.ownUserId,
      ts: echo.ts,
      content: echo.content,
      revision: null,
      revisedAt: echo.ts,
      replyTo: null,
      reactions: [],
      status: echo.status,
    };
  }

  /** @param {string} id @returns {Reaction[]} in the order they came */
  #reactionsOf(id) {
    /** @type {Map<string, Reaction>} */
    const byKey = new Map();
    for (const event of this.#reactions.get(id)?.values() ?? []) {
      const key = event.content["m.relates_to"].key;
      const reaction = byKey.get(key) ?? { key, senders: [], own: null };
      if (!reaction.senders.includes(event.sender)) reaction.senders.push(event.sender);
      if (event.sender === this.ownUserId) reaction.own = event.event_id;
      byKey.set(key, reaction);
    }
    return [...byKey.values()];
  }

  /** The newest message, our own unconfirmed ones aside. @returns {Item|null} */
  last() {
    const id = this.#order.findLast((id) => this.#events.get(id)?.type !== "m.room.name");
    return id ? this.item(id) : null;
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

/** @param {MatrixEvent} one @param {MatrixEvent} other */
function isNewer(one, other) {
  if (one.origin_server_ts !== other.origin_server_ts) {
    return one.origin_server_ts > other.origin_server_ts;
  }
  return one.event_id > other.event_id;
}

/**
 * @template V
 * @param {Map<string, Map<string, V>>} map
 * @param {string} key
 */
function entry(map, key) {
  const known = map.get(key) ?? new Map();
  map.set(key, known);
  return known;
}
