/** The page's beginning: settings, session, then the rooms or the sign-in screen. */

import { Account } from "./account.js";
import { Api } from "./api.js";
import {
  forgetSession,
  onSessionChangedElsewhere,
  restoreSession,
  signInProblem,
  signInWithToken,
  takeLoginToken,
} from "./session.js";
import { h } from "./views/dom.js";
import { Shell } from "./views/shell.js";
import { linkQuestion, signInView } from "./views/signin.js";

/** @typedef {import("./types.js").Session} Session */
/** @typedef {import("./types.js").Settings} Settings */

const app = /** @type {HTMLElement} */ (document.getElementById("app"));

/** @param {Settings} settings @param {string|null} reason */
function showSignIn(settings, reason) {
  document.title = "Letta chat";
  const homeserver = settings.homeserver_url;
  app.replaceChildren(
    signInView({ homeserver, reason, onSession: (session) => showRooms(settings, session) }),
  );
  /** @type {HTMLElement|null} */ (app.querySelector("input"))?.focus();
}

/** @param {Settings} settings @param {Session} session @param {string} [notice] */
function showRooms(settings, session, notice) {
  const leave = (/** @type {string|null} */ reason) => {
    shell.dispose();
    forgetSession();
    history.replaceState(null, "", location.pathname);
    showSignIn(settings, reason);
  };
  const account = new Account(session, settings, {
    onStatus: (online) => shell.setOnline(online),
    onEnded: leave,
  });
  const signOut = async () => {
    await account.signOut();
    leave(null);
  };
  const shell = new Shell(account, { signOut });
  app.replaceChildren(shell.element);
  if (notice) shell.toast(notice);
  account.start();
}

/**
 * A link may come from anybody: it ends a kept session only when its owner says so.
 *
 * @param {Settings} settings
 * @param {string} token
 * @param {Session} before
 */
function askBeforeLink(settings, token, before) {
  const question = linkQuestion({
    userId: before.userId,
    onLink: () => enterByLink(settings, token, before),
    onStay: () => showRooms(settings, before),
  });
  app.replaceChildren(question);
  /** @type {HTMLElement|null} */ (app.querySelector("[name=stay]"))?.focus();
}

/** @param {Settings} settings @param {string} token @param {Session|null} before */
async function enterByLink(settings, token, before) {
  const homeserver = settings.homeserver_url;
  try {
    const session = await signInWithToken(homeserver, token);
    if (before) new Api(homeserver, before.accessToken).logout().catch(() => {});
    showRooms(settings, session);
  } catch (error) {
    const problem = signInProblem(error, "token");
    if (before) showRooms(settings, before, `${problem} You are still signed in.`);
    else showSignIn(settings, `${problem} Sign in with your password, or print a new link with \`letta-matrix link\`.`);
  }
}

async function start() {
  const token = takeLoginToken();
  const answer = await fetch(new URL("config.json", import.meta.url));
  if (!answer.ok) throw new Error(`The page's settings are missing (status ${answer.status}).`);
  /** @type {Settings} */
  const settings = await answer.json();
  const session = restoreSession(settings.homeserver_url);
  onSessionChangedElsewhere(() => location.reload());
  addEventListener("hashchange", () => {
    if (location.hash.startsWith("#token=")) location.reload();
  });
  if (token && session) askBeforeLink(settings, token, session);
  else if (token) await enterByLink(settings, token, null);
  else if (session) showRooms(settings, session);
  else showSignIn(settings, null);
}

start().catch((error) => {
  app.replaceChildren(h("p.fatal", { role: "alert" }, `The chat page cannot start. ${error.message}`));
});
