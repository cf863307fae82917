/** Reactions below a message, and the answers to an approval. */

import { h, morph } from "./dom.js";

/** @typedef {import("../types.js").Item} Item */
/** @typedef {import("../types.js").Reaction} Reaction */
/** @typedef {import("../store/room.js").Room} Room */

const ANSWERS = new Map([
  ["✅", "Allow"],
  ["❌", "Deny"],
  ["♾", "Always allow"],
]);
const VARIANT = /\ufe0f/g;

/** @param {string} key of a reaction */
function answerOf(key) {
  return ANSWERS.get(key.replace(VARIANT, "")) ?? "";
}

/** Whether an agent still waits for the answer. @param {Item} item */
export function isOpenQuestion(item) {
  return item.beside === "approval" && !item.revision;
}

/** @param {HTMLElement} element @param {Item} item @param {Room} room */
export function showReactions(element, item, room) {
  const open = isOpenQuestion(item);
  const chips = shownOf(item).map((reaction) => {
    const offered = open && answerOf(reaction.key) && reaction.senders.includes(item.sender);
    return offered ? answerButton(reaction, item, room) : chip(reaction, item, room);
  });
  const fragment = document.createDocumentFragment();
  fragment.append(...chips);
  morph(element, fragment);
  element.hidden = !chips.length;
  element.setAttribute("aria-label", open ? "Answer the question" : "Reactions");
}

/** What an agent offered means nothing once the question is answered. @param {Item} item */
function shownOf(item) {
  if (item.beside !== "approval" || isOpenQuestion(item)) return item.reactions;
  return item.reactions
    .map((one) => ({ ...one, senders: one.senders.filter((sender) => sender !== item.sender) }))
    .filter((one) => one.senders.length);
}

/** @param {Reaction} reaction @param {Item} item @param {Room} room */
function answerButton(reaction, item, room) {
  const people = reaction.senders.filter((sender) => sender !== item.sender);
  const { key, own } = reaction;
  const attributes = {
    type: "button",
    "data-reaction": key,
    "aria-pressed": String(Boolean(own)),
    title: people.length ? namesOf(people, room) : null,
  };
  const word = answerOf(key);
  const kind = word === "Deny" ? "deny" : word === "Allow" ? "allow" : "always";
  const count = people.length > 0 && h("span.count", {}, String(people.length));
  const sign = h("span", { "aria-hidden": "true" }, key);
  return h(`button.answer.${kind}`, attributes, sign, h("span", {}, word), count);
}

/** @param {Reaction} reaction @param {Item} item @param {Room} room */
function chip({ key, senders, own }, item, room) {
  const names = namesOf(senders, room);
  const attributes = {
    type: "button",
    "data-reaction": key,
    "aria-pressed": String(Boolean(own)),
    title: names,
    "aria-label": `${key} by ${names}`,
    // The answer stands: taking back the reaction would only look like taking it back.
    disabled: item.beside === "approval" && Boolean(answerOf(key)),
  };
  return h("button.chip", attributes, h("span", {}, key), h("span.count", {}, String(senders.length)));
}

/** @param {string[]} ids @param {Room} room */
function namesOf(ids, room) {
  return ids.map((id) => room.member(id).name).join(", ");
}
