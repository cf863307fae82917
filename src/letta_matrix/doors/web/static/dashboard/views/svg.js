/** Making elements of SVG. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * @param {string} tag with optional classes: `rect.bar`
 * @param {Record<string, any>} [attributes]
 * @param {...(Node|false|null)} children
 * @returns {SVGElement}
 */
export function svg(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElementNS(SVG, name);
  if (classes.length) element.setAttribute("class", classes.join(" "));
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  element.append(.../** @type {Node[]} */ (children.filter(Boolean)));
  return element;
}
