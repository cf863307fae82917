/** The sign-in screen: with a Matrix account, or with a token. */

import { h, icon } from "../../chat/views/dom.js";
import { signInProblem, signInWithPassword, signInWithToken } from "../session.js";

/**
 * @param {{reason: string|null, onSession: (session: import("../session.js").Session) => void}} context
 * @returns {HTMLElement}
 */
export function signInView({ reason, onSession }) {
  const problem = h("p.problem", { role: "alert", hidden: !reason }, reason);
  const typed = { type: "text", autocapitalize: "none", spellcheck: "false" };
  const account = form([
    field("User name", { name: "user", autocomplete: "username", ...typed }),
    field("Password", { name: "password", type: "password", autocomplete: "current-password" }),
  ], (given) => signInWithPassword(String(given.get("user")).trim(), String(given.get("password"))));
  const token = form([
    field("Token", { name: "token", type: "password", autocomplete: "off", placeholder: "lm_…" }),
  ], (given) => signInWithToken(String(given.get("token")).trim()));
  token.hidden = true;
  const other = h("button.link", { type: "button", onclick: () => swap() }, "Use a token instead");

  function swap() {
    account.hidden = !account.hidden;
    token.hidden = !token.hidden;
    problem.hidden = true;
    other.textContent = token.hidden ? "Use a token instead" : "Use your account instead";
    (token.hidden ? account : token).querySelector("input").focus();
  }

  /** @param {HTMLElement[]} fields @param {(given: FormData) => Promise<any>} signIn */
  function form(fields, signIn) {
    const button = h("button.primary", { type: "submit" }, "Sign in");
    const element = h("form.sign-in-form", { method: "post", onsubmit: submit }, ...fields, button);

    /** @param {SubmitEvent} event */
    async function submit(event) {
      event.preventDefault();
      button.disabled = true;
      button.textContent = "Signing in …";
      try {
        onSession(await signIn(new FormData(element)));
      } catch (error) {
        problem.textContent = signInProblem(error);
        problem.hidden = false;
        button.disabled = false;
        button.textContent = "Sign in";
        element.querySelector("input:last-of-type").select();
      }
    }
    return element;
  }

  return h("main.sign-in", {},
    h("div.card", {},
      h("div.brand-mark", {}, icon("mark")),
      h("h1", {}, "See how your agents are"),
      h("p.lead", {}, "For those who run the bridge: sign in with the Matrix account of an admin."),
      problem, account, token, other,
      h("p.fine", {}, "Here to talk to an agent? ", h("a", { href: "chat" }, "The chat page"), "."),
    ),
  );
}

/** @param {string} title @param {Record<string, string>} attributes */
function field(title, attributes) {
  return h("label.field", {}, h("span", {}, title), h("input", { required: true, ...attributes }));
}
