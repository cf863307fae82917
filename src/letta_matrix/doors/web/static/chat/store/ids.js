/** What a user id tells. */

/** @param {string} userId */
export function isAgentId(userId) {
  return userId.startsWith("@agent_");
}

/** @param {string} userId */
export function localpart(userId) {
  return userId.slice(1).split(":")[0];
}
