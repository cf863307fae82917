/** Who is signed in: kept in this browser, one session for all tabs, as the chat page keeps its own. */

import { Api, login, ProblemError } from "./api.js";

/**
 * @typedef {object} Session
 * @property {string} token of the bridge
 * @property {string} tokenId
 * @property {string} name as whom
 * @property {boolean} ours the token was made by signing in, and ends by signing out
 */

const STORAGE_KEY = "letta-matrix.dashboard.session";
/** Tells the bridge where `/` leads; it is no secret. */
const HOME = "letta-matrix-home";

/** @returns {Session|null} */
export function restoreSession() {
  try {
    const session = JSON.parse(localStorage.getItem(STORAGE_KEY) ?? "null");
    return session?.token ? session : null;
  } catch {
    return null;
  }
}

/** @param {Session} session */
function keepSession(session) {
  try {
    localStorage.setItem(STORAGE_KEY, JSON.stringify(session));
    document.cookie = `${HOME}=dashboard; path=/; SameSite=Lax; max-age=2592000`;
  } catch {
    // A browser that keeps nothing for us: the session lasts as long as the page.
  }
}

export function forgetSession() {
  localStorage.removeItem(STORAGE_KEY);
  document.cookie = `${HOME}=; path=/; SameSite=Lax; max-age=0`;
}

/** Calls back when another tab signs in or out. @param {() => void} callback */
export function onSessionChangedElsewhere(callback) {
  addEventListener("storage", (event) => {
    if (event.key === STORAGE_KEY || event.key === null) callback();
  });
}

/** @param {string} user @param {string} password */
export async function signInWithPassword(user, password) {
  const { access_token: token, user_id: name } = await login(user, password);
  return begun(token, name, true);
}

/** @param {string} token of the bridge */
export function signInWithToken(token) {
  return begun(token, "", false);
}

/** @param {Session} session */
export async function signOut(session) {
  forgetSession();
  if (session.ours) await new Api(session.token).call("DELETE", `/tokens/${session.tokenId}`).catch(() => {});
}

/**
 * @param {string} token @param {string} name @param {boolean} ours
 * @returns {Promise<Session>}
 */
async function begun(token, name, ours) {
  const { principal, user_id: user, scopes } = await new Api(token).call("GET", "/whoami");
  if (!scopes.includes("admin")) {
    throw new Error(ours
      ? `${name} is no admin of the bridge: an operator names its admins under permissions in config.yaml.`
      : "This token may not do that: the dashboard needs one with the scope admin.");
  }
  const session = { token, tokenId: principal.split(":")[1], name: name || user, ours };
  keepSession(session);
  return session;
}

/** One sentence a person can act on. @param {any} error */
export function signInProblem(error) {
  if (error instanceof ProblemError && error.status === 429) return "Too many attempts. Wait a minute, then try again.";
  return error.message;
}
