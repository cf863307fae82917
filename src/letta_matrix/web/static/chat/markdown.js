/** Markdown as people type it in a chat, to Matrix HTML. Line breaks are kept. */

import { linkMentions } from "./mentions.js";
import { sanitize } from "./sanitize.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.+?)\s*#*$/;
const RULE = /^ {0,3}(?:(?:\*\s*){3,}|(?:-\s*){3,}|(?:_\s*){3,})$/;
const QUOTE = /^ {0,3}>\s?/;
const TABLE_LINE = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const LIST_ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const INLINE = new RegExp(
  [
    String.raw`\\(?<escaped>[\\!-/:-@[-\`{-~])`,
    String.raw`(?<ticks>\`+)(?<code>[\s\S]*?[^\`])\k<ticks>(?!\`)`,
    String.raw`\[(?<label>[^\]\n]+)\]\((?<target>(?:https?://|mailto:)(?:[^\s<>()]|\([^\s<>()]*\))+)\)`,
    String.raw`(?<url>https?://[^\s<>"']*[^\s<>"'.,:;!?)\]*_~|])`,
    String.raw`\|\|(?=\S)(?<spoiler>[\s\S]*?\S)\|\|`,
    String.raw`~~(?=\S)(?<del>[\s\S]*?\S)~~`,
    String.raw`\*\*\*(?=\S)(?<both>[^*]*[^\s*])\*\*\*`,
    String.raw`(?<stars>\*\*|__)(?=\S)(?<strong>[\s\S]*?\S)\k<stars>`,
    String.raw`(?<![\w*])\*(?=[^\s*])(?<em>(?:[^*]|\*\*[^*]+\*\*)*?[^\s*])\*(?![\w*])`,
    String.raw`(?<!\w)_(?=[^\s_])(?<under>[\s\S]*?[^\s_])_(?!\w)`,
  ].join("|"),
  "g",
);

/**
 * The content of a message event: HTML is added only where the Markdown does something, or
 * somebody is mentioned.
 *
 * @param {string} text
 * @param {import("./mentions.js").Person[]} [people] who can be mentioned
 * @returns {Record<string, any>}
 */
export function messageContent(text, people = []) {
  const holder = document.createElement("div");
  holder.append(sanitize(renderMarkdown(text)));
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

/** @param {string} text @returns {string} HTML */
export function renderMarkdown(text) {
  return renderBlocks(text.replace(/\r\n?/g, "\n").split("\n"));
}

/** @param {string[]} lines */
function renderBlocks(lines) {
  const blocks = [fence, heading, rule, quote, table, list, paragraph];
  let html = "";
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    for (const block of blocks) {
      const found = block(lines, at);
      if (!found) continue;
      html += found.html;
      at = found.next;
      break;
    }
  }
  return html;
}

/** @param {string[]} lines @param {number} at */
function fence(lines, at) {
  const open = FENCE.exec(lines[at]);
  if (!open) return null;
  const closing = new RegExp(`^ {0,3}${open[1][0]}{${open[1].length},}\\s*$`);
  let end = at + 1;
  while (end < lines.length && !closing.test(lines[end])) end += 1;
  const language = open[2] ? ` class="language-${escapeHtml(open[2])}"` : "";
  const code = lines.slice(at + 1, end).map((line) => `${escapeHtml(line)}\n`);
  return { html: `<pre><code${language}>${code.join("")}</code></pre>`, next: end + 1 };
}

/** @param {string[]} lines @param {number} at */
function heading(lines, at) {
  const match = HEADING.exec(lines[at]);
  if (!match) return null;
  const level = match[1].length;
  return { html: `<h${level}>${renderInline(match[2])}</h${level}>`, next: at + 1 };
}

/** @param {string[]} lines @param {number} at */
function rule(lines, at) {
  return RULE.test(lines[at]) ? { html: "<hr>", next: at + 1 } : null;
}

/** @param {string[]} lines @param {number} at */
function quote(lines, at) {
  if (!QUOTE.test(lines[at])) return null;
  let end = at;
  while (end < lines.length && QUOTE.test(lines[end])) end += 1;
  const inner = lines.slice(at, end).map((line) => line.replace(QUOTE, ""));
  return { html: `<blockquote>${renderBlocks(inner)}</blockquote>`, next: end };
}

/** A header between pipes, the line below it, and rows. @param {string[]} lines @param {number} at */
function table(lines, at) {
  if (!startsTable(lines, at)) return null;
  const header = cellsOf(lines[at]);
  let end = at + 2;
  while (end < lines.length && lines[end].includes("|")) end += 1;
  const rows = lines.slice(at + 2, end).map((line) => {
    const cells = cellsOf(line);
    return tableRow(header.map((_, index) => cells[index] ?? ""), "td");
  });
  const body = rows.length ? `<tbody>${rows.join("")}</tbody>` : "";
  return { html: `<table><thead>${tableRow(header, "th")}</thead>${body}</table>`, next: end };
}

/** @param {string[]} lines @param {number} at */
function startsTable(lines, at) {
  const below = lines[at + 1] ?? "";
  if (!lines[at].includes("|") || !below.includes("|") || !TABLE_LINE.test(below)) return false;
  return cellsOf(lines[at]).length === cellsOf(below).length;
}

/** @param {string} line @returns {string[]} */
function cellsOf(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim());
}

/** @param {string[]} cells @param {"td"|"th"} tag */
function tableRow(cells, tag) {
  return `<tr>${cells.map((cell) => `<${tag}>${renderInline(cell)}</${tag}>`).join("")}</tr>`;
}

/** @param {string[]} lines @param {number} at */
function list(lines, at) {
  const first = LIST_ITEM.exec(lines[at]);
  if (!first) return null;
  const ordered = /\d/.test(first[2]);
  /** @type {string[][]} */
  const items = [];
  let end = at;
  for (; end < lines.length; end += 1) {
    const item = LIST_ITEM.exec(lines[end]);
    const deeper = lines[end].search(/\S/) > first[1].length + 1;
    if (item && !deeper) {
      if (/\d/.test(item[2]) !== ordered) break;
      items.push([item[3]]);
    } else if (deeper) {
      items.at(-1)?.push(lines[end].slice(first[1].length + 2));
    } else {
      break;
    }
  }
  const number = Number.parseInt(first[2], 10);
  const open = ordered && number !== 1 ? `ol start="${number}"` : ordered ? "ol" : "ul";
  const html = items.map((item) => `<li>${renderItem(item)}</li>`).join("");
  return { html: `<${open}>${html}</${ordered ? "ol" : "ul"}>`, next: end };
}

/** @param {string[]} lines the first one, then those indented below it */
function renderItem(lines) {
  const nested = lines.findIndex((line, index) => index > 0 && startsBlock([line], 0));
  const text = nested < 0 ? lines : lines.slice(0, nested);
  const inner = nested < 0 ? "" : renderBlocks(lines.slice(nested));
  return renderInline(text.map((line) => line.trim()).join("\n")) + inner;
}

/** @param {string[]} lines @param {number} at */
function paragraph(lines, at) {
  let end = at + 1;
  while (end < lines.length && lines[end].trim() && !startsBlock(lines, end)) end += 1;
  return { html: `<p>${renderInline(lines.slice(at, end).join("\n"))}</p>`, next: end };
}

/** @param {string[]} lines @param {number} at */
function startsBlock(lines, at) {
  const line = lines[at];
  const opens = [FENCE, HEADING, RULE, QUOTE, LIST_ITEM].some((pattern) => pattern.test(line));
  return opens || startsTable(lines, at);
}

/** @param {string} text @returns {string} */
function renderInline(text) {
  let html = "";
  let at = 0;
  for (const match of text.matchAll(INLINE)) {
    html += escapeText(text.slice(at, match.index)) + renderSpan(match);
    at = match.index + match[0].length;
  }
  return html + escapeText(text.slice(at));
}

/** @param {RegExpMatchArray} match */
function renderSpan(match) {
  const groups = match.groups ?? {};
  const { escaped, code, label, target, url, spoiler, del, both, strong, em, under } = groups;
  if (escaped !== undefined) return escapeHtml(escaped);
  if (code !== undefined) return `<code>${escapeHtml(code.replace(/^ (.*) $/s, "$1"))}</code>`;
  if (label !== undefined) return `<a href="${escapeHtml(target)}">${renderInline(label)}</a>`;
  if (url !== undefined) return `<a href="${escapeHtml(url)}">${escapeHtml(url)}</a>`;
  if (spoiler !== undefined) return `<span data-mx-spoiler>${renderInline(spoiler)}</span>`;
  if (del !== undefined) return `<del>${renderInline(del)}</del>`;
  if (both !== undefined) return `<strong><em>${renderInline(both)}</em></strong>`;
  if (strong !== undefined) return `<strong>${renderInline(strong)}</strong>`;
  return `<em>${renderInline(em ?? under)}</em>`;
}

/** @param {string} text */
function escapeText(text) {
  return escapeHtml(text).replaceAll("\n", "<br>");
}

/** @param {string} text */
export function escapeHtml(text) {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}
