/** Files on their way to the homeserver (Matrix specification, content repository). */

import { MatrixError, OfflineError } from "./api.js";

/** Why a file cannot be sent, and what to do. */
export class UploadProblem extends Error {}

export class Uploads {
  /** @type {Promise<number>|null} */
  #limit = null;

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.api = api;
  }

  /**
   * What keeps a file from being sent; an empty text if nothing does.
   *
   * @param {File} file
   */
  async problemOf(file) {
    if (!file.size) return `“${file.name}” is empty, or a folder. Choose a file with something in it.`;
    this.#limit ??= this.api.uploadLimit();
    const limit = await this.#limit.catch(() => {
      this.#limit = null;
      return Infinity;
    });
    return file.size > limit ? tooLarge(file, limit) : "";
  }

  /**
   * Uploads a file and completes its message's content.
   *
   * @param {Record<string, any>} content
   * @param {File} file
   * @returns {Promise<Record<string, any>>}
   * @throws {UploadProblem}
   */
  async complete(content, file) {
    try {
      return { ...content, url: await this.api.upload(file) };
    } catch (error) {
      throw new UploadProblem(reasonOf(error, file));
    }
  }
}

/**
 * A message that is a file, before the file is uploaded.
 *
 * @param {File} file
 * @returns {Promise<Record<string, any>>} content of `m.image` or `m.file`, without its `url`
 */
export async function fileContent(file) {
  const name = file.name || "file";
  const size = await pictureSize(file);
  const info = { mimetype: file.type || "application/octet-stream", size: file.size, ...size };
  return { msgtype: size ? "m.image" : "m.file", body: name, filename: name, info };
}

/** @param {File} file @returns {Promise<{w: number, h: number}|null>} null unless it is a picture */
async function pictureSize(file) {
  if (!file.type.startsWith("image/")) return null;
  const picture = await createImageBitmap(file).catch(() => null);
  if (!picture) return null;
  const size = { w: picture.width, h: picture.height };
  picture.close();
  return size;
}

/** @param {unknown} error @param {File} file */
function reasonOf(error, file) {
  if (error instanceof OfflineError) return "The homeserver cannot be reached. Try again when it is back.";
  if (!(error instanceof MatrixError)) return "The file cannot be read any more. Discard it and choose it again.";
  if (error.status === 413) return tooLarge(file, null);
  if (error.status === 429) return "Too many files at once. Wait a minute, then try again.";
  return `${error.message} Try again, or discard it and choose another file.`;
}

/** @param {File} file @param {number|null} limit bytes */
function tooLarge(file, limit) {
  const most = limit ? ` takes at most ${sizeText(limit)}` : " does not take files of this size";
  return `“${file.name}” has ${sizeText(file.size)}; the homeserver${most}. Choose a smaller file.`;
}

/** @param {number} bytes */
export function sizeText(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  if (bytes < 1e6) return `${Math.round(bytes / 1000)} kB`;
  return `${(bytes / 1e6).toFixed(1)} MB`;
}
