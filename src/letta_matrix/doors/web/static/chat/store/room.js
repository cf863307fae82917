/** One room as we know it: state, members, timeline. */

import { isAgentId, localpart } from "./ids.js";
import { shortName } from "./names.js";
import { Timeline } from "./timeline.js";
import { Unread } from "./unread.js";

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
  /** @type {Map<string, string>} agent -> the event its newest receipt points to */
  #agentsRead = new Map();
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
    this.unreadCount = new Unread(this.timeline);
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
    this.unreadCount.apply(data);
    if (this.isRead) this.unreadCount.clear();
  }

  /** How many messages notify and were not seen. */
  get unread() {
    // The homeserver counts until our receipt has reached it.
    return this.isRead ? 0 : this.unreadCount.total;
  }

  /** @param {Record<string, any>} content of `m.receipt`: event id -> receipt type -> user id */
  #applyReceipts(content) {
    for (const [eventId, receipts] of Object.entries(content)) {
      for (const readers of Object.values(receipts)) this.#applyReaders(eventId, readers);
    }
  }

  /** @param {string} eventId @param {Record<string, {thread_id?: string}>} readers */
  #applyReaders(eventId, readers) {
    for (const [userId, { thread_id: thread }] of Object.entries(readers)) {
      if (isAgentId(userId)) this.#agentsRead.set(userId, eventId);
      if (userId !== this.ownUserId) continue;
      // One for a thread, or for all but threads, leaves the rest to the homeserver's counts.
      if (thread) this.unreadCount.threadRead(thread, eventId);
      else if (!this.#isOlderReceipt(eventId)) this.readUpTo = eventId;
    }
  }

  /** Whether an agent's receipt points to an event: it is at it. @param {string} eventId */
  isReadByAgent(eventId) {
    return [...this.#agentsRead.values()].includes(eventId);
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
      const { displayname, avatar_url: avatar, membership } = event.content;
      this.setMember(event.state_key, displayname, avatar, membership === "join");
    }
  }

  /** @param {string} userId @param {unknown} name @param {unknown} avatar @param {boolean} joined */
  setMember(userId, name, avatar, joined) {
    this.#members.set(userId, {
      name: typeof name === "string" && name.trim() ? name : localpart(userId),
      avatar: typeof avatar === "string" ? avatar : null,
      joined,
    });
  }

  /** State of older events fills gaps and never replaces what is newer. @param {MatrixEvent[]} events */
  applyOlderMembers(events) {
    for (const event of events) {
      const { type, state_key: id = "", content } = event;
      const unknown = type === "m.room.member" && !this.#members.has(id);
      // Whether they are still here, a list of members tells.
      if (unknown) this.setMember(id, content.displayname, content.avatar_url, false);
    }
  }

  /** @param {string} userId @returns {Member} */
  member(userId) {
    return this.#members.get(userId) ?? { name: localpart(userId), avatar: null, joined: false };
  }

  /** Ids of everybody else who is known to be here. @returns {string[]} */
  get others() {
    const ids = [...this.#members].filter(([, { joined }]) => joined).map(([id]) => id);
    return others(ids, this.ownUserId);
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

  /** The agent whose own room it is. @returns {string|null} */
  get ownerId() {
    const alias = this.#content("m.room.canonical_alias").alias;
    return typeof alias === "string" && alias.startsWith("#agent_") ? `@${alias.slice(1)}` : null;
  }

  /** The room's agent: the one its alias names, else one that is there. @returns {string|null} */
  get agentId() {
    return this.ownerId ?? others([...this.#members.keys()], this.ownUserId).find(isAgentId) ?? null;
  }

  /** Whether an agent answers everything here, outside of threads. */
  get answersAll() {
    return Boolean(this.ownerId) || (this.joinedCount === 2 && Boolean(this.agentId));
  }

  /** Its own, else the agent's that one is alone with: a group has no one face. */
  get avatar() {
    const own = this.#content("m.room.avatar").url;
    const agent = this.answersAll ? this.agentId : null;
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
