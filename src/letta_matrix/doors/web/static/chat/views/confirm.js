/** Asking before something that cannot be taken back. */

import { h } from "./dom.js";

/**
 * @param {{title: string, text: string, yes: string}} question
 * @returns {Promise<boolean>}
 */
export function confirmed({ title, text, yes }) {
  const close = (/** @type {string} */ value) => () => dialog.close(value);
  const dialog = h("dialog.confirm", { role: "alertdialog", "aria-labelledby": "confirm-title", "aria-describedby": "confirm-text" },
    h("h2", { id: "confirm-title" }, title),
    h("p", { id: "confirm-text" }, text),
    h("div.confirm-answers", {},
      h("button", { type: "button", autofocus: true, onclick: close("") }, "Cancel"),
      h("button.danger", { type: "button", onclick: close("yes") }, yes),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
  });
}

/** Whether something lies on the page that takes the keys. */
export function isAskingNow() {
  return document.querySelector("dialog[open]") !== null;
}
