/** Markdown as people type it in a chat, to Matrix HTML. Line breaks are kept. */

import { linkMentions } from "./mentions.js";
import markdownIt from "./vendor/markdown-it.mjs";

const LINK = /^(?:https?:\/\/|mailto:)/i;
/** Text without what could begin a mark; markdown-it's own rule takes `|` along. */
const PLAIN = /[^\n!#$%&*+\-:<=>@[\\\]^_`{|}~]+/y;

const md = markdownIt({ breaks: true, linkify: true });
md.disable(["image", "lheading", "reference"]);
md.linkify.set({ fuzzyLink: false, fuzzyEmail: false, fuzzyIP: false });
md.validateLink = (/** @type {string} */ url) => LINK.test(url);
md.inline.ruler.at("text", plainText);
md.inline.ruler.before("emphasis", "spoiler", spoiler);
// Without the alignment of their column: a style, which Matrix has none of.
md.renderer.rules.th_open = () => "<th>";
md.renderer.rules.td_open = () => "<td>";
md.renderer.rules.s_open = () => "<del>";
md.renderer.rules.s_close = () => "</del>";

/**
 * The content of a message event: HTML is added only where the Markdown does something, or
 * somebody is mentioned.
 *
 * @param {string} text
 * @param {import("./mentions.js").Person[]} [people] who can be mentioned
 * @returns {Record<string, any>}
 */
export function messageContent(text, people = []) {
  const { body: holder } = new DOMParser().parseFromString(renderMarkdown(text), "text/html");
  const meant = linkMentions(holder, people);
  const plain = { msgtype: "m.text", body: text, ...(meant.length && mentioning(meant)) };
  const marks = [...holder.querySelectorAll(":not(p, br)")];
  if (marks.every(isBareLink)) return plain;
  return { ...plain, format: "org.matrix.custom.html", formatted_body: holder.innerHTML };
}

/** @param {string[]} ids */
function mentioning(ids) {
  return { "m.mentions": { user_ids: ids } };
}

/** Clients find addresses in plain text by themselves. @param {Element} element */
function isBareLink(element) {
  return element.localName === "a" && element.textContent === element.getAttribute("href");
}

/** @param {string} text @returns {string} HTML, in which what was HTML in `text` is text */
export function renderMarkdown(text) {
  return md.render(text).trim();
}

/** @param {any} state a StateInline of markdown-it @param {boolean} silent */
function plainText(state, silent) {
  PLAIN.lastIndex = state.pos;
  const found = PLAIN.exec(state.src)?.[0].slice(0, state.posMax - state.pos);
  if (!found) return false;
  if (!silent) state.pending += found;
  state.pos += found.length;
  return true;
}

/** `||dark||` (Matrix specification, spoiler messages). @param {any} state @param {boolean} silent */
function spoiler(state, silent) {
  const { src, pos, posMax } = state;
  const end = src.startsWith("||", pos) ? src.indexOf("||", pos + 3) : -1;
  const inside = src.slice(pos + 2, end);
  if (end < 0 || end + 2 > posMax || inside !== inside.trim()) return false;
  if (!silent) {
    state.push("spoiler_open", "span", 1).attrs = [["data-mx-spoiler", ""]];
    Object.assign(state, { pos: pos + 2, posMax: end });
    state.md.inline.tokenize(state);
    state.push("spoiler_close", "span", -1);
    Object.assign(state, { posMax });
  }
  state.pos = end + 2;
  return true;
}
