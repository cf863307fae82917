/** What agents do with what was said: which message they are at, and which wait their turn. */

import { isAgentId } from "./ids.js";
import { isLive } from "./live.js";
import { answers } from "./marker.js";
import { isOpenQuestion, isQuestion } from "./questions.js";

/** @typedef {import("../types.js").Item} Item */
/** @typedef {import("./room.js").Room} Room */

/**
 * The message that stands for what an agent does here: its growing reply, the question it waits
 * at, else our message that it is at; null while no agent works.
 *
 * @param {Room} room
 * @param {string[]} writers user ids of those who write
 * @param {Item[]} items what was said here, oldest first
 * @returns {Item|null}
 */
export function worked(room, writers, items) {
  const shown = shownWork(items);
  if (shown) return shown;
  if (!writers.some(isAgentId)) return null;
  const own = prompts(items, room).filter((item) => item.sender === room.ownUserId);
  const open = [...new Set(own.map(({ thread }) => thread))].flatMap((thread) => {
    const asked = own.filter((item) => item.thread === thread);
    // Questions are answered in order: the first open one after the last answered one.
    return asked[lastAnswered(asked, items) + 1] ?? [];
  });
  return open.at(-1) ?? null;
}

/** The newest event that shows an agent at work. @param {Item[]} items */
function shownWork(items) {
  const works = (/** @type {Item} */ item) => isLive(item) || (item.beside === "approval" && isOpenQuestion(item));
  return items.findLast((item) => isAgentId(item.sender) && works(item));
}

/** @param {Item[]} asked @param {Item[]} items @returns {number} index in `asked`; -1 for none */
function lastAnswered(asked, items) {
  const done = new Set(items.filter((item) => !item.beside).map((item) => answers(item.content)));
  return asked.findLastIndex((item) => done.has(item.id));
}

/**
 * Whether what was said last here is for an agent or by one that still writes: typing tells of a
 * room only, not of a thread.
 *
 * @param {Item[]} items
 * @param {Room} room
 */
export function isWorkedOn(items, room) {
  const last = items.findLast((item) => !item.beside && item.kind !== "renamed");
  return last !== undefined && (last.sender === room.ownUserId || isLive(last));
}

/**
 * Ids of our messages that wait because an agent is still at an earlier one.
 *
 * @param {Room} room
 * @param {string[]} writers user ids of those who write
 * @param {Item[]} items what was said in one conversation, oldest first
 * @returns {Set<string>}
 */
export function queued(room, writers, items) {
  const asked = prompts(items, room);
  const at = current(room, writers, items, asked);
  if (at === null) return new Set();
  const waiting = asked.slice(at + 1).filter((item) => item.sender === room.ownUserId);
  return new Set(waiting.map((item) => item.id ?? ""));
}

/**
 * What is worked on, as an index in `asked`; null while no agent works.
 *
 * @param {Room} room
 * @param {string[]} writers
 * @param {Item[]} items
 * @param {Item[]} asked
 */
function current(room, writers, items, asked) {
  const shown = shownWork(items);
  if (shown) {
    const target = answers(shown.content);
    const at = asked.findIndex((item) => item.id === target);
    return at >= 0 ? at : asked.findLastIndex((item) => item.ts <= shown.ts);
  }
  if (!writers.some(isAgentId)) return null;
  const read = asked.findLastIndex((item) => room.isReadByAgent(item.id ?? ""));
  return Math.max(lastAnswered(asked, items) + 1, read);
}

/** What people said for an agent to answer. @param {Item[]} items @param {Room} room */
function prompts(items, room) {
  const answering = answersToQuestions(items);
  return items.filter((item) => {
    const said = item.id && item.kind === "message" && !isAgentId(item.sender);
    return said && !answering.has(item) && !isCommand(item) && isForAgents(item, room);
  });
}

/** Commands are done at once. @param {Item} item */
function isCommand({ content }) {
  return typeof content.body === "string" && content.body.trimStart().startsWith("!");
}

/** Whether a message is for agents: those named, else those that answer there. @param {Item} item @param {Room} room */
function isForAgents({ content, thread }, room) {
  const named = content["m.mentions"]?.user_ids;
  if (Array.isArray(named) && named.length) return named.some((id) => isAgentId(String(id)));
  return thread !== null || room.answersAll;
}

/** What answers a question of an agent prompts nothing. @param {Item[]} items @returns {Set<Item>} */
function answersToQuestions(items) {
  /** @type {Set<Item>} */
  const answering = new Set();
  for (const question of items.filter(isQuestion)) {
    for (const item of items) {
      if (item.content["m.relates_to"]?.["m.in_reply_to"]?.event_id === question.id) answering.add(item);
    }
    const words = closingWords(question, items);
    if (words) answering.add(words);
  }
  return answering;
}

/**
 * What was said last before a question closed, unless a tap closed it.
 *
 * @param {Item} question
 * @param {Item[]} items
 */
function closingWords(question, items) {
  const tapped = question.reactions.some(({ senders }) => senders.some((id) => !isAgentId(id)));
  if (!question.revision || tapped) return null;
  const { ts, revisedAt } = question;
  return items.findLast((item) => !isAgentId(item.sender) && item.ts > ts && item.ts <= revisedAt) ?? null;
}
