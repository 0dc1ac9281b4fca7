// A hub on this machine, for tests: as at Hugging Face, one server redirects to another one, which has the bytes.

import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

/** Serves files by their path on the hub, as it comes in a request. `log` has every request; `meddle(request, response,
 * bytes)` may answer in place of the server with the bytes, and then returns true. */
export async function startHub(files) {
  const paths = Object.keys(files);
  const hub = { log: [], meddle: () => false };
  const note = (server, { method, url, headers }) => hub.log.push({ server, method, url, headers });
  const second = await listen((request, response) => {
    note("bytes", request);
    const path = paths[Number(request.url.slice(1).split("?")[0])];
    const bytes = files[path];
    // A preflight gets no permission: nothing may need one.
    if (request.method !== "GET") return void response.writeHead(403).end();
    if (hub.meddle(request, response, bytes)) return;
    const [, from = 0, to = bytes.length - 1] = /^bytes=(\d+)-(\d+)?$/.exec(request.headers.range ?? "") ?? [];
    if (Number(from) >= bytes.length) return void response.writeHead(416, { ...open, "Content-Range": `bytes */${bytes.length}` }).end();
    const headers = { ...open, ETag: `"${sha256(bytes).slice(0, 8)}-in-the-store"`, "Content-Length": Number(to) - Number(from) + 1 };
    if (request.headers.range) headers["Content-Range"] = `bytes ${from}-${to}/${bytes.length}`;
    response.writeHead(request.headers.range ? 206 : 200, headers).end(bytes.subarray(Number(from), Number(to) + 1));
  });
  const first = await listen((request, response) => {
    note("hub", request);
    const cors = {
      "Access-Control-Allow-Origin": request.headers.origin ?? "*",
      "Access-Control-Expose-Headers": "X-Repo-Commit,X-Error-Code,ETag,Accept-Ranges,Content-Range,X-Linked-Size,X-Linked-ETag",
    };
    const place = paths.indexOf(request.url);
    if (request.method !== "GET") return void response.writeHead(403).end();
    if (place < 0) return void response.writeHead(404, { ...cors, "X-Error-Code": "EntryNotFound" }).end("Entry not found");
    const bytes = files[request.url];
    response.writeHead(302, { ...cors, Location: `${second.origin}/${place}?signature=x`, "X-Linked-Size": bytes.length, "X-Linked-Etag": `"${sha256(bytes)}"` }).end();
  });
  const stop = () => Promise.all([first.stop(), second.stop()]);
  return Object.assign(hub, { origin: first.origin, host: new URL(first.origin).host, bytesOrigin: second.origin, stop });
}

/** Any page may read what the second server sends, as its redirect has taken away the page's name. */
const open = { "Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "*", "Content-Type": "binary/octet-stream" };

function listen(answer) {
  const server = createServer(answer);
  const stop = () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  };
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve({ origin: `http://localhost:${server.address().port}`, stop })));
}

/** A copy of the page whose hub is this one, with this catalogue. */
export function siteFor(site, hub, models) {
  const folder = mkdtempSync(join(tmpdir(), "tintype-site-"));
  const page = readFileSync(join(site, "index.html"), "utf8")
    .replace("https://huggingface.co https://*.huggingface.co https://*.hf.co", `${hub.origin} ${hub.bytesOrigin}`)
    .replace("https://huggingface.co", hub.origin);
  const changed = { "index.html": page, "catalogue.json": JSON.stringify({ models }) };
  for (const name of readdirSync(site)) {
    if (name in changed) writeFileSync(join(folder, name), changed[name]);
    else symlinkSync(join(site, name), join(folder, name));
  }
  return folder;
}
