/** One room as we know it: state, members, timeline. */

import { isAgentId, localpart } from "./ids.js";
import { shortName } from "./names.js";
import { Timeline } from "./timeline.js";

/** @typedef {import("../types.js").MatrixEvent} MatrixEvent */
/** @typedef {import("../types.js").Member} Member */

export const STATE_TYPES = [
  "m.room.create",
  "m.room.name",
  "m.room.topic",
  "m.room.avatar",
  "m.room.canonical_alias",
  "m.room.member",
  "m.room.encryption",
  "m.space.child",
];

export class Room {
  /** @type {Map<string, MatrixEvent>} by `type state_key`, members aside */
  #state = new Map();
  /** @type {Map<string, Member>} */
  #members = new Map();
  /** @type {string[]} */
  #heroes = [];
  /** @type {string[]} ids of people who write at this moment */
  typing = [];
  unread = 0;
  /** @type {string|null} the event our own newest receipt points to */
  readUpTo = null;
  joinedCount = 0;
  /** @type {"join"|"invite"} */
  membership = "join";
  /** @type {string|null} who invited us */
  inviter = null;

  /** @param {string} id @param {string} ownUserId */
  constructor(id, ownUserId) {
    this.id = id;
    this.ownUserId = ownUserId;
    this.timeline = new Timeline(ownUserId);
  }

  /** @param {any} data a joined room of a sync answer */
  apply(data) {
    this.membership = "join";
    for (const event of data.state?.events ?? []) this.applyState(event);
    this.#applySummary(data.summary ?? {});
    this.#applyTimeline(data.timeline ?? {});
    for (const event of data.ephemeral?.events ?? []) {
      if (event.type === "m.typing") this.typing = others(event.content.user_ids, this.ownUserId);
      if (event.type === "m.receipt") this.#applyReceipts(event.content);
    }
    // The homeserver counts until our receipt has reached it.
    this.unread = this.isRead ? 0 : (data.unread_notifications?.notification_count ?? this.unread);
  }

  /** @param {Record<string, any>} content of `m.receipt`: event id -> receipt type -> user id */
  #applyReceipts(content) {
    for (const [eventId, receipts] of Object.entries(content)) {
      const own = Object.values(receipts).some((readers) => this.ownUserId in readers);
      if (own && !this.#isOlderReceipt(eventId)) this.readUpTo = eventId;
    }
  }

  /** Whether a receipt, late or private, points before what we have read. @param {string} eventId */
  #isOlderReceipt(eventId) {
    return this.isRead && !this.timeline.endsWith(eventId);
  }

  /** Whether our receipt points to the newest message, or to an edit or reaction after it. */
  get isRead() {
    return this.readUpTo !== null && this.timeline.endsWith(this.readUpTo);
  }

  /** @param {any} data an invitation of a sync answer */
  applyInvite(data) {
    this.membership = "invite";
    for (const event of data.invite_state?.events ?? []) {
      this.applyState(event);
      if (event.type === "m.room.member" && event.state_key === this.ownUserId) {
        this.inviter = event.sender;
      }
    }
  }

  /** @param {any} summary */
  #applySummary(summary) {
    if (summary["m.heroes"]) this.#heroes = summary["m.heroes"];
    this.joinedCount = summary["m.joined_member_count"] ?? this.joinedCount;
  }

  /** @param {any} timeline */
  #applyTimeline(timeline) {
    const first = this.timeline.size === 0 && this.timeline.older === null;
    if (timeline.limited || first) {
      this.timeline.reset();
      this.timeline.older = timeline.prev_batch ?? null;
    }
    for (const event of timeline.events ?? []) {
      if (event.state_key !== undefined) this.applyState(event);
      this.timeline.append(event);
    }
  }

  /** @param {MatrixEvent} event */
  applyState(event) {
    if (event.type !== "m.room.member") {
      this.#state.set(`${event.type} ${event.state_key}`, event);
    } else if (event.state_key) {
      this.setMember(event.state_key, event.content.displayname, event.content.avatar_url);
    }
  }

  /** @param {string} userId @param {unknown} name @param {unknown} avatar */
  setMember(userId, name, avatar) {
    this.#members.set(userId, {
      name: typeof name === "string" && name.trim() ? name : localpart(userId),
      avatar: typeof avatar === "string" ? avatar : null,
    });
  }

  /** State of older events fills gaps and never replaces what is newer. @param {MatrixEvent[]} events */
  applyOlderMembers(events) {
    for (const event of events) {
      const unknown = event.type === "m.room.member" && !this.#members.has(event.state_key ?? "");
      if (unknown) this.applyState(event);
    }
  }

  /** @param {string} userId @returns {Member} */
  member(userId) {
    return this.#members.get(userId) ?? { name: localpart(userId), avatar: null };
  }

  /** @param {string} type @returns {any} */
  #content(type) {
    return this.#state.get(`${type} `)?.content ?? {};
  }

  get isSpace() {
    return this.#content("m.room.create").type === "m.space";
  }

  get fullName() {
    const given = this.#content("m.room.name").name || this.#content("m.room.canonical_alias").alias;
    if (given) return String(given);
    const people = this.#heroes.length ? this.#heroes : [...this.#members.keys()];
    const names = others(people, this.ownUserId).map((id) => this.member(id).name);
    return names.slice(0, 4).join(", ") || "Room without a name";
  }

  /** What a person calls this room: an agent's room is called like its agent. */
  get name() {
    return shortName(this.fullName);
  }

  get topic() {
    return String(this.#content("m.room.topic").topic ?? "");
  }

  /** The room's agent, which its alias names. @returns {string|null} */
  get agentId() {
    const alias = this.#content("m.room.canonical_alias").alias;
    if (typeof alias === "string" && alias.startsWith("#agent_")) return `@${alias.slice(1)}`;
    return others([...this.#members.keys()], this.ownUserId).find(isAgentId) ?? null;
  }

  get avatar() {
    const own = this.#content("m.room.avatar").url;
    const agent = this.agentId;
    return own ?? (agent ? this.member(agent).avatar : null);
  }

  get encrypted() {
    return this.#state.has("m.room.encryption ");
  }

  /** @returns {string[]} ids of a space's rooms */
  get children() {
    const links = [...this.#state.values()].filter((event) => event.type === "m.space.child");
    return links.filter((event) => event.content.via).map((event) => event.state_key ?? "");
  }

  /** When something was last said, milliseconds. */
  get activity() {
    return this.timeline.lastSaid()?.ts ?? 0;
  }
}

/** @param {unknown} ids @param {string} own @returns {string[]} */
function others(ids, own) {
  return Array.isArray(ids) ? ids.filter((id) => typeof id === "string" && id !== own) : [];
}
