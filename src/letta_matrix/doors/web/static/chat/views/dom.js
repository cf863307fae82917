/** Making and changing elements. */

const SVG = "http://www.w3.org/2000/svg";
/** What a person did to an element survives a change of the content around it. */
const KEPT_ATTRIBUTES = new Set(["open", "src", "data-revealed"]);

/**
 * @param {string} tag with optional classes: `button.primary.wide`
 * @param {Record<string, any>} [attributes] `on...` functions are event listeners
 * @param {...(Node|string|null|false|undefined)} children
 * @returns {any}
 */
export function h(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, String(value));
  }
  element.append(.../** @type {Node[]} */ (children.filter((child) => child != null && child !== false)));
  return element;
}

/** @param {string} name of a symbol in the page's sprite */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** Sets text only where it changed: no flicker, no lost selection. @param {Node} node @param {string} text */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * Makes `target`'s children like `source`'s with as few changes as possible, so that opened
 * details, loaded pictures and selections stay.
 *
 * @param {Node} target
 * @param {Node} source is used up
 */
export function morph(target, source) {
  const old = [...target.childNodes];
  const next = [...source.childNodes];
  next.forEach((node, index) => {
    const present = old[index];
    if (!present) target.appendChild(node);
    else if (!isAlike(present, node)) target.replaceChild(node, present);
    else if (present instanceof Element) morphElement(present, /** @type {Element} */ (node));
    else if (present.nodeValue !== node.nodeValue) present.nodeValue = node.nodeValue;
  });
  for (const surplus of old.slice(next.length)) target.removeChild(surplus);
}

/** @param {Node} one @param {Node} other */
function isAlike(one, other) {
  const pictures = one instanceof HTMLImageElement && other instanceof HTMLImageElement;
  return one.nodeName === other.nodeName && (!pictures || one.dataset.mxc === other.dataset.mxc);
}

/** @param {Element} target @param {Element} source */
function morphElement(target, source) {
  for (const { name, value } of source.attributes) {
    if (target.getAttribute(name) !== value) target.setAttribute(name, value);
  }
  for (const { name } of [...target.attributes]) {
    if (!source.hasAttribute(name) && !KEPT_ATTRIBUTES.has(name)) target.removeAttribute(name);
  }
  morph(target, source);
}

/**
 * Puts keyed elements in order without touching those already in place.
 *
 * @param {Element} parent
 * @param {Element[]} elements
 */
export function arrange(parent, elements) {
  const wanted = new Set(elements);
  for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
  elements.forEach((element, index) => {
    const present = parent.children[index];
    if (present !== element) parent.insertBefore(element, present ?? null);
  });
}
