/** What the bridge says about its own events. */

import { isAgentId } from "./ids.js";

const MARKER = "org.letta.matrix";
const KINDS = /** @type {const} */ (["approval", "trace", "notice"]);

/**
 * What an agent's message is beside its reply; null for the reply itself, and for people's messages.
 *
 * @param {string} sender
 * @param {Record<string, any>} content
 */
export function besideOf(sender, content) {
  const kind = content?.[MARKER]?.beside;
  return (isAgentId(sender) && KINDS.find((known) => known === kind)) || null;
}

/** The event an agent's message answers. @param {Record<string, any>} content @returns {string|null} */
export function answers(content) {
  const target = content?.[MARKER]?.in_reply_to;
  return typeof target === "string" ? target : null;
}
