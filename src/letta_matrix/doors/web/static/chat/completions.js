/** What one may be about to type: somebody's name after `@`, a command after `!` or `/`. */

import { commandsLike, isCalled, prefixIn } from "./commands.js";
import { peopleOf } from "./mentions.js";
import { isAgentId, localpart } from "./store/ids.js";

/** @typedef {import("./account.js").Account} Account */
/** @typedef {import("./store/room.js").Room} Room */
/** @typedef {import("./mentions.js").Person} Person */
/**
 * @typedef {object} Option
 * @property {string} key
 * @property {string} text what is put into the box
 * @property {string} label
 * @property {string} detail
 * @property {Person|null} person
 * @property {boolean} whole whether it is typed already
 */
/** @typedef {{from: number, options: Option[]}} Found they replace the text from `from` on */

const COMMAND = /^[!/](?:letta +)?([\w-]*)$/;
const MENTION = /(?:^|[\s(])@((?:[^\s@][^@\n]{0,40})?)$/;
const MOST = 8;

/**
 * @param {Account} account
 * @param {Room} room
 * @param {string} before the text before the caret
 * @returns {Found|null}
 */
export function completions(account, room, before) {
  const command = COMMAND.exec(before);
  const found = command ? commandsAt(account, room, command[1]) : peopleAt(account, room, before);
  return found?.options.length ? found : null;
}

/** @param {Account} account @param {Room} room @param {string} begun @returns {Found} */
function commandsAt(account, room, begun) {
  const options = commandsLike(account.commands, begun).map((command) => ({
    key: command.name,
    text: `${prefixIn(room)}${command.name}${command.usage.includes(" ") ? " " : ""}`,
    label: command.usage,
    detail: command.help.replaceAll("`", "") + (command.admin ? " For admins." : ""),
    person: null,
    whole: isCalled(command, begun.toLowerCase()),
  }));
  return { from: 0, options };
}

/** @param {Account} account @param {Room} room @param {string} before @returns {Found|null} */
function peopleAt(account, room, before) {
  const match = MENTION.exec(before);
  if (!match) return null;
  const begun = match[1].toLowerCase();
  const near = peopleOf(room, account.rooms.botUserId).filter((person) => isNear(person, begun));
  const options = near.slice(0, MOST).map((person) => ({
    key: person.id,
    text: `@${person.name} `,
    label: person.name,
    detail: isAgentId(person.id) ? "agent" : person.id,
    person,
    whole: false,
  }));
  return { from: before.length - match[1].length - 1, options };
}

/** @param {Person} person @param {string} begun */
function isNear({ id, name }, begun) {
  const called = name.toLowerCase();
  const word = !begun.includes(" ") && called.split(/\s+/).some((part) => part.startsWith(begun));
  // All agents' user ids begin alike.
  return word || called.startsWith(begun) || (!isAgentId(id) && localpart(id).startsWith(begun));
}
