/** What events of one room say about other events: edits, reactions, redactions. */

/** @typedef {import("../types.js").MatrixEvent} MatrixEvent */
/** @typedef {import("../types.js").Reaction} Reaction */

export class Relations {
  /** @type {Map<string, Map<string, MatrixEvent>>} edited event -> sender -> newest edit */
  #edits = new Map();
  /** @type {Map<string, Map<string, MatrixEvent>>} target -> reaction's event id -> reaction */
  #reactions = new Map();
  /** @type {Set<string>} */
  #redacted = new Set();

  /** @param {string} ownUserId */
  constructor(ownUserId) {
    this.ownUserId = ownUserId;
  }

  /** Takes an event in; true if it is about another event. @param {MatrixEvent} event */
  take(event) {
    this.#takeBundled(event);
    const relation = event.content?.["m.relates_to"];
    if (event.type === "m.room.redaction") this.#takeRedaction(event);
    else if (event.type === "m.reaction") this.#takeReaction(event, relation);
    else if (relation?.rel_type === "m.replace") this.#takeEdit(event, relation.event_id);
    else return false;
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
    if (typeof target === "string") this.redact(target);
  }

  /** @param {string} target id of an event that is gone */
  redact(target) {
    this.#redacted.add(target);
    for (const reactions of this.#reactions.values()) reactions.delete(target);
    for (const edits of this.#edits.values()) {
      for (const [sender, edit] of edits) if (edit.event_id === target) edits.delete(sender);
    }
  }

  /** @param {MatrixEvent} event @param {any} relation */
  #takeReaction(event, relation) {
    const valid = relation?.rel_type === "m.annotation" && typeof relation.key === "string";
    if (valid && !this.#redacted.has(event.event_id)) {
      entry(this.#reactions, relation.event_id).set(event.event_id, event);
    }
  }

  /** @param {MatrixEvent} event @param {string} target */
  #takeEdit(event, target) {
    const replacement = event.content?.["m.new_content"];
    if (!replacement || this.#redacted.has(event.event_id)) return;
    const edits = entry(this.#edits, target);
    const known = edits.get(event.sender);
    if (!known || isNewer(event, known)) edits.set(event.sender, event);
  }

  /** The newest edit of an event by its sender. @param {MatrixEvent} event @returns {MatrixEvent|undefined} */
  editOf(event) {
    return this.#edits.get(event.event_id)?.get(event.sender);
  }

  /** @param {MatrixEvent} event */
  isGone(event) {
    return this.#redacted.has(event.event_id) || Boolean(event.unsigned?.redacted_because);
  }

  /** @param {string} id @returns {Reaction[]} in the order they came */
  reactionsOf(id) {
    /** @type {Map<string, Reaction>} */
    const byKey = new Map();
    for (const event of this.#reactions.get(id)?.values() ?? []) {
      const key = event.content["m.relates_to"].key;
      /** @type {Reaction} */
      const reaction = byKey.get(key) ?? { key, senders: [], own: null };
      if (!reaction.senders.includes(event.sender)) reaction.senders.push(event.sender);
      if (event.sender === this.ownUserId) reaction.own = event.event_id;
      byKey.set(key, reaction);
    }
    return [...byKey.values()];
  }
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
