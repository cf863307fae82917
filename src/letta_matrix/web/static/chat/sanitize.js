/**
 * Messages' HTML made safe: new elements are built from an allow list, nothing is ever
 * parsed into the page itself (Matrix specification, `m.room.message` msgtypes).
 */

const ALLOWED = new Set(
  (
    "del h1 h2 h3 h4 h5 h6 blockquote p a ul ol sup sub li b i u strong em s code hr br div " +
    "table thead tbody tr th td caption pre span img details summary"
  ).split(" "),
);
const DROPPED = new Set(
  (
    "script style template noscript iframe frame object embed svg math title head textarea " +
    "select option form input audio video canvas mx-reply"
  ).split(" "),
);
const SAFE_LINK = /^(?:https?:\/\/|mailto:)/i;
const MENTION = /^https:\/\/matrix\.to\/#\/(?:@|%40)/i;
const LANGUAGE = /^language-[\w+#.-]{1,40}$/;
const MXC = /^mxc:\/\/[\w.:[\]-]+\/[\w-]+$/;
const DEEPEST = 100;

/**
 * @param {string} html a message's `formatted_body`
 * @returns {DocumentFragment}
 */
export function sanitize(html) {
  const parsed = new DOMParser().parseFromString(html, "text/html");
  const fragment = document.createDocumentFragment();
  copyChildren(parsed.body, fragment, 0);
  return fragment;
}

/** @param {Node} from @param {Node} to @param {number} depth */
function copyChildren(from, to, depth) {
  if (depth > DEEPEST) return;
  for (const child of from.childNodes) {
    if (child.nodeType === Node.TEXT_NODE) to.appendChild(new Text(child.nodeValue ?? ""));
    if (child instanceof Element) copyElement(child, to, depth);
  }
}

/** @param {Element} source @param {Node} to @param {number} depth */
function copyElement(source, to, depth) {
  const name = source.localName;
  if (DROPPED.has(name)) return;
  /** @type {Node|null} */
  const copy = ALLOWED.has(name) ? build(name, source) : null;
  if (copy) to.appendChild(copy);
  if (copy && (copy.hasChildNodes() || isLeaf(copy))) return;
  copyChildren(source, copy ?? to, depth + 1);
}

/** @param {Node} node */
function isLeaf(node) {
  return node.nodeType === Node.TEXT_NODE || ["img", "br", "hr"].includes(node.nodeName.toLowerCase());
}

/** The harmless twin of an element, without its children; null leaves only those. */
const SPECIAL = {
  /** @param {Element} source */
  a(source) {
    const href = (source.getAttribute("href") ?? "").trim();
    if (MENTION.test(href)) return withClass("span", "mention");
    if (!SAFE_LINK.test(href)) return null;
    const link = document.createElement("a");
    link.setAttribute("href", href);
    link.setAttribute("target", "_blank");
    link.setAttribute("rel", "noopener noreferrer");
    return link;
  },
  /** @param {Element} source */
  span(source) {
    if (source.hasAttribute("data-mx-maths")) return maths(source);
    if (!source.hasAttribute("data-mx-spoiler")) return document.createElement("span");
    const spoiler = withClass("span", "spoiler");
    const reason = source.getAttribute("data-mx-spoiler");
    spoiler.setAttribute("role", "button");
    spoiler.setAttribute("tabindex", "0");
    spoiler.setAttribute("aria-label", reason ? `Spoiler: ${reason}` : "Spoiler");
    spoiler.setAttribute("data-mx-spoiler", reason ?? "");
    return spoiler;
  },
  /** @param {Element} source */
  div(source) {
    return source.hasAttribute("data-mx-maths") ? maths(source) : document.createElement("div");
  },
  /** @param {Element} source */
  img(source) {
    const mxc = source.getAttribute("src") ?? "";
    if (!MXC.test(mxc)) return new Text(source.getAttribute("alt") ?? "");
    const image = withClass("img", "inline-image");
    image.setAttribute("data-mxc", mxc);
    image.setAttribute("alt", source.getAttribute("alt") ?? "");
    copyNumber(source, image, "width", 1, 800);
    copyNumber(source, image, "height", 1, 600);
    return image;
  },
  /** @param {Element} source */
  ol(source) {
    const list = document.createElement("ol");
    copyNumber(source, list, "start", -999999999, 999999999);
    return list;
  },
  /** @param {Element} source */
  code(source) {
    const code = document.createElement("code");
    const language = [...source.classList].find((name) => LANGUAGE.test(name));
    if (language) code.setAttribute("class", language);
    return code;
  },
};

/** @param {string} name @param {Element} source @returns {Node|null} */
function build(name, source) {
  const special = SPECIAL[/** @type {keyof typeof SPECIAL} */ (name)];
  return special ? special(source) : document.createElement(name);
}

/** A formula as code one can read. @param {Element} source */
function maths(source) {
  const code = withClass("code", "maths");
  code.textContent = source.getAttribute("data-mx-maths");
  return code;
}

/** @param {string} name @param {string} className */
function withClass(name, className) {
  const element = document.createElement(name);
  element.className = className;
  return element;
}

/** @param {Element} from @param {Element} to @param {string} name @param {number} low @param {number} high */
function copyNumber(from, to, name, low, high) {
  const text = from.getAttribute(name);
  const value = Number.parseInt(text ?? "", 10);
  if (text !== null && value >= low && value <= high) to.setAttribute(name, String(value));
}
