/** What agents ask people, and what can be chosen as the answer. */

import { isAgentId } from "./ids.js";
import { ASK_AGAIN, isAsking, offersAgain } from "./marker.js";

/** @typedef {import("../types.js").Item} Item */
/**
 * @typedef {object} Choice an answer that is a reaction
 * @property {string} key the reaction
 * @property {string} word
 * @property {"allow"|"deny"|"always"|"option"|"again"} kind
 */

const VARIANT = /\ufe0f/g;
/** @type {Map<string, Omit<Choice, "key">>} */
const DECISIONS = new Map([
  ["✅", { word: "Allow", kind: "allow" }],
  ["❌", { word: "Deny", kind: "deny" }],
  ["♾", { word: "Always allow", kind: "always" }],
]);
const NUMBERS = ["1️⃣", "2️⃣", "3️⃣", "4️⃣", "5️⃣", "6️⃣", "7️⃣", "8️⃣", "9️⃣", "🔟"];
/** Milliseconds: the tool waits 280 seconds at most, and may have failed to say that it is over. */
const LONGEST_WAIT = 6 * 60 * 1000;

/** A reaction as it is compared: some clients leave the variation selector out. @param {string} key */
export function plainKey(key) {
  return key.replace(VARIANT, "");
}

/** Whether a message asks for an answer, or did. @param {Item} item */
export function isQuestion(item) {
  return item.beside === "approval" || isAsking(item);
}

/** Whether an agent still waits for the answer. @param {Item} item */
export function isOpenQuestion(item) {
  if (item.kind !== "message" || item.revision || !isQuestion(item)) return false;
  return item.beside === "approval" || Date.now() - item.ts < LONGEST_WAIT;
}

/** The words of a question's options by their keys, in order. @param {Item} item @returns {Map<string, string>} */
export function optionsOf(item) {
  /** @type {Map<string, string>} */
  const options = new Map();
  if (!isAsking(item)) return options;
  for (const line of String(item.content.body).split("\n")) {
    const number = NUMBERS.findIndex((key) => line.startsWith(`${key} `));
    // The question may have such lines of its own: the options come last.
    if (number === 0) options.clear();
    if (number === options.size) options.set(NUMBERS[number], line.slice(NUMBERS[number].length + 1).trim());
  }
  return options;
}

/** What a person can choose at a message. @param {Item} item @param {string} person @returns {Choice[]} */
export function choicesOf(item, person = "") {
  if (isOpenQuestion(item)) return item.beside === "approval" ? decisionsOf(item) : numbersOf(item);
  const again = item.reactions.find(({ key }) => plainKey(key) === ASK_AGAIN);
  if (item.kind !== "message" || again?.own) return [];
  // An agent that puts it on somebody's message offers to be asked what that says now.
  const offered = again ? item.sender === person && again.senders.some(isAgentId) : offersAgain(item);
  if (!offered) return [];
  return [{ key: ASK_AGAIN, word: again ? "Ask again" : "Try again", kind: "again" }];
}

/** @param {Item} item @returns {Choice[]} */
function decisionsOf(item) {
  return item.reactions.flatMap(({ key, senders }) => {
    const decision = DECISIONS.get(plainKey(key));
    return decision && senders.includes(item.sender) ? [{ key, ...decision }] : [];
  });
}

/** @param {Item} item @returns {Choice[]} */
function numbersOf(item) {
  return [...optionsOf(item)].map(([key, word]) => ({ key, word, kind: "option" }));
}

/** Whether a reaction answers a question of this kind. @param {Item} item @param {string} key */
export function isAnswer(item, key) {
  const plain = plainKey(key);
  if (item.beside === "approval") return DECISIONS.has(plain);
  return isAsking(item) && NUMBERS.some((one) => plainKey(one) === plain);
}

/** The words of the option that a reaction stands for. @param {Item} item @param {string} key */
export function optionWord(item, key) {
  for (const [known, word] of optionsOf(item)) if (plainKey(known) === plainKey(key)) return word;
  return "";
}
