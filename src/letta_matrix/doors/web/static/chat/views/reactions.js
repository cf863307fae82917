/** Reactions below a message, and the answers to a question. */

import { choicesOf, isAnswer, isOpenQuestion, isQuestion, optionWord, plainKey } from "../store/questions.js";
import { h, morph } from "./dom.js";

/** @typedef {import("../types.js").Item} Item */
/** @typedef {import("../types.js").Reaction} Reaction */
/** @typedef {import("../store/questions.js").Choice} Choice */
/** @typedef {import("../store/room.js").Room} Room */

/** @param {HTMLElement} element @param {Item} item @param {Room} room */
export function showReactions(element, item, room) {
  const choices = choicesOf(item, room.ownUserId);
  const offered = new Set(choices.map(({ key }) => plainKey(key)));
  const others = shownOf(item).filter(({ key }) => !offered.has(plainKey(key)));
  const buttons = choices.map((choice) => answerButton(choice, item, room));
  const chips = others.map((reaction) => chip(reaction, item, room));
  const fragment = document.createDocumentFragment();
  fragment.append(...buttons, ...chips);
  morph(element, fragment);
  element.hidden = !element.hasChildNodes();
  element.setAttribute("aria-label", isOpenQuestion(item) ? "Answer the question" : "Reactions");
}

/**
 * What an agent offered means nothing once the question is answered, and what became of one about a
 * tool, and by whom, it says itself.
 *
 * @param {Item} item
 */
function shownOf(item) {
  if (!isQuestion(item) || isOpenQuestion(item)) return item.reactions;
  return item.reactions
    .filter(({ key }) => item.beside !== "approval" || !isAnswer(item, key))
    .map((one) => ({ ...one, senders: one.senders.filter((sender) => sender !== item.sender) }))
    .filter((one) => one.senders.length);
}

/** @param {Choice} choice @param {Item} item @param {Room} room */
function answerButton({ key, word, kind }, item, room) {
  const reaction = item.reactions.find((one) => plainKey(one.key) === plainKey(key));
  const people = (reaction?.senders ?? []).filter((sender) => sender !== item.sender);
  const attributes = {
    type: "button",
    "data-reaction": key,
    "aria-pressed": kind === "again" ? null : String(Boolean(reaction?.own)),
    title: people.length ? namesOf(people, room) : null,
    // The first answer counts, and cannot be taken back.
    disabled: kind === "option" && item.reactions.some(({ key, own }) => own && isAnswer(item, key)),
  };
  const count = people.length > 0 && h("span.count", {}, String(people.length));
  const sign = h("span", { "aria-hidden": "true" }, key);
  return h(`button.answer.${kind}`, attributes, sign, h("span", {}, word), count);
}

/** @param {Reaction} reaction @param {Item} item @param {Room} room */
function chip({ key, senders, own }, item, room) {
  const names = namesOf(senders, room);
  const word = optionWord(item, key);
  const attributes = {
    type: "button",
    "data-reaction": key,
    "aria-pressed": String(Boolean(own)),
    title: names,
    "aria-label": `${[key, word].filter(Boolean).join(" ")}, ${senders.length}, by ${names}`,
    // The answer stands: taking back the reaction would only look like taking it back.
    disabled: isAnswer(item, key),
  };
  const count = h("span.count", {}, String(senders.length));
  return h("button.chip", attributes, h("span", {}, key), word && h("span", {}, word), count);
}

/** @param {string[]} ids @param {Room} room */
function namesOf(ids, room) {
  return ids.map((id) => room.member(id).name).join(", ");
}
