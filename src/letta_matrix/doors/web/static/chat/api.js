/** The homeserver's client-server API (Matrix specification v1.11 and later). */

/** The homeserver answered with an error. */
export class MatrixError extends Error {
  /**
   * @param {number} status HTTP status
   * @param {Record<string, any>} body the Matrix error object
   */
  constructor(status, body) {
    super(body.error || `The homeserver answered with status ${status}.`);
    this.status = status;
    this.code = body.errcode || "M_UNKNOWN";
    /** @type {number} milliseconds to wait, 0 if unknown */
    this.retryAfter = Number(body.retry_after_ms) || 0;
  }

  /** Whether this very request can succeed later. */
  get temporary() {
    return this.status >= 500 || this.status === 429;
  }
}

/** The homeserver could not be reached. */
export class OfflineError extends Error {
  constructor() {
    super("The homeserver cannot be reached.");
  }
}

const encode = encodeURIComponent;
const RELATED_STATE = { lazy_load_members: true };

export class Api {
  /** @type {() => void} called once the homeserver no longer knows our token */
  onTokenRefused = () => {};

  /**
   * @param {string} homeserver base URL without a trailing slash
   * @param {string|null} accessToken
   */
  constructor(homeserver, accessToken = null) {
    this.homeserver = homeserver;
    this.accessToken = accessToken;
  }

  /**
   * @param {string} method
   * @param {string} path below `/_matrix/client`, or `/_matrix/media` for a `file`
   * @param {{query?: Record<string, string>, body?: object, file?: File, signal?: AbortSignal,
   *   timeout?: number, keepalive?: boolean}} [options] timeout in milliseconds
   * @returns {Promise<Response>}
   * @throws {MatrixError|OfflineError}
   */
  async fetch(method, path, { query, body, file, signal, timeout = 30000, keepalive } = {}) {
    const url = new URL(`${this.homeserver}/_matrix/${file ? "media" : "client"}${path}`);
    for (const [name, value] of Object.entries(query ?? {})) url.searchParams.set(name, value);
    /** @type {Record<string, string>} */
    const headers = {};
    if (this.accessToken) headers.Authorization = `Bearer ${this.accessToken}`;
    if (body) headers["Content-Type"] = "application/json";
    if (file) headers["Content-Type"] = file.type || "application/octet-stream";
    const deadline = AbortSignal.timeout(timeout);
    const request = {
      method,
      headers,
      keepalive,
      body: file ?? (body && JSON.stringify(body)),
      signal: signal ? AbortSignal.any([signal, deadline]) : deadline,
      referrerPolicy: /** @type {const} */ ("no-referrer"),
    };
    const response = await fetch(url, request).catch((error) => {
      if (signal?.aborted) throw error;
      throw new OfflineError();
    });
    if (!response.ok) throw await this.#refusal(response);
    return response;
  }

  /** @param {Response} response */
  async #refusal(response) {
    const body = await response.json().catch(() => ({}));
    const error = new MatrixError(response.status, body);
    if (response.status === 401 && error.code === "M_UNKNOWN_TOKEN") this.onTokenRefused();
    return error;
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {Parameters<Api["fetch"]>[2]} [options]
   * @returns {Promise<any>}
   */
  async call(method, path, options) {
    const response = await this.fetch(method, path, options);
    return response.json().catch(() => {
      throw new OfflineError();
    });
  }

  /** @param {Record<string, any>} credentials a login request, see `POST /v3/login` */
  login(credentials) {
    return this.call("POST", "/v3/login", {
      body: { ...credentials, initial_device_display_name: "Letta chat page" },
    });
  }

  logout() {
    return this.call("POST", "/v3/logout", { body: {}, timeout: 5000, keepalive: true });
  }

  /**
   * @param {string|null} since
   * @param {object} filter
   * @param {number} wait milliseconds
   * @param {AbortSignal} signal
   */
  sync(since, filter, wait, signal) {
    /** @type {Record<string, string>} */
    const query = { filter: JSON.stringify(filter), timeout: String(wait), set_presence: "offline" };
    if (since) query.since = since;
    return this.call("GET", "/v3/sync", { query, signal, timeout: wait + 30000 });
  }

  /**
   * Events before `from`, newest first.
   *
   * @param {string} room
   * @param {string} from
   * @param {number} limit
   * @param {string[]} types
   */
  messages(room, from, limit, types) {
    const filter = JSON.stringify({ ...RELATED_STATE, types });
    const query = { dir: "b", from, limit: String(limit), filter };
    return this.call("GET", `/v3/rooms/${encode(room)}/messages`, { query });
  }

  /** @param {string} room @param {string} eventId */
  event(room, eventId) {
    return this.call("GET", `/v3/rooms/${encode(room)}/event/${encode(eventId)}`);
  }

  /** @param {string} room */
  joinedMembers(room) {
    return this.call("GET", `/v3/rooms/${encode(room)}/joined_members`);
  }

  /** @param {string} room @param {string} type @param {string} txn @param {object} content */
  send(room, type, txn, content) {
    const path = `/v3/rooms/${encode(room)}/send/${encode(type)}/${encode(txn)}`;
    return this.call("PUT", path, { body: content });
  }

  /** @param {string} room @param {string} eventId @param {string} txn */
  redact(room, eventId, txn) {
    const path = `/v3/rooms/${encode(room)}/redact/${encode(eventId)}/${encode(txn)}`;
    return this.call("PUT", path, { body: {} });
  }

  /** @param {string} room */
  join(room) {
    return this.call("POST", `/v3/join/${encode(room)}`, { body: {} });
  }

  /** @param {string} room */
  leave(room) {
    return this.call("POST", `/v3/rooms/${encode(room)}/leave`, { body: {} });
  }

  /** @param {string} room @param {string} eventId */
  markRead(room, eventId) {
    const body = { "m.fully_read": eventId, "m.read": eventId };
    return this.call("POST", `/v3/rooms/${encode(room)}/read_markers`, { body });
  }

  /** @param {string} room @param {string} root @param {string} eventId */
  markThreadRead(room, root, eventId) {
    const path = `/v3/rooms/${encode(room)}/receipt/m.read/${encode(eventId)}`;
    return this.call("POST", path, { body: { thread_id: root } });
  }

  /**
   * Events of a thread, its root aside, newest first.
   *
   * @param {string} room
   * @param {string} root
   * @param {string} [from]
   */
  thread(room, root, from) {
    const path = `/v1/rooms/${encode(room)}/relations/${encode(root)}/m.thread`;
    return this.call("GET", path, { query: { limit: "100", ...(from && { from }) } });
  }

  /** The most bytes a file may have; unknown, no limit. @returns {Promise<number>} */
  async uploadLimit() {
    const { "m.upload.size": size } = await this.call("GET", "/v1/media/config");
    return typeof size === "number" ? size : Infinity;
  }

  /** @param {File} file @returns {Promise<string>} its mxc:// address */
  async upload(file) {
    const query = { filename: file.name };
    const answer = await this.call("POST", "/v3/upload", { query, file, timeout: 600000 });
    return answer.content_uri;
  }

  /**
   * A media file (authenticated media, specification v1.11).
   *
   * @param {string} mxc
   * @param {import("./media.js").Size} [size] of a thumbnail; the file itself without it
   * @returns {Promise<Blob>}
   */
  async media(mxc, size) {
    const match = /^mxc:\/\/([\w.:[\]-]+)\/([\w-]+)$/.exec(mxc);
    if (!match) throw new TypeError("not an mxc:// address");
    const file = `${encode(match[1])}/${encode(match[2])}`;
    const response = size
      ? await this.fetch("GET", `/v1/media/thumbnail/${file}`, {
          query: { width: String(size.width), height: String(size.height), method: size.method },
        })
      : await this.fetch("GET", `/v1/media/download/${file}`, { timeout: 120000 });
    return response.blob();
  }
}

/** A transaction id nobody used before. */
export function newTransactionId() {
  const random = crypto.getRandomValues(new Uint32Array(3));
  return `chat.${Date.now()}.${[...random].map((n) => n.toString(36)).join("")}`;
}
