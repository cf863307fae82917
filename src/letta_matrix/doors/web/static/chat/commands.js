/** What one can tell the bridge, and how it is typed. */

/** @typedef {import("./types.js").Command} Command */
/** @typedef {import("./store/room.js").Room} Room */

const TYPED = /^[!/]([\w-]+)(?=\s|$)/;

/** What a command begins with in a room: in those that agents share it names the bridge. @param {Room} room */
export function prefixIn(room) {
  return room.ownerId || !room.agentId ? "!" : "!letta ";
}

/**
 * Commands whose name, or another name of theirs, begins so.
 *
 * @param {Command[]} commands
 * @param {string} begun without its sign
 */
export function commandsLike(commands, begun) {
  const word = begun.toLowerCase();
  const rank = (/** @type {Command} */ { name, aliases }) => {
    if (name.startsWith(word)) return 0;
    return aliases.some((alias) => alias.startsWith(word)) ? 1 : 2;
  };
  const near = commands.filter((command) => rank(command) < 2);
  return near.sort((one, other) => rank(one) - rank(other));
}

/** @param {Command} command @param {string} word */
export function isCalled({ name, aliases }, word) {
  return name === word || aliases.includes(word);
}

/**
 * What is sent for a text: `/status` is the command `!status`, if there is one.
 *
 * @param {string} text
 * @param {Command[]} commands
 * @param {Room} room
 */
export function withSign(text, commands, room) {
  const word = TYPED.exec(text)?.[1].toLowerCase() ?? "";
  const known = commands.some((command) => isCalled(command, word));
  return known && text.startsWith("/") ? prefixIn(room) + text.slice(1) : text;
}
