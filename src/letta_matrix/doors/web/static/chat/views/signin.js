/** The sign-in screen, and the question before a link replaces a session. */

import { signInProblem, signInWithPassword } from "../session.js";
import { h, icon } from "./dom.js";

/** @typedef {import("../types.js").Session} Session */

/**
 * @param {{homeserver: string, reason: string|null, onSession: (session: Session) => void}} context
 * @returns {HTMLElement}
 */
export function signInView({ homeserver, reason, onSession }) {
  const problem = h("p.problem", { role: "alert", id: "sign-in-problem", hidden: !reason }, reason);
  const typed = { autocapitalize: "none", spellcheck: "false" };
  const hidden = { type: "password", autocomplete: "current-password" };
  const user = field("User name", { name: "user", autocomplete: "username", ...typed });
  const password = field("Password", { name: "password", ...hidden });
  const button = h("button.primary", { type: "submit" }, "Sign in");
  const form = h("form.sign-in-form", { method: "post", onsubmit: submit }, problem, user, password, button);

  /** @param {string} text */
  function complain(text) {
    problem.textContent = text;
    problem.hidden = false;
  }

  /** @param {SubmitEvent} event */
  async function submit(event) {
    event.preventDefault();
    const given = new FormData(form);
    const name = String(given.get("user")).trim();
    if (!name || !given.get("password")) return complain("Enter your user name and password.");
    button.disabled = true;
    button.textContent = "Signing in …";
    try {
      onSession(await signInWithPassword(homeserver, name, String(given.get("password"))));
    } catch (error) {
      complain(signInProblem(error, "password"));
      button.disabled = false;
      button.textContent = "Sign in";
      form.querySelector("[name=password]").select();
    }
  }

  return h("main.sign-in", {},
    h("div.card", {},
      h("div.brand-mark", {}, icon("mark")),
      h("h1", {}, "Talk to your agents"),
      h("p.lead", {},
        "Sign in with the account ",
        h("code", {}, "letta-matrix up"),
        " printed when it started, or open the one-time link beside it.",
      ),
      form,
      h("p.fine", {}, "Homeserver ", h("code", {}, homeserver)),
    ),
  );
}

/**
 * Asks somebody who is signed in whether a sign-in link is to be used.
 *
 * @param {{userId: string, onLink: () => void, onStay: () => void}} context
 * @returns {HTMLElement}
 */
export function linkQuestion({ userId, onLink, onStay }) {
  const link = h("button", { type: "button", onclick: () => answer(onLink) }, "Sign in with the link");
  const stay = h("button.primary", { type: "button", name: "stay", onclick: () => answer(onStay) }, "Stay signed in");

  /** @param {() => void} callback */
  function answer(callback) {
    link.disabled = stay.disabled = true;
    callback();
  }

  return h("main.sign-in", {},
    h("div.card", {},
      h("div.brand-mark", {}, icon("mark")),
      h("h1", {}, "Sign in with this link instead?"),
      h("p.lead", {}, "You are signed in as ", h("code", {}, userId), ". The link ends that session."),
      h("div.sign-in-form", {}, stay, link),
    ),
  );
}

/** @param {string} title @param {Record<string, string>} attributes */
function field(title, attributes) {
  return h("label.field", {}, h("span", {}, title), h("input", { type: "text", ...attributes }));
}
