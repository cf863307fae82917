/** The bridge's REST API, as the dashboard calls it. */

const ROOT = new URL("../", import.meta.url);

/** The bridge answered with a problem document (RFC 9457). */
export class ProblemError extends Error {
  /** @param {number} status HTTP status @param {Record<string, any>} body */
  constructor(status, body) {
    super(body.detail || body.title || `The bridge answered with status ${status}.`);
    this.status = status;
  }
}

/** The bridge could not be reached. */
export class UnreachableError extends Error {
  constructor() {
    super("The bridge cannot be reached.");
  }
}

/**
 * A Matrix login, for a token of the bridge.
 *
 * @param {string} user @param {string} password
 * @returns {Promise<{access_token: string, user_id: string}>}
 */
export function login(user, password) {
  return ask("POST", new URL("login", ROOT), { body: { user_id: user, password } });
}

export class Api {
  /** @type {(reason: string) => void} called once our token is refused */
  onEnded = () => {};

  /** @param {string} token */
  constructor(token) {
    this.token = token;
  }

  /**
   * @param {string} method
   * @param {string} path below `/api/v1`
   * @param {{query?: Record<string, any>, body?: object}} [options]
   * @returns {Promise<any>} what is answered, null for nothing
   * @throws {ProblemError|UnreachableError}
   */
  async call(method, path, { query, body } = {}) {
    const url = new URL(`api/v1${path}`, ROOT);
    for (const [name, value] of Object.entries(query ?? {})) url.searchParams.set(name, value);
    return this.#watched(ask(method, url, { body, token: this.token }));
  }

  /**
   * Server-sent events as they come (HTML, Server-sent events); `EventSource` could send no token.
   *
   * @param {string} path below `/api/v1`
   * @param {AbortSignal} signal
   * @returns {AsyncGenerator<{name: string, data: any}>}
   */
  async *events(path, signal) {
    const url = new URL(`api/v1${path}`, ROOT);
    const answer = await this.#watched(send("GET", url, { token: this.token, signal, accept: "text/event-stream" }));
    const reader = /** @type {ReadableStream} */ (answer.body).pipeThrough(new TextDecoderStream()).getReader();
    let kept = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (kept + value).split("\n\n");
      kept = blocks.pop() ?? "";
      for (const block of blocks) {
        const event = parsed(block);
        if (event?.name === "error") throw this.#seen(new ProblemError(event.data.status, event.data));
        if (event) yield event;
      }
    }
  }

  /** @template T @param {Promise<T>} asked @returns {Promise<T>} */
  #watched(asked) {
    return asked.catch((error) => {
      throw this.#seen(error);
    });
  }

  /** @param {unknown} error */
  #seen(error) {
    if (error instanceof ProblemError && error.status === 401) this.onEnded(error.message);
    return error;
  }
}

/** @param {string} block of one event */
function parsed(block) {
  const fields = Object.fromEntries(
    block.split("\n").filter((line) => line && !line.startsWith(":")).map((line) => line.split(/: (.*)/s)),
  );
  return fields.event ? { name: fields.event, data: JSON.parse(fields.data) } : null;
}

/**
 * @param {string} method @param {URL} url
 * @param {{token?: string, body?: object}} options
 */
async function ask(method, url, options) {
  const answer = await send(method, url, options);
  if (answer.status === 204) return null;
  return answer.json().catch(() => {
    throw new UnreachableError();
  });
}

/**
 * @param {string} method @param {URL} url
 * @param {{token?: string, body?: object, signal?: AbortSignal, accept?: string}} options
 */
async function send(method, url, { token, body, signal, accept = "application/json" }) {
  /** @type {Record<string, string>} */
  const headers = { Accept: accept };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body) headers["Content-Type"] = "application/json";
  const request = { method, headers, signal, body: body && JSON.stringify(body), cache: /** @type {const} */ ("no-store") };
  const answer = await fetch(url, request).catch((error) => {
    if (signal?.aborted) throw error;
    throw new UnreachableError();
  });
  if (!answer.ok) throw new ProblemError(answer.status, await answer.json().catch(() => ({})));
  return answer;
}
