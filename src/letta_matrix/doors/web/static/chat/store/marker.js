/** What the bridge says about its own events. */

import { isAgentId } from "./ids.js";

const MARKER = "org.letta.matrix";
const KINDS = /** @type {const} */ (["approval", "trace", "notice"]);
/** The reaction that asks an agent again. */
export const ASK_AGAIN = "🔁";

/**
 * What an agent's message is beside its reply; null for the reply itself, and for people's messages.
 *
 * @param {string} sender
 * @param {Record<string, any>} content
 */
export function besideOf(sender, content) {
  const kind = content?.[MARKER]?.beside;
  if (!isAgentId(sender) || typeof kind !== "string") return null;
  return KINDS.find((known) => known === kind) ?? "notice";
}

/** The event an agent's message answers. @param {Record<string, any>} content @returns {string|null} */
export function answers(content) {
  const target = content?.[MARKER]?.in_reply_to;
  return typeof target === "string" ? target : null;
}

/** Whether an agent has asked this by its tool `ask_human`. @param {import("../types.js").Item} item */
export function isAsking({ sender, content }) {
  // By a notice the tool tells how the question stands.
  return isAgentId(sender) && content[MARKER]?.tool === "ask_human" && content.msgtype !== "m.notice";
}

/** Whether an agent's last words offer to ask it again. @param {import("../types.js").Item} item */
export function offersAgain({ sender, content, beside }) {
  const marker = content[MARKER];
  if (!isAgentId(sender) || !marker || beside === "trace" || beside === "approval") return false;
  // Only the bridge's own words are notices: an agent's reply may talk of the sign.
  return Boolean(marker.offer) || (content.msgtype === "m.notice" && String(content.body).includes(ASK_AGAIN));
}
