/** Questions with fields to fill in. */

import { h } from "../../chat/views/dom.js";

let count = 0;

/**
 * Asks, and does `send` with what is given; stays open with the reason where that fails.
 *
 * @param {{title: string, text?: string, yes: string, fields: HTMLElement[]}} question
 * @param {(given: FormData) => Promise<any>} send
 * @returns {Promise<any>} what `send` came to; undefined where nothing was sent
 */
export function asked({ title, text, yes, fields }, send) {
  const id = `dialog-${++count}`;
  const problem = h("p.problem", { role: "alert", hidden: true });
  const submit = h("button.primary", { type: "submit" }, yes);
  const cancel = h("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
  const form = h("form", { method: "dialog", onsubmit: send_ },
    ...fields, problem, h("div.confirm-answers", {}, cancel, submit));
  const dialog = h("dialog.confirm", { "aria-labelledby": id }, h("h2", { id }, title), text && h("p", {}, text), form);
  /** @type {any} */
  let done;

  /** @param {Event} event */
  async function send_(event) {
    event.preventDefault();
    submit.disabled = true;
    try {
      done = await send(new FormData(form)) ?? null;
      dialog.close();
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
      submit.disabled = false;
    }
  }
  return opened(dialog, () => done);
}

/**
 * Shows something until it is closed.
 *
 * @param {string} title
 * @param {...(Node|string)} content
 */
export function shown(title, ...content) {
  const id = `dialog-${++count}`;
  const close = h("button.primary", { type: "button", onclick: () => dialog.close() }, "Done");
  const dialog = h("dialog.confirm", { "aria-labelledby": id },
    h("h2", { id }, title), ...content, h("div.confirm-answers", {}, close));
  return opened(dialog, () => undefined);
}

/** @param {HTMLDialogElement} dialog @param {() => any} result */
function opened(dialog, result) {
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(result());
    });
  });
}

/** @param {string} title @param {Record<string, any>} attributes @param {string} [hint] */
export function field(title, attributes, hint) {
  return h("label.field", {}, h("span", {}, title), h("input", { type: "text", ...attributes }), hint && h("small", {}, hint));
}

/** @param {string} title @param {string} name @param {[string, string][]} options values and words */
export function choice(title, name, options) {
  const shownOptions = options.map(([value, words]) => h("option", { value }, words));
  return h("label.field", {}, h("span", {}, title), h("select", { name }, ...shownOptions));
}
