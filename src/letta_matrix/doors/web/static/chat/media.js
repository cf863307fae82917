/** Pictures and files, fetched with our token and handed out as blob addresses. */

/** @typedef {{width: number, height: number, method: "crop"|"scale"}} Size of a thumbnail in pixels */

const MOST_KEPT = 300;
/** What a message shows of a picture that takes long to load. */
export const PREVIEW = /** @type {const} */ ({ width: 800, height: 600, method: "scale" });
const PICTURES = /^image\/(?:png|jpeg|gif|webp|avif|apng|svg\+xml)$/;

export class Media {
  /** @type {Map<string, Promise<string>>} */
  #addresses = new Map();

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.api = api;
  }

  /**
   * An address for an `<img>`.
   *
   * @param {string} mxc
   * @param {Size} [size] of a thumbnail; the whole picture without it
   * @returns {Promise<string>} rejects if there is no such picture
   */
  picture(mxc, size) {
    const key = `${size ? JSON.stringify(size) : "full"} ${mxc}`;
    const known = this.#addresses.get(key);
    if (known) return known;
    const address = this.#load(mxc, size);
    this.#addresses.set(key, address);
    address.catch(() => this.#addresses.delete(key));
    this.#evict();
    return address;
  }

  /** @param {string} mxc @param {Size} [size] */
  async #load(mxc, size) {
    // A homeserver makes no thumbnails of some kinds of picture (SVG): the file itself serves.
    const blob = size
      ? await this.api.media(mxc, size).catch(() => this.api.media(mxc))
      : await this.api.media(mxc);
    if (!PICTURES.test(blob.type)) throw new TypeError("not a picture");
    return URL.createObjectURL(blob);
  }

  #evict() {
    if (this.#addresses.size <= MOST_KEPT) return;
    const [[oldest, address]] = this.#addresses;
    this.#addresses.delete(oldest);
    address.then((url) => URL.revokeObjectURL(url)).catch(() => {});
  }

  /**
   * Saves a file under its name; the browser never opens it in the page's name.
   *
   * @param {string} mxc
   * @param {string} name
   */
  async save(mxc, name) {
    const data = await this.api.media(mxc);
    const url = URL.createObjectURL(new Blob([data], { type: "application/octet-stream" }));
    const link = document.createElement("a");
    link.href = url;
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
  }

  forget() {
    for (const address of this.#addresses.values()) {
      address.then((url) => URL.revokeObjectURL(url)).catch(() => {});
    }
    this.#addresses.clear();
  }
}
