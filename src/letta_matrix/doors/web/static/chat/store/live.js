/** Messages that are still being written (MSC4357). */

const LIVE = "org.matrix.msc4357.live";
const STALE_AFTER = 10 * 60 * 1000;
export const CURSOR = /\s*▍\s*$/u;

/** Whether a message is still being written. @param {import("../types.js").Item} item */
export function isLive(item) {
  const { body } = item.content;
  const marked = LIVE in item.content || (typeof body === "string" && CURSOR.test(body));
  return marked && item.kind === "message" && !item.beside && Date.now() - item.revisedAt < STALE_AFTER;
}
