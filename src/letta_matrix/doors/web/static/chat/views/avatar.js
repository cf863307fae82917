/** Pictures of people, agents and rooms; a tinted initial until there is one. */

import { isAgentId } from "../store/ids.js";
import { h } from "./dom.js";

const TINTS = 8;
const SIZE = /** @type {const} */ ({ width: 96, height: 96, method: "crop" });

/**
 * @param {import("../media.js").Media} media
 * @param {{id: string, name: string, mxc: string|null, large?: boolean}} whose
 */
export function avatar(media, { id, name, mxc, large = false }) {
  const shape = isAgentId(id) ? "agent" : "person";
  const classes = `span.avatar.${shape}.tint-${tintOf(id)}${large ? ".large" : ""}`;
  const element = h(classes, { "aria-hidden": "true" }, initialOf(name));
  if (mxc) showPicture(media, element, mxc);
  return element;
}

/** @param {import("../media.js").Media} media @param {HTMLElement} element @param {string} mxc */
async function showPicture(media, element, mxc) {
  const url = await media.picture(mxc, SIZE).catch(() => null);
  if (url) element.replaceChildren(h("img", { src: url, alt: "" }));
}

/** @param {string} id */
export function tintOf(id) {
  let hash = 0x811c9dc5;
  for (const character of id) hash = Math.imul(hash ^ (character.codePointAt(0) ?? 0), 0x01000193);
  return (hash >>> 12) % TINTS;
}

/** @param {string} name */
function initialOf(name) {
  const letter = /[\p{L}\p{N}\p{Emoji_Presentation}]/u.exec(name)?.[0] ?? "#";
  return letter.toUpperCase();
}
