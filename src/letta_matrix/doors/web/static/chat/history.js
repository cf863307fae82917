/** Reading a room backwards: older pages, and single events that replies point to. */

import { TIMELINE_TYPES } from "./store/timeline.js";

/** @typedef {import("./store/room.js").Room} Room */
/** @typedef {import("./types.js").Item} Item */

const PAGE = 40;
const ENOUGH = 12;
const MOST_PAGES = 8;
const MOST_MEMBERS = 50;

export class History {
  /** @type {Map<string, Promise<void>>} rooms and threads being read at this moment */
  #reading = new Map();
  /** @type {Map<string, Item|null>} events outside the timeline; null while unknown */
  #single = new Map();
  /** @type {Set<string>} rooms whose members are known */
  #peopled = new Set();

  /**
   * @param {import("./api.js").Api} api
   * @param {import("./store/rooms.js").RoomStore} rooms
   */
  constructor(api, rooms) {
    this.api = api;
    this.rooms = rooms;
  }

  /** Reads on until a person sees something new. @param {Room} room */
  older(room) {
    const running = this.#reading.get(room.id);
    if (running) return running;
    const reading = this.#read(room).finally(() => this.#reading.delete(room.id));
    this.#reading.set(room.id, reading);
    return reading;
  }

  /** @param {Room} room */
  async #read(room) {
    const { timeline } = room;
    let seen = 0;
    for (let page = 0; page < MOST_PAGES && seen < ENOUGH && timeline.older; page += 1) {
      const from = timeline.older;
      const answer = await this.api.messages(room.id, from, PAGE, [...TIMELINE_TYPES, "m.room.name"]);
      // A gap in /sync moved the beginning of the timeline meanwhile: this page has no place in it.
      if (timeline.older !== from) return;
      room.applyOlderMembers(answer.state ?? []);
      seen += timeline.prepend(answer.chunk ?? []);
      timeline.older = answer.end ?? null;
    }
    this.rooms.changed([room.id]);
  }

  /**
   * The event a reply points to; fetched, and announced as a change, if it is not at hand.
   *
   * @param {Room} room
   * @param {string} id
   * @returns {Item|null}
   */
  find(room, id) {
    const known = room.timeline.item(id) ?? this.#single.get(id);
    if (known !== undefined) return known;
    this.#single.set(id, null);
    this.api.event(room.id, id).then(
      (event) => {
        this.#single.set(id, room.timeline.describe(event));
        this.rooms.changed([room.id]);
      },
      () => {},
    );
    return null;
  }

  /** Reads a thread from its beginning. @param {Room} room @param {string} root */
  async thread(room, root) {
    const { timeline } = room;
    const key = `${room.id} ${root}`;
    if (timeline.threads.isWhole(root) || this.#reading.has(key)) return;
    const reading = this.#readThread(room, root).finally(() => this.#reading.delete(key));
    this.#reading.set(key, reading);
    await reading;
  }

  /** @param {Room} room @param {string} root */
  async #readThread(room, root) {
    const { threads } = room.timeline;
    let from = "";
    for (let page = 0; page < MOST_PAGES; page += 1) {
      const answer = await this.api.thread(room.id, root, from);
      room.timeline.adopt(answer.chunk ?? []);
      from = answer.next_batch ?? "";
      if (!from) break;
    }
    threads.markWhole(root);
    this.rooms.changed([room.id]);
  }

  /**
   * Learns names and pictures of everybody in a small room, in a large one if told so.
   *
   * @param {Room} room
   * @param {{large?: boolean}} [which]
   */
  async people(room, { large = false } = {}) {
    if (this.#peopled.has(room.id) || (room.joinedCount > MOST_MEMBERS && !large)) return;
    this.#peopled.add(room.id);
    try {
      const { joined } = await this.api.joinedMembers(room.id);
      for (const [id, profile] of Object.entries(joined)) {
        room.setMember(id, profile.display_name, profile.avatar_url, true);
      }
      this.rooms.changed([room.id]);
    } catch {
      this.#peopled.delete(room.id);
    }
  }
}
