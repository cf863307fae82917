/** The page's beginning: the dashboard, or the sign-in screen. */

import { h } from "../chat/views/dom.js";
import { Api } from "./api.js";
import { Live } from "./live.js";
import { forgetSession, onSessionChangedElsewhere, restoreSession, signOut } from "./session.js";
import { Frame } from "./views/frame.js";
import { signInView } from "./views/signin.js";

const app = /** @type {HTMLElement} */ (document.getElementById("app"));

/** @param {string|null} reason */
function showSignIn(reason) {
  document.title = "Letta dashboard";
  app.replaceChildren(signInView({ reason, onSession: showDashboard }));
  /** @type {HTMLElement|null} */ (app.querySelector("input"))?.focus();
}

/** @param {import("./session.js").Session} session */
function showDashboard(session) {
  const api = new Api(session.token);
  const live = new Live(api);
  const leave = (/** @type {string|null} */ reason) => {
    live.stop();
    frame.dispose();
    forgetSession();
    showSignIn(reason);
  };
  api.onEnded = (reason) => leave(`${reason} Sign in again.`);
  const frame = new Frame(api, live, session, {
    leave: async () => {
      await signOut(session);
      leave(null);
    },
  });
  app.replaceChildren(frame.element);
  live.run();
}

function start() {
  onSessionChangedElsewhere(() => location.reload());
  const session = restoreSession();
  if (session) showDashboard(session);
  else showSignIn(null);
}

try {
  start();
} catch (error) {
  app.replaceChildren(h("p.fatal", { role: "alert" }, `The dashboard cannot start. ${error.message}`));
}
