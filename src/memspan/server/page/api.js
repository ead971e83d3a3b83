// The REST API, and nothing else: what is asked, by which key, and what went wrong in words.

const KEY = "memspan.key";
const root = new URL(".", document.baseURI);
export const here = { namespace: "default", writes: 0 };

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: secret => sessionStorage.setItem(KEY, secret),
  forget: () => sessionStorage.removeItem(KEY),
};

// What the server answered instead, as problem+json says it, or that it did not answer.
export class Problem extends Error {
  constructor(status, told = {}) {
    super(told.detail || told.title || "Something went wrong");
    this.status = status;
    this.code = told.code ?? "";
    this.mend = told.mend ?? "";
  }
}

let asking = null;  // one question for the key, however many calls wait for it
let askForKey = async () => false;
export const onKeyNeeded = ask => { askForKey = ask; };

async function told(response) {
  try { return await response.json(); } catch { return {}; }
}

async function send(method, url, { body, signal, headers = {} }) {
  const sent = { Accept: "application/json", ...headers };
  if (body !== undefined) sent["Content-Type"] = "application/json";
  if (key.get()) sent.Authorization = `Bearer ${key.get()}`;
  try {
    return await fetch(url, { method, signal, headers: sent, cache: "no-store", body: body === undefined ? undefined : JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { detail: "The server does not answer", mend: "See whether it is still running (memspan serve), then try again." });
  }
}

// The answer to one call, and its headers. Without a key that holds, the reader is asked for one, until there is, or not.
export async function call(method, path, { query = {}, ...rest } = {}) {
  const url = new URL(path, root);
  for (const [name, value] of Object.entries(query)) for (const one of [value].flat()) if (one !== undefined && one !== null && one !== "") url.searchParams.append(name, one);
  for (;;) {
    const used = key.get(), response = await send(method, url, rest);
    if (response.ok) return { value: response.status === 204 ? null : await told(response), headers: response.headers };
    const problem = new Problem(response.status, await told(response));
    if (response.status !== 401) throw problem;
    if (used === key.get()) {
      asking ??= askForKey(problem, used !== "").finally(() => { asking = null; });
      if (!await asking) throw problem;
    }
  }
}

const inside = path => `v1/namespaces/${encodeURIComponent(here.namespace)}/${path}`;
const one = id => `segments/${encodeURIComponent(id)}`;
const read = async (path, query, signal) => (await call("GET", inside(path), { query, signal })).value;
const post = async (path, body, signal) => (await call("POST", inside(path), { body, signal })).value;
async function write(method, path, body, headers) {
  const { value } = await call(method, inside(path), { body, headers });
  here.writes += 1;
  return value;
}

export const api = {
  namespaces: async () => (await call("GET", "v1/namespaces")).value,
  search: (body, signal) => post("search", body, signal),
  context: (body, signal) => post("context", body, signal),
  timeline: ({ filters, ...query }, signal) => read("timeline", { ...query, filters: filters && JSON.stringify(filters) }, signal),
  tree: (query, signal) => read("tree", query, signal),
  segment: async (id, signal) => {
    const { value, headers } = await call("GET", inside(one(id)), { signal });
    return { segment: value, tag: headers.get("ETag") };
  },
  history: async (id, signal) => (await read(`${one(id)}/history`, {}, signal)).events,
  neighbors: async (id, query, signal) => (await read(`${one(id)}/neighbors`, query, signal)).neighbors,
  add: body => write("POST", "segments", body),
  update: (id, body, tag) => write("PATCH", one(id), body, tag ? { "If-Match": tag } : {}),
  remove: id => write("DELETE", one(id)),
  operations: async (query, signal) => (await read("operations", query, signal)).operations,
  undo: id => write("POST", `operations/${encodeURIComponent(id)}/undo`),
  conflicts: async (query, signal) => (await read("conflicts", query, signal)).conflicts,
  accept: pair => write("POST", "conflicts/accept", pair),
  reject: pair => write("POST", "conflicts/reject", pair),
  stats: async signal => (await call("GET", "v1/stats", { signal })).value,
  ready: async signal => (await call("GET", "health/ready", { signal })).value,
  keys: async signal => (await call("GET", "v1/keys", { signal })).value.keys,
  makeKey: async body => (await call("POST", "v1/keys", { body })).value,
  revokeKey: async id => (await call("DELETE", `v1/keys/${encodeURIComponent(id)}`)).value,
};
