/** Who is meant by `@` and a name (Matrix specification, user and room mentions). */

import { isAgentId, localpart } from "./store/ids.js";

/** @typedef {{id: string, name: string, avatar: string|null, names: string[]}} Person `names`: all that mean them */
/** @typedef {import("./store/room.js").Room} Room */

const LETTER = "[\\w\\u00c0-\\u024f\\u0370-\\u052f]";
const SAID_BY_NOBODY = "a, code, pre, blockquote";

/**
 * Everybody in a room who can be mentioned.
 *
 * @param {Room} room
 * @param {string} bot the appservice's bot, which answers no mention
 * @returns {Person[]} agents first, by name
 */
export function peopleOf(room, bot) {
  const people = room.others.filter((id) => id !== bot).map((id) => {
    const { name, avatar } = room.member(id);
    return { id, name, avatar, names: [name, id.slice(1), localpart(id)] };
  });
  const rank = (/** @type {Person} */ { id }) => (isAgentId(id) ? 0 : 1);
  return people.sort((one, other) => rank(one) - rank(other) || one.name.localeCompare(other.name));
}

/**
 * Makes each `@name` a link to its bearer; code and quotes are left alone. A name that several
 * bear means all of them.
 *
 * @param {HTMLElement} root
 * @param {Person[]} people
 * @returns {string[]} ids of those who are meant, each once
 */
export function linkMentions(root, people) {
  if (!people.length || !root.textContent?.includes("@")) return [];
  const pattern = patternOf(people.flatMap(({ names }) => names));
  /** @type {Set<string>} */
  const meant = new Set();
  for (const text of textsOf(root)) {
    const parts = linked(text.data, pattern, people, meant);
    if (parts.length > 1) text.replaceWith(...parts);
  }
  return [...meant];
}

/**
 * A reply mentions whom it answers as well (specification, mentioning the replied to user).
 *
 * @param {Record<string, any>} content
 * @param {string} id
 */
export function alsoMentioning(content, id) {
  const ids = content["m.mentions"]?.user_ids ?? [];
  return { ...content, "m.mentions": { user_ids: [...new Set([...ids, id])] } };
}

/** @param {HTMLElement} root @returns {Text[]} */
function textsOf(root) {
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode()) {
    const text = /** @type {Text} */ (walker.currentNode);
    if (!text.parentElement?.closest(SAID_BY_NOBODY)) texts.push(text);
  }
  return texts;
}

/** @param {string} text @param {RegExp} pattern @param {Person[]} people @param {Set<string>} meant */
function linked(text, pattern, people, meant) {
  const parts = [];
  let at = 0;
  for (const { index, 0: whole, 1: name } of text.matchAll(pattern)) {
    const ids = people.filter(({ names }) => names.some((one) => isSame(one, name))).map(({ id }) => id);
    if (!ids.length) continue;
    for (const id of ids) meant.add(id);
    parts.push(text.slice(at, index), link(ids[0], whole));
    at = index + whole.length;
  }
  return [...parts, text.slice(at)];
}

/** @param {string} id @param {string} words */
function link(id, words) {
  const element = document.createElement("a");
  element.setAttribute("href", `https://matrix.to/#/${encodeURIComponent(id).replace("%40", "@").replaceAll("%3A", ":")}`);
  element.textContent = words;
  return element;
}

/** @param {string} one @param {string} other */
function isSame(one, other) {
  return one.toLowerCase() === other.toLowerCase();
}

/** `@` and one of the names, the longest that fits. @param {string[]} names */
function patternOf(names) {
  const longestFirst = [...new Set(names)].sort((one, other) => other.length - one.length);
  const either = longestFirst.map(escaped).join("|");
  // A name that goes on, also with a server, is another one.
  return new RegExp(`(?<!${LETTER}|[@/.:])@(${either})(?!${LETTER}|:[\\w[])`, "gi");
}

/** @param {string} text as a regular expression */
function escaped(text) {
  return text.replace(/[.*+?^${}()|[\]\\/-]/g, "\\$&");
}
