/**
 * Messages' HTML: DOMPurify leaves what Matrix allows (Matrix specification, `m.room.message`
 * msgtypes), and what is left is shown as this page shows it.
 */

import DOMPurify from "./vendor/purify.mjs";

const OURS = ["data-mx-spoiler", "data-mx-maths", "data-mxc"];
const RULES = {
  ALLOWED_TAGS: (
    "del h1 h2 h3 h4 h5 h6 blockquote p a ul ol sup sub li b i u s strong em code hr br div " +
    "table thead tbody tr th td caption pre span img details summary"
  ).split(" "),
  ALLOWED_ATTR: ["href", "class", "alt", "start", "width", "height", ...OURS],
  ADD_URI_SAFE_ATTR: ["start", "width", "height", ...OURS],
  ALLOWED_URI_REGEXP: /^(?:https?:\/\/|mailto:)/i,
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
  ADD_FORBID_CONTENTS: "canvas form head mx-reply object option select textarea title".split(" "),
  RETURN_DOM_FRAGMENT: true,
};
const MENTION = /^https:\/\/matrix\.to\/#\/(?:@|%40)/i;
const LANGUAGE = /^language-[\w+#.-]{1,40}$/;
const MXC = /^mxc:\/\/[\w.:[\]-]+\/[\w-]+$/;
/** @type {Record<string, [number, number]>} */
const NUMBERS = {
  "IMG width": [1, 800],
  "IMG height": [1, 600],
  "OL start": [-999999999, 999999999],
};

const purifier = DOMPurify(window);
purifier.addHook("beforeSanitizeAttributes", limit);

/**
 * @param {string} html a message's `formatted_body`
 * @returns {DocumentFragment}
 */
export function sanitize(html) {
  const fragment = purifier.sanitize(html, RULES);
  for (const [selector, show] of Object.entries(SHOWN)) {
    for (const element of fragment.querySelectorAll(selector)) show(element);
  }
  return fragment;
}

/** What only some elements may have, and within which bounds. @param {Node} node */
function limit(node) {
  if (!(node instanceof Element)) return;
  const { nodeName } = node;
  const language = nodeName === "CODE" && [...node.classList].find((name) => LANGUAGE.test(name));
  put(node, "class", language || null);
  // Media are the homeserver's, and the page gets them itself.
  const mxc = nodeName === "IMG" ? (node.getAttribute("src") ?? "") : "";
  put(node, "src", null);
  put(node, "data-mxc", MXC.test(mxc) ? mxc : null);
  for (const name of ["width", "height", "start"]) {
    const [low, high] = NUMBERS[`${nodeName} ${name}`] ?? [1, 0];
    const value = Number.parseInt(node.getAttribute(name) ?? "", 10);
    put(node, name, value >= low && value <= high ? String(value) : null);
  }
}

/** @type {Record<string, (element: Element) => void>} */
const SHOWN = {
  a(link) {
    const href = link.getAttribute("href")?.trim();
    if (!href) return link.replaceWith(...link.childNodes);
    if (!MENTION.test(href)) return assign(link, { target: "_blank", rel: "noopener noreferrer" });
    const pill = element("span", { class: "mention" });
    pill.append(...link.childNodes);
    link.replaceWith(pill);
  },
  "span[data-mx-maths], div[data-mx-maths]"(formula) {
    const code = element("code", { class: "maths" });
    code.textContent = formula.getAttribute("data-mx-maths");
    formula.replaceWith(code);
  },
  "span[data-mx-spoiler]"(spoiler) {
    const reason = spoiler.getAttribute("data-mx-spoiler");
    const label = reason ? `Spoiler: ${reason}` : "Spoiler";
    assign(spoiler, { class: "spoiler", role: "button", tabindex: "0", "aria-label": label });
  },
  img(image) {
    const alt = image.getAttribute("alt") ?? "";
    if (image.hasAttribute("data-mxc")) assign(image, { class: "inline-image", alt });
    else image.replaceWith(alt);
  },
};

/** @param {string} name @param {Record<string, string>} attributes */
function element(name, attributes) {
  const made = document.createElement(name);
  assign(made, attributes);
  return made;
}

/** @param {Element} target @param {Record<string, string>} attributes */
function assign(target, attributes) {
  for (const [name, value] of Object.entries(attributes)) target.setAttribute(name, value);
}

/** @param {Element} target @param {string} name @param {string|null} value null: without it */
function put(target, name, value) {
  if (value === null) target.removeAttribute(name);
  else target.setAttribute(name, value);
}
