/** Changing what one said: edits (`m.replace`) and redactions of our own messages. */

import { newTransactionId } from "./api.js";

/** @typedef {import("./store/room.js").Room} Room */
/** @typedef {import("./types.js").Item} Item */

const EDITABLE = new Set(["m.text", "m.emote"]);

export class Corrections {
  /** @param {import("./api.js").Api} api @param {import("./store/rooms.js").RoomStore} rooms */
  constructor(api, rooms) {
    this.api = api;
    this.rooms = rooms;
  }

  /** @param {Room} room @param {Item} item @param {Record<string, any>} content the new one */
  async edit(room, item, content) {
    const edit = editContent(item, content);
    const { event_id: id } = await this.api.send(room.id, "m.room.message", newTransactionId(), edit);
    const event = { event_id: id, type: "m.room.message", sender: room.ownUserId, content: edit };
    // Shown before the next sync brings it and its time: by the homeserver's clock, which is not
    // this machine's, it comes after what it changes and before whatever is said later.
    room.timeline.relations.take({ ...event, origin_server_ts: item.revisedAt + 1 });
    this.rooms.changed([room.id]);
  }

  /** @param {Room} room @param {Item} item */
  async remove(room, item) {
    const id = item.id ?? "";
    await this.api.redact(room.id, id, newTransactionId());
    room.timeline.relations.redact(id);
    this.rooms.changed([room.id]);
  }
}

/** What one can do to a message. @param {Item} item @param {Room} room */
export function allowed(item, room) {
  const said = item.id !== null && item.kind === "message";
  const own = said && item.sender === room.ownUserId;
  return {
    reply: said && item.beside !== "trace",
    copy: said && Boolean(navigator.clipboard) && typeof item.content.body === "string",
    edit: own && EDITABLE.has(item.content.msgtype),
    remove: own,
  };
}

/**
 * An edit pings only those whom the message did not mention before (specification, mentions).
 *
 * @param {Item} item
 * @param {Record<string, any>} content
 */
function editContent(item, content) {
  const before = mentionsOf(item.content);
  const added = mentionsOf(content).filter((id) => !before.includes(id));
  const html = content.formatted_body;
  return {
    ...content,
    body: `* ${content.body}`,
    ...(html && { formatted_body: `* ${html}` }),
    "m.mentions": added.length ? { user_ids: added } : {},
    "m.new_content": { ...content, "m.mentions": content["m.mentions"] ?? {} },
    "m.relates_to": { rel_type: "m.replace", event_id: item.id },
  };
}

/** @param {Record<string, any>} content @returns {string[]} */
function mentionsOf(content) {
  const ids = content["m.mentions"]?.user_ids;
  return Array.isArray(ids) ? ids : [];
}
