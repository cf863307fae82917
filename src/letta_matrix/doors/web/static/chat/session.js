/** Who is signed in: kept in this browser, one session for all tabs. */

import { Api, MatrixError } from "./api.js";

/** @typedef {import("./types.js").Session} Session */

const STORAGE_KEY = "letta-matrix.chat.session";
const TOKEN_FRAGMENT = /^#token=(.+)$/;

/**
 * The kept session, if it belongs to this homeserver.
 *
 * @param {string} homeserver
 * @returns {Session|null}
 */
export function restoreSession(homeserver) {
  try {
    const session = JSON.parse(localStorage.getItem(STORAGE_KEY) ?? "null");
    return session?.homeserver === homeserver && session.accessToken ? session : null;
  } catch {
    return null;
  }
}

/** @param {Session} session */
function keepSession(session) {
  try {
    localStorage.setItem(STORAGE_KEY, JSON.stringify(session));
  } catch {
    // A browser that keeps nothing for us: the session lasts as long as the page.
  }
}

export function forgetSession() {
  localStorage.removeItem(STORAGE_KEY);
}

/**
 * Calls back when another tab signs in or out.
 *
 * @param {() => void} callback
 */
export function onSessionChangedElsewhere(callback) {
  addEventListener("storage", (event) => {
    if (event.key === STORAGE_KEY || event.key === null) callback();
  });
}

/** The one-time login token of the address bar, which loses it at once. */
export function takeLoginToken() {
  const match = TOKEN_FRAGMENT.exec(location.hash);
  if (!match) return null;
  history.replaceState(null, "", location.pathname + location.search);
  try {
    return decodeURIComponent(match[1]);
  } catch {
    return match[1];
  }
}

/** @param {string} homeserver @param {string} user @param {string} password */
export function signInWithPassword(homeserver, user, password) {
  const identifier = { type: "m.id.user", user };
  return signIn(homeserver, { type: "m.login.password", identifier, password });
}

/** @param {string} homeserver @param {string} token */
export function signInWithToken(homeserver, token) {
  return signIn(homeserver, { type: "m.login.token", token });
}

/**
 * @param {string} homeserver
 * @param {Record<string, any>} credentials
 * @returns {Promise<Session>}
 */
async function signIn(homeserver, credentials) {
  const answer = await new Api(homeserver).login(credentials);
  const session = {
    homeserver,
    userId: answer.user_id,
    accessToken: answer.access_token,
    deviceId: answer.device_id,
  };
  keepSession(session);
  return session;
}

/**
 * One sentence a person can act on.
 *
 * @param {unknown} error
 * @param {"token"|"password"} way
 */
export function signInProblem(error, way) {
  if (!(error instanceof MatrixError)) {
    return "The homeserver cannot be reached. Is letta-matrix running?";
  }
  if (error.status === 429) return "Too many attempts. Wait a minute, then try again.";
  if (error.status === 403 && way === "token") {
    return "This sign-in link was already used or has expired.";
  }
  if (error.status === 403) return "User name or password is wrong.";
  return error.message;
}
