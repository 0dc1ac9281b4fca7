// The store against a hub on this machine, in Node: what servers do, and what may come of it.

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { site } from "./browser.mjs";
import { sha256, startHub } from "./hub.mjs";
import { install } from "./opfs.mjs";

const { find, look, obtain, remove, sizeOf } = await import(join(site, "engine", "store.js"));
globalThis.location = { origin: "https://page.example" };

const PATH = "/a/b/resolve/main/weights.pt";
const SECOND = `${PATH}?part=2`;
const content = randomBytes(300_000);
const files = { [PATH]: content, [SECOND]: randomBytes(1000) };
let hub;
let disk;
before(async () => {
  hub = await startHub(files);
});
after(() => hub.stop());
beforeEach(() => {
  disk = install();
  hub.log.length = 0;
});
afterEach(() => {
  hub.meddle = () => false;
  files[PATH] = content;
});

class Checksum {
  hash = createHash("sha256");
  update(piece) {
    this.hash.update(piece);
  }
  hex() {
    return this.hash.copy().digest("hex");
  }
  free() {}
}

const around = (over = {}) => ({
  checksum: () => new Checksum(),
  keep: true,
  memory: false,
  signal: new AbortController().signal,
  progress: () => undefined,
  ...over,
});
const pinned = () => ({ url: hub.origin + PATH, bytes: content.length, sha256: sha256(content) });
const unpinned = () => ({ url: hub.origin + PATH });
const ranges = () => hub.log.filter(({ server }) => server === "bytes").map(({ headers }) => headers.range);
const names = () => [...(disk.root.entries.get("tintype-weights")?.entries.keys() ?? [])];
const bytesOf = async ({ blob }) => Buffer.from(await blob.arrayBuffer());

/** The next answer ends after so many bytes. */
function cut(at) {
  hub.meddle = (_, response, bytes) => {
    hub.meddle = () => false;
    response.writeHead(200, { "Content-Length": bytes.length, ETag: `"${sha256(bytes).slice(0, 8)}-in-the-store"` });
    response.write(bytes.subarray(0, at), () => setTimeout(() => response.destroy(), 50));
    return true;
  };
}

async function broken(wanted, at = 100_000) {
  cut(at);
  await assert.rejects(obtain(wanted, around()), (error) => error.passing && /weights\.pt/.test(error.message));
  assert.deepEqual(await look(wanted), { bytes: at, whole: false, sha256: null });
}

test("a file is fetched once, kept, and removed", async () => {
  for (const wanted of [pinned(), unpinned()]) {
    assert.equal(await look(wanted), null);
    assert.equal(await find(wanted, around()), null);
    assert.deepEqual(await bytesOf(await obtain(wanted, around())), content);
    assert.deepEqual(await look(wanted), { bytes: content.length, whole: true, sha256: sha256(content) });
    const { length } = hub.log;
    assert.deepEqual(await bytesOf(await obtain(wanted, around())), content);
    assert.deepEqual(await bytesOf({ blob: await find(wanted, around()) }), content);
    assert.equal(hub.log.length, length, "a kept file needs no request");
    await remove(wanted);
    assert.deepEqual(names(), []);
  }
  assert.ok(hub.log.every(({ headers, method }) => method === "GET" && !headers.referer && !headers.cookie));
});

test("a checksum may have capital letters", async () => {
  const capital = { ...pinned(), sha256: pinned().sha256.toUpperCase() };
  assert.deepEqual(await bytesOf(await obtain(capital, around())), content);
  assert.deepEqual(await bytesOf({ blob: await find(pinned(), around()) }), content);
});

test("files whose addresses differ behind the question mark are two", async () => {
  const [first, second] = [unpinned(), { url: hub.origin + SECOND }];
  for (const wanted of [first, second, first]) await obtain(wanted, around({ beside: [first, second] }));
  assert.deepEqual(await bytesOf({ blob: await find(first, around()) }), content);
  assert.deepEqual(await bytesOf({ blob: await find(second, around()) }), files[SECOND]);
  await obtain(first, around());
  assert.equal(await look(second), null, "another version");
});

test("what broke goes on where it was", async () => {
  for (const wanted of [pinned(), unpinned()]) {
    hub.log.length = 0;
    await broken(wanted);
    assert.deepEqual(await bytesOf(await obtain(wanted, around())), content);
    assert.deepEqual(ranges(), [undefined, "bytes=100000-"]);
    assert.deepEqual((await look(wanted)).sha256, sha256(content));
    await remove(wanted);
    assert.deepEqual(names(), []);
  }
});

test("a server without ranges, with another one, or beyond its end sends the whole again", async () => {
  const answers = {
    200: (response) => response.writeHead(200).end(content),
    206: (response) => response.writeHead(206, { "Content-Range": `bytes 0-${content.length - 1}/${content.length}` }).end(content),
    416: (response) => response.writeHead(416, { "Content-Range": `bytes */${content.length}` }).end(),
  };
  for (const answer of Object.values(answers)) {
    await broken(pinned());
    hub.meddle = (_, response) => {
      hub.meddle = () => false;
      answer(response);
      return true;
    };
    assert.deepEqual(await bytesOf(await obtain(pinned(), around())), content);
    await remove(pinned());
  }
});

test("without a digest, only the same file goes on", async () => {
  await broken(unpinned());
  files[PATH] = randomBytes(300_000);
  assert.deepEqual(await bytesOf(await obtain(unpinned(), around())), files[PATH]);
  assert.deepEqual(ranges(), [undefined, "bytes=100000-", undefined]);
});

test("without a digest and an ETag nothing goes on", async () => {
  hub.meddle = (_, response, bytes) => {
    hub.meddle = () => false;
    response.writeHead(200, { "Content-Length": bytes.length, ETag: 'W/"weak"' });
    response.write(bytes.subarray(0, 1000), () => setTimeout(() => response.destroy(), 50));
    return true;
  };
  await assert.rejects(obtain(unpinned(), around()), /broke/);
  assert.deepEqual(await bytesOf(await obtain(unpinned(), around())), content);
  assert.deepEqual(ranges(), [undefined, undefined]);
});

test("another file than the published one is refused and deleted", async () => {
  files[PATH] = randomBytes(300_000);
  const beginnings = new RegExp(`begins with ${sha256(files[PATH]).slice(0, 8)} and should begin with ${sha256(content).slice(0, 8)}`);
  await assert.rejects(obtain(pinned(), around()), beginnings);
  assert.deepEqual(names(), []);

  files[PATH] = content;
  await broken(pinned());
  files[PATH] = randomBytes(299_999);
  await assert.rejects(obtain(pinned(), around()), /it has 299999 bytes and should have 300000/);
  assert.deepEqual(names(), []);
  await assert.rejects(obtain({ ...unpinned(), most: 200_000 }, around()), /larger than was said: it has 299999 bytes/);
  assert.deepEqual(names(), []);
});

test("a page in place of the file is told, and what was there stays", async () => {
  await broken(pinned());
  hub.meddle = (_, response) => response.writeHead(200, { "Content-Type": "text/html; charset=utf-8" }).end("<html>Log in</html>");
  await assert.rejects(obtain(pinned(), around()), /localhost:\d+ answers with a web page instead of weights\.pt/);
  assert.equal((await look(pinned())).bytes, 100_000);
});

test("what a server refuses is told by its host, and whether to try again", async () => {
  for (const [status, passing, words] of [
    [403, false, /localhost:\d+ does not give weights\.pt: 403 Forbidden\. It may ask for conditions/],
    [429, true, /429 Too Many Requests/],
    [503, true, /503/],
  ]) {
    hub.meddle = (_, response) => response.writeHead(status).end();
    await assert.rejects(obtain(pinned(), around()), (error) => words.test(error.message) && error.passing === passing);
  }
  await assert.rejects(obtain({ url: `${hub.origin}/a/b/resolve/main/other.pt` }, around()), /404 Not Found/);
});

test("a full disk is an error, or the rest stays in memory", async () => {
  disk.limit = 100_000;
  await assert.rejects(obtain(pinned(), around()), /weights\.pt cannot be kept: the browser's storage is full/);
  const inMemory = await obtain(pinned(), around({ memory: true }));
  assert.equal(inMemory.notKept, "the browser's storage is full");
  assert.deepEqual(await bytesOf(inMemory), content);
});

test("two pages do not write one file", async () => {
  await broken(pinned());
  const part = [...disk.root.entries.get("tintype-weights").entries.values()][0];
  const access = await part.createSyncAccessHandle();
  await assert.rejects(obtain(pinned(), around()), /another page may be fetching the same file/);
  await assert.rejects(remove(pinned()), /cannot be removed: another page/);
  access.close();
});

test("a pause keeps what has arrived", async () => {
  const abort = new AbortController();
  const progress = (phase, bytes) => phase === "download" && bytes > 0 && abort.abort();
  hub.meddle = (_, response, bytes) => response.writeHead(200, { "Content-Length": bytes.length }).write(bytes.subarray(0, 50_000)) || true;
  await assert.rejects(obtain(pinned(), around({ signal: abort.signal, progress })), { name: "AbortError" });
  assert.ok((await look(pinned())).bytes > 0);
  hub.meddle = () => false;
  assert.deepEqual(await bytesOf(await obtain(pinned(), around())), content);
});

test("a damaged file is not taken", async () => {
  await obtain(pinned(), around());
  const kept = [...disk.root.entries.get("tintype-weights").entries.values()][0];
  kept.bytes = Buffer.concat([kept.bytes.subarray(1), Buffer.from([0])]);
  assert.equal(await find(pinned(), around()), null);
  assert.deepEqual(names(), []);
});

test("a size is asked for one byte", async () => {
  assert.equal(await sizeOf(hub.origin + PATH), content.length);
  assert.deepEqual(ranges(), ["bytes=0-0"]);
  hub.meddle = (_, response) => response.writeHead(200, { "Content-Length": content.length }).end(content);
  assert.equal(await sizeOf(hub.origin + PATH), content.length);
});
