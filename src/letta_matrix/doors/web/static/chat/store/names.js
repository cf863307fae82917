/** What people call rooms. */

const AGENT_ROOM_SUFFIX = " - Letta Agent Chat";

/** A room's name without what every agent's room has in common. @param {string} name */
export function shortName(name) {
  return name.endsWith(AGENT_ROOM_SUFFIX) ? name.slice(0, -AGENT_ROOM_SUFFIX.length) : name;
}
