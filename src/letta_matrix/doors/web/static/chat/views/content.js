/** What a message says, as safe elements. */

import { sanitize } from "../sanitize.js";
import { CURSOR, isLive } from "../store/live.js";
import { shortName } from "../store/names.js";
import { choicesOf } from "../store/questions.js";
import { sizeText } from "../uploads.js";
import { h, icon } from "./dom.js";

/** @typedef {import("../types.js").Item} Item */

const ADDRESS = /https?:\/\/[^\s<>"']*[^\s<>"'.,:;!?)\]]/g;
const VERBATIM = "a, code, pre";
const FALLBACK_QUOTE = /^> (?:\* )?<@[^>\n]*>.*\n(?:> ?.*\n)*\n?/;
const PICTURE = { width: 460, height: 340 };
const UNREADABLE = {
  redacted: "This message was deleted.",
  encrypted: "This message is encrypted. This page cannot read it; use another Matrix client.",
};
const BIG_PICTURE = 1e6;
const FILES = new Set(["m.image", "m.file", "m.audio", "m.video"]);
const CANNOT_GROW_A_CARET = new Set(["BR", "HR", "IMG", "TABLE", "DETAILS", "DIV"]);

/** @param {Item} item */
function bodyOf(item) {
  return typeof item.content.body === "string" ? item.content.body : "";
}

/** The plain text, without a reply's quotation and a live message's cursor. @param {Item} item */
export function textOf(item) {
  return bodyOf(item).replace(FALLBACK_QUOTE, item.replyTo ? "" : "$&").replace(CURSOR, "");
}

/** The name of the file a message brings; an empty text where it brings none. @param {Item} item */
function fileNameOf(item) {
  const { msgtype, filename } = item.content;
  if (!FILES.has(msgtype)) return "";
  return typeof filename === "string" && filename ? filename : bodyOf(item) || "file";
}

/** A message in one plain line. @param {Item} item */
export function summaryOf(item) {
  if (item.kind === "redacted") return "Deleted message";
  if (item.kind === "encrypted") return "Encrypted message";
  if (item.kind === "renamed") return `Renamed to ${shortName(String(item.content.name))}`;
  const name = fileNameOf(item);
  if (name && name === bodyOf(item)) return `📎 ${name}`;
  const body = item.content.formatted_body ? withoutMarks(textOf(item)) : textOf(item);
  return body.replace(/\s+/g, " ").trim().slice(0, 240) || "…";
}

/** Markdown's marks mean nothing in one line. @param {string} text */
function withoutMarks(text) {
  return text
    .replace(/^[ \t]*(?:```|~~~).*$/gm, "")
    .replace(/^[ |:-]*-[ |:-]*$/gm, "")
    .replace(/!?\[([^\]\n]*)\]\([^)\s]*\)/g, "$1")
    .replace(/(^|\s)(?:#{1,6}|>|[*+-])(?=\s)/gm, "$1")
    .replace(/\*+(?=\S)|(?<=\S)\*+|__|~~|`+/g, "")
    .replaceAll("|", " ");
}

/** @param {Item} item @param {string} senderName @returns {DocumentFragment} */
export function renderContent(item, senderName) {
  const fragment = document.createDocumentFragment();
  const instead = UNREADABLE[/** @type {keyof typeof UNREADABLE} */ (item.kind)];
  fragment.append(instead ?? renderMessage(item, senderName));
  return fragment;
}

/** @param {Item} item @param {string} senderName @returns {Node} */
function renderMessage(item, senderName) {
  const { msgtype } = item.content;
  if (FILES.has(msgtype)) return attachment(item);
  const text = renderText(item);
  if (msgtype === "m.emote") prependTo(text, `${senderName} `);
  if (isLive(item)) growCaret(text);
  return text;
}

/** @param {Item} item @returns {DocumentFragment} */
function renderText(item) {
  const { format, formatted_body: html } = item.content;
  if (format !== "org.matrix.custom.html" || typeof html !== "string") return renderPlain(item);
  const fragment = sanitize(html);
  dropCursor(fragment);
  linkAddresses(fragment);
  if (choicesOf(item).some(({ kind }) => kind === "option")) dropOptions(fragment);
  for (const table of fragment.querySelectorAll("table")) frameTable(table);
  for (const block of fragment.querySelectorAll("pre")) frameCode(block);
  return fragment;
}

/** @param {Item} item */
function renderPlain(item) {
  const fragment = document.createDocumentFragment();
  fragment.append(h("p.plain", {}, textOf(item)));
  linkAddresses(fragment);
  return fragment;
}

/** Bare addresses become links, which Matrix leaves to clients. @param {DocumentFragment} fragment */
function linkAddresses(fragment) {
  const walker = document.createTreeWalker(fragment, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode()) texts.push(/** @type {Text} */ (walker.currentNode));
  for (const text of texts) if (!text.parentElement?.closest(VERBATIM)) linkWithin(text);
}

/** @param {Text} node */
function linkWithin(node) {
  const text = node.data;
  const parts = [];
  let at = 0;
  for (const match of text.matchAll(ADDRESS)) {
    const link = { href: match[0], target: "_blank", rel: "noopener noreferrer" };
    parts.push(text.slice(at, match.index), h("a", link, match[0]));
    at = match.index + match[0].length;
  }
  if (parts.length) node.replaceWith(...parts, text.slice(at));
}

/** Where text continues: the last block that can take it. @param {Node} node @returns {Node} */
function lastTextHolder(node) {
  let last = node.lastChild;
  while (last?.nodeType === Node.TEXT_NODE && !last.nodeValue?.trim()) last = last.previousSibling;
  const enters = last instanceof Element && !CANNOT_GROW_A_CARET.has(last.nodeName);
  const framed = last instanceof Element && last.classList.contains("code-frame");
  if (framed) return lastTextHolder(/** @type {Element} */ (last).querySelector("pre") ?? node);
  return enters ? lastTextHolder(/** @type {Element} */ (last)) : node;
}

/** @param {DocumentFragment} fragment */
function dropCursor(fragment) {
  const walker = document.createTreeWalker(fragment, NodeFilter.SHOW_TEXT);
  let last = null;
  while (walker.nextNode()) if (walker.currentNode.nodeValue?.trim()) last = walker.currentNode;
  if (last) last.nodeValue = last.nodeValue?.replace(CURSOR, "") ?? "";
}

/** @param {Node} text */
function growCaret(text) {
  lastTextHolder(text).appendChild(h("span.caret", { "aria-hidden": "true" }));
}

/** @param {DocumentFragment} fragment @param {string} name */
function prependTo(fragment, name) {
  const first = fragment.firstElementChild ?? fragment;
  first.prepend(h("strong.emote", {}, name));
}

/** @param {Element} element @param {string} className */
function wrap(element, className) {
  const frame = h(`div.${className}`, {});
  element.replaceWith(frame);
  frame.append(element);
  return frame;
}

/** While they can be chosen they are buttons below. @param {DocumentFragment} fragment */
function dropOptions(fragment) {
  const blocks = [...fragment.children];
  const first = blocks.findLastIndex((block) => block.textContent?.trimStart().startsWith("1️⃣"));
  for (const block of first < 0 ? [] : blocks.slice(first)) block.remove();
}

/** Wide ones are scrolled, by keys too. @param {Element} table */
function frameTable(table) {
  const frame = wrap(table, "table-scroll");
  const heads = [...table.querySelectorAll("th")].map((cell) => cell.textContent?.trim());
  frame.setAttribute("tabindex", "0");
  // No region: each would be a landmark of the page.
  frame.setAttribute("role", "group");
  frame.setAttribute("aria-label", ["Table", heads.filter(Boolean).join(", ")].filter(Boolean).join(": "));
}

/** @param {Element} block a `<pre>` */
function frameCode(block) {
  const language = /language-(\S+)/.exec(block.querySelector("code")?.className ?? "")?.[1];
  const frame = wrap(block, "code-frame");
  block.setAttribute("tabindex", "0");
  const copy = navigator.clipboard && h("button.copy", { type: "button" }, "Copy");
  if (language) frame.prepend(h("div.code-bar", {}, h("span", {}, language), copy));
  else if (copy) frame.append(copy);
}

/** A file, and what is said about it (Matrix specification, media captions). @param {Item} item */
function attachment(item) {
  const name = fileNameOf(item);
  const { msgtype, url } = item.content;
  const shown = msgtype === "m.image" && typeof url === "string" ? picture(item.content, name) : file(item.content, name);
  const fragment = document.createDocumentFragment();
  fragment.append(shown);
  if (name !== bodyOf(item)) fragment.append(h("div.caption", {}, renderText(item)));
  return fragment;
}

/** @param {Record<string, any>} content of `m.image` @param {string} name */
function picture(content, name) {
  const { w, h: height, size: bytes } = content.info ?? {};
  const scale = Math.min(1, PICTURE.width / w, PICTURE.height / height) || 1;
  const size = w > 0 && height > 0 ? { width: Math.round(w * scale), height: Math.round(height * scale) } : {};
  const big = typeof bytes !== "number" || bytes > BIG_PICTURE;
  const image = h("img", { "data-mxc": content.url, "data-big": big, alt: name, ...size });
  return h("button.picture", { type: "button", "aria-label": `Enlarge ${name}` }, image);
}

/** @param {Record<string, any>} content of a file @param {string} name */
function file(content, name) {
  const uploaded = typeof content.url === "string";
  const attributes = { type: "button", "data-file": content.url, "data-name": name, disabled: !uploaded };
  const bytes = content.info?.size;
  const size = h("span.size", {}, typeof bytes === "number" ? sizeText(bytes) : "Download");
  return h("button.file", attributes, icon("file"), h("span.name", {}, name), size);
}
