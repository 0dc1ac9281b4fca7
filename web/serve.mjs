// A static server for the built page, with ranges: `node web/serve.mjs [port]`. Any other will do.

import { createReadStream, readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { dirname, extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const TYPES = {
  ".css": "text/css",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".json": "application/json",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
  ".webmanifest": "application/manifest+json",
};

/** Serves a folder; `meddle(path, response)` may answer instead, and then returns true. */
export function serve(folder, port = 0, meddle = () => false) {
  const policy = policyOf(readFileSync(join(folder, "index.html"), "utf8"));
  const server = createServer((request, response) => {
    const path = pathOf(request.url);
    if (path === undefined) return void response.writeHead(400).end("no address");
    if (meddle(path, response, request)) return;
    const file = join(folder, normalize(path.endsWith("/") ? `${path}index.html` : path));
    const found = file.startsWith(folder) ? statSync(file, { throwIfNoEntry: false }) : undefined;
    if (!found?.isFile() || found.size === 0) return void response.writeHead(404).end("not found");
    const size = found.size;
    const headers = {
      "Content-Type": TYPES[extname(file)] ?? "application/octet-stream",
      "Accept-Ranges": "bytes",
      "Content-Security-Policy": policy,
    };
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
    const start = range ? Number(range[1]) : 0;
    const end = range && range[2] ? Math.min(Number(range[2]), size - 1) : size - 1;
    if (start > end) return void response.writeHead(416, { "Content-Range": `bytes */${size}` }).end();
    if (range) headers["Content-Range"] = `bytes ${start}-${end}/${size}`;
    response.writeHead(range ? 206 : 200, { ...headers, "Content-Length": end - start + 1 });
    createReadStream(file, { start, end }).pipe(response);
  });
  return new Promise((resolve, reject) => {
    server.on("error", reject);
    server.listen(port, "127.0.0.1", () => resolve({ server, origin: `http://localhost:${server.address().port}` }));
  });
}

/** The path of an address; undefined where it is none. */
function pathOf(address) {
  try {
    return decodeURIComponent(new URL(address, "http://localhost").pathname);
  } catch {
    return undefined;
  }
}

/** The policy that a page states in its head. Workers have none but what comes with their scripts. */
function policyOf(html) {
  return /http-equiv="Content-Security-Policy"\s+content="([^"]+)"/.exec(html)[1];
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const site = join(dirname(fileURLToPath(import.meta.url)), "dist", "site");
  const { origin } = await serve(site, Number(process.argv[2] ?? 8080));
  console.log(`${origin}/`);
}
