// Shows /openapi.json: operations, what they take and give, and a curl line for each.

/** An element with children; texts stay texts. */
function h(name, properties, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children.filter((child) => child !== null));
  return element;
}

class Reader {
  #schemas;

  constructor(api) {
    this.#schemas = api.components?.schemas ?? {};
  }

  /** The schema behind a reference, and its name. */
  resolve(schema) {
    const name = schema?.$ref?.split("/").pop();
    return name ? { name, ...this.#schemas[name] } : (schema ?? {});
  }

  /** What a value is, in a few words. */
  type(given) {
    const schema = this.resolve(given);
    if (schema.name) return schema.name;
    const options = schema.anyOf ?? schema.oneOf;
    if (options) return options.map((option) => this.type(option)).join(" | ");
    if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
    if (schema.const !== undefined) return JSON.stringify(schema.const);
    if (schema.type === "array") return `list of ${this.type(schema.items)}`;
    return `${schema.type ?? "any"}${this.#bounds(schema)}`;
  }

  #bounds(schema) {
    const low = schema.minimum ?? schema.exclusiveMinimum ?? schema.minLength;
    const high = schema.maximum ?? schema.exclusiveMaximum ?? schema.maxLength;
    if (low === undefined && high === undefined) return "";
    return ` (${low ?? ""}–${high ?? ""})`;
  }

  /** An example of a body, or undefined. */
  example(content) {
    if (content.example !== undefined) return content.example;
    const named = Object.values(content.examples ?? {})[0]?.value;
    if (named !== undefined) return named;
    const options = [content.schema, ...(content.schema?.anyOf ?? [])];
    return options.map((option) => this.resolve(option).examples?.[0]).find((one) => one !== undefined);
  }

  fields(given) {
    const schemas = [given, ...(given?.anyOf ?? [])].map((one) => this.resolve(one));
    const schema = schemas.find((one) => one.properties) ?? {};
    const required = schema.required ?? [];
    return Object.entries(schema.properties ?? {}).map(([name, field]) => ({
      name: required.includes(name) ? name : `${name}?`,
      type: this.type(field),
      description: field.description ?? "",
    }));
  }
}

function table(rows) {
  const lines = rows.map((row) =>
    h("tr", {}, h("td", {}, h("code", {}, row.name)), h("td", { className: "quiet" }, row.type), h("td", {}, row.description)),
  );
  return h("table", {}, h("tbody", {}, ...lines));
}

function json(value) {
  return h("pre", {}, typeof value === "string" ? value : JSON.stringify(value, null, 2));
}

/** A word for a shell: nothing in it means anything. */
function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function curl(method, path, operation, reader) {
  const given = operation.parameters ?? [];
  const filled = given
    .filter((one) => one.in === "path")
    .reduce((url, one) => {
      const example = one.schema?.examples?.[0] ?? one.example ?? one.examples?.[0];
      return example === undefined ? url : url.replace(`{${one.name}}`, encodeURIComponent(example));
    }, path);
  const words = ["curl"];
  if (method !== "GET") words.push("-X", method);
  if (operation.security) words.push("-H", '"Authorization: Bearer $TOKEN"');
  const [mediaType, content] = Object.entries(operation.requestBody?.content ?? {})[0] ?? [];
  if (mediaType) {
    words.push("-H", quoted(`Content-Type: ${mediaType}`));
    const example = reader.example(content);
    if (mediaType !== "application/json") words.push("--data-binary", "@file");
    else if (example !== undefined) words.push("-d", quoted(JSON.stringify(example)));
  }
  return [...words, quoted(new URL(`.${filled}`, location.href).href)].join(" ");
}

function bodies(heading, contents, reader) {
  return Object.entries(contents ?? {}).flatMap(([mediaType, content]) => {
    const fields = reader.fields(content.schema);
    const example = reader.example(content);
    return [
      h("h3", {}, heading, " ", h("span", { className: "quiet" }, mediaType)),
      fields.length ? table(fields) : null,
      example === undefined ? null : json(example),
    ];
  });
}

function answers(operation, reader) {
  return Object.entries(operation.responses)
    .filter(([, answer]) => !answer.content?.["application/problem+json"])
    .flatMap(([status, answer]) => bodies(`Answers ${status}`, answer.content, reader));
}

function problems(operation) {
  const rows = Object.entries(operation.responses).flatMap(([status, answer]) =>
    Object.entries(answer.content?.["application/problem+json"]?.examples ?? {}).map(([slug, one]) => ({
      name: `${status} ${slug}`,
      type: "",
      description: one.value.detail,
    })),
  );
  return rows.length ? [h("h3", {}, "Problems"), table(rows)] : [];
}

function parameters(operation, reader) {
  if (!operation.parameters?.length) return [];
  const rows = operation.parameters.map((one) => ({
    name: one.required ? one.name : `${one.name}?`,
    type: `${one.in}, ${reader.type(one.schema)}`,
    description: one.description ?? one.schema?.description ?? "",
  }));
  return [h("h3", {}, "Takes"), table(rows)];
}

/** Built when it is opened: there are many. */
function inside(method, path, operation, reader) {
  return h(
    "div",
    { className: "inside" },
    h("p", {}, operation.description ?? ""),
    json(curl(method, path, operation, reader)),
    ...parameters(operation, reader),
    ...bodies("Body", operation.requestBody?.content, reader),
    ...answers(operation, reader),
    ...problems(operation),
  );
}

function entry(method, path, operation, reader) {
  const summary = h(
    "summary",
    {},
    h("span", { className: "method" }, method),
    h("code", {}, path),
    h("span", { className: "said" }, operation.summary ?? ""),
  );
  const details = h("details", { id: operation.operationId }, summary);
  details.dataset.words = `${method} ${path} ${operation.operationId} ${operation.summary}`.toLowerCase();
  details.addEventListener("toggle", () => {
    if (details.open && details.childElementCount === 1) details.append(inside(method, path, operation, reader));
  });
  return details;
}

function sections(api) {
  const reader = new Reader(api);
  const byTag = new Map((api.tags ?? []).map((tag) => [tag.name, { tag, entries: [] }]));
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const name = operation.tags?.[0] ?? "other";
      if (!byTag.has(name)) byTag.set(name, { tag: { name }, entries: [] });
      byTag.get(name).entries.push(entry(method.toUpperCase(), path, operation, reader));
    }
  }
  return [...byTag.values()].map(({ tag, entries }) =>
    h("section", {}, h("h2", {}, tag.name, " ", h("small", {}, tag.description ?? "")), ...entries),
  );
}

function search(words) {
  for (const section of document.querySelectorAll("section")) {
    const entries = [...section.querySelectorAll("details")];
    for (const one of entries) one.hidden = !one.dataset.words.includes(words.trim().toLowerCase());
    section.hidden = entries.every((one) => one.hidden);
  }
}

function openNamed() {
  const named = document.getElementById(location.hash.slice(1));
  if (named instanceof HTMLDetailsElement) {
    named.open = true;
    named.scrollIntoView();
  }
}

async function show() {
  const place = document.getElementById("operations");
  try {
    const answer = await fetch("openapi.json");
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const api = await answer.json();
    document.getElementById("version").textContent = api.info.version;
    document.getElementById("about").textContent = api.info.description ?? "";
    place.replaceChildren(...sections(api));
    search(document.getElementById("find").value);
    openNamed();
  } catch (error) {
    place.textContent = `/openapi.json cannot be read: ${error.message}`;
  }
}

document.getElementById("find").addEventListener("input", (event) => search(event.target.value));
window.addEventListener("hashchange", openNamed);
void show();
