/** What one can do with a message, and the ways to its menu. */

import { allowed } from "../corrections.js";
import { h, icon } from "./dom.js";
import { Popup } from "./popup.js";

/** @typedef {import("../types.js").Item} Item */
/** @typedef {import("../store/room.js").Room} Room */
/** @typedef {"reply"|"copy"|"edit"|"remove"} Action */

const WORDS = /** @type {const} */ ({ reply: "Reply", copy: "Copy text", edit: "Edit", remove: "Delete" });
const LONG_PRESS = 500;
const STEADY = 10;

export class MessageMenu {
  #popup = new Popup("div.menu", "Message", { back: "ArrowUp", on: "ArrowDown" });

  /** @param {(action: Action, item: Item, place: HTMLElement) => void} onChoice `place`: the message */
  constructor(onChoice) {
    this.onChoice = onChoice;
  }

  /** @param {HTMLElement} opener a message's button @param {Item} item @param {Room} room */
  toggle(opener, item, room) {
    const can = allowed(item, room);
    const actions = /** @type {Action[]} */ (Object.keys(WORDS)).filter((action) => can[action]);
    const article = /** @type {HTMLElement} */ (opener.closest("article"));
    const items = actions.map((action) => {
      const choose = () => {
        this.close();
        this.onChoice(action, item, article);
      };
      const attributes = { type: "button", role: "menuitem", "data-action": action, onclick: choose };
      return h("button", attributes, icon(action), h("span", {}, WORDS[action]));
    });
    if (items.length) this.#popup.toggle(opener, items);
  }

  close(refocus = true) {
    this.#popup.close(refocus);
  }
}

/**
 * Calls back when a finger rests on a message.
 *
 * @param {HTMLElement} element around the messages
 * @param {(article: HTMLElement) => void} callback
 */
export function onLongPress(element, callback) {
  let timer = 0;
  let start = { x: 0, y: 0 };
  let pressed = false;
  const stop = () => clearTimeout(timer);
  element.addEventListener("pointerdown", (event) => {
    stop();
    pressed = false;
    const target = /** @type {HTMLElement} */ (event.target);
    const article = /** @type {HTMLElement|null} */ (target.closest("article"));
    if (event.pointerType !== "touch" || !article || target.closest("button, a, [role=menu]")) return;
    start = { x: event.clientX, y: event.clientY };
    timer = setTimeout(() => {
      pressed = true;
      callback(article);
    }, LONG_PRESS);
  });
  element.addEventListener("pointermove", (event) => {
    if (Math.hypot(event.clientX - start.x, event.clientY - start.y) > STEADY) stop();
  });
  for (const end of ["pointerup", "pointercancel", "scroll"]) element.addEventListener(end, stop, true);
  element.addEventListener("contextmenu", (event) => pressed && event.preventDefault());
  // The finger's going up is no tap.
  element.addEventListener("click", (event) => {
    if (pressed) event.stopPropagation();
    pressed = false;
  }, true);
}
