// Published models in a real browser, from a hub on this machine: what is asked for, when, and what may come of it.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { launch, models, open, ready, screenshot, site, words } from "./browser.mjs";
import { sha256, siteFor, startHub } from "./hub.mjs";

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser.close());

const network = readFileSync(join(models, "hidit.safetensors"));
const decoder = readFileSync(join(models, "vae-decoder.safetensors"));
const FILES = {
  "/tintype/emoji/resolve/refs%2Fpr%2F1/weights%20%5B1%5D/hidit.safetensors": network,
  "/tintype/emoji-decoder/resolve/main/vae-decoder.safetensors": decoder,
  "/tintype/emoji/resolve/main/hidit.safetensors": network,
};

/** The emoji model as others would publish it, and models that a page cannot have. */
const CATALOGUE = [
  {
    name: "emoji-hub",
    title: "Emoji from a hub",
    kind: "network",
    architecture: "Hi-DiT",
    image_size: 128,
    classes: 41,
    licence: { id: "CC-BY-NC-4.0", commercial: false },
    files: [{ role: "network", address: "hub:tintype/emoji/weights [1]/hidit.safetensors@refs/pr/1", bytes: network.length, sha256: sha256(network) }],
    needs: ["emoji-decoder"],
    sampling: { sampler: "euler", steps: 7, guidance: { scale: 3, low: 0, high: 0.7 } },
  },
  {
    name: "emoji-decoder",
    title: "The emoji's decoder",
    kind: "autoencoder",
    licence: { id: "MIT", commercial: true },
    files: [{ role: "autoencoder", address: "hub:tintype/emoji-decoder/vae-decoder.safetensors", bytes: decoder.length }],
  },
  {
    name: "unmeasured",
    title: "Emoji of an unknown size",
    kind: "network",
    architecture: "Hi-DiT",
    licence: { id: "unknown" },
    files: [{ role: "network", address: "hub:tintype/emoji/hidit.safetensors" }],
    needs: ["emoji-decoder"],
  },
  {
    name: "giant",
    title: "A giant",
    kind: "network",
    architecture: "SiT",
    licence: { id: "MIT", commercial: true },
    files: [{ role: "network", address: "hub:tintype/giant/giant.safetensors", about_bytes: 5.2e9 }],
  },
  { name: "other", title: "Another network", kind: "network", architecture: "Other", licence: { id: "MIT", commercial: true } },
];

const device = (page, beginning) =>
  page.waitForFunction((beginning) => document.querySelector("#device").textContent.startsWith(beginning), beginning, { timeout: 60_000 });

test("a published model is fetched after a press, opens with its settings, and is there after a reload", async () => {
  const hub = await startHub(FILES);
  const { visit, stop, context } = await open(browser, { folder: siteFor(site, hub, CATALOGUE) });
  const page = await visit();
  await ready(page);
  await page.click("#models");
  const row = page.locator("#there li[data-name=emoji-hub]");
  await row.getByRole("button").waitFor();
  const listed = await page.locator("#published li").evaluateAll((items) => items.map((item) => item.dataset.name));
  assert.deepEqual(listed, ["emoji-hub", "unmeasured", "giant"]);
  assert.match(await row.textContent(), /Hi-DiT · 128 × 128 · 41 classes · CC-BY-NC-4\.0.*not for commercial use/);
  const giant = page.locator("li[data-name=giant]");
  assert.match(await giant.textContent(), /5\.2 GB: does not fit into a tab; use the desktop app/);
  assert.equal(await giant.getByRole("button").count(), 0);
  assert.deepEqual(hub.log, [], "nothing is asked before a button is pressed");
  await screenshot(page, "published");

  // The first answer ends early.
  hub.meddle = (_, response, bytes) => {
    hub.meddle = () => false;
    response.writeHead(200, { "Access-Control-Allow-Origin": "*", "Content-Length": bytes.length });
    response.write(bytes.subarray(0, 10_000_000), () => setTimeout(() => response.destroy(), 500));
    return true;
  };
  await row.getByRole("button", { name: `Download 32.3 MB from ${hub.host}` }).click();
  await device(page, "Emoji from a hub");
  assert.equal(await words(page, "#count"), "41 classes");
  assert.deepEqual([await page.inputValue("#steps"), await page.inputValue("#cfg"), await page.inputValue("#sampler")], ["7", "3", "euler"]);
  assert.equal(await page.isChecked("#qualities [value=best]"), true, "the authors' settings");
  assert.equal(await page.isVisible("#published"), false);
  const [first, second] = Object.keys(FILES);
  const asked = hub.log.map(({ server, url, headers }) => [server, server === "hub" ? url : headers.range]);
  assert.deepEqual(asked, [
    ["hub", first],
    ["bytes", undefined],
    ["hub", first],
    ["bytes", "bytes=10000000-"],
    ["hub", second],
    ["bytes", undefined],
  ]);
  assert.ok(hub.log.every(({ method, headers }) => method === "GET" && !headers.referer && !headers.cookie));

  // Opened in the middle of a picture, and with no request.
  hub.log.length = 0;
  await page.reload();
  await ready(page);
  await page.click("#surprise");
  await page.waitForFunction(() => /^step [2-9]/.test(document.querySelector("#words").textContent), null, { timeout: 60_000 });
  await page.click("#models");
  const here = page.locator("#here li[data-name=emoji-hub]");
  await here.getByRole("button", { name: "Open" }).waitFor();
  assert.match(await here.textContent(), /32\.3 MB in this browser/);
  assert.match(await here.textContent(), new RegExp(`vae-decoder\\.safetensors came with the SHA-256 ${sha256(decoder)}`));
  await here.getByRole("button", { name: "Open" }).click();
  await device(page, "Emoji from a hub");
  assert.equal(await page.inputValue("#steps"), "7");
  assert.equal(await page.isHidden("#notice"), true, await words(page, "#notice"));
  await page.click("#models");
  await here.getByRole("button", { name: "Remove" }).click();
  await row.getByRole("button", { name: `Download 32.3 MB from ${hub.host}` }).waitFor();
  assert.deepEqual(hub.log, []);
  assert.deepEqual(page.errors, []);
  await context.close();
  await stop();
  await hub.stop();
});

test("what is not the published file is refused, a pause goes on, and an unknown size is asked for", async () => {
  const hub = await startHub(FILES);
  const { visit, stop, context } = await open(browser, { folder: siteFor(site, hub, CATALOGUE) });
  // The page does not load its own model then.
  await context.addInitScript(() => Object.defineProperty(navigator, "connection", { value: { saveData: true } }));
  const page = await visit();
  await page.click("#models");
  const row = page.locator("li[data-name=emoji-hub]");
  const download = row.getByRole("button", { name: `Download 32.3 MB from ${hub.host}` });
  const begin = (response, bytes) => response.writeHead(200, { "Access-Control-Allow-Origin": "*", "Content-Length": bytes.length });

  hub.meddle = (_, response, bytes) => {
    const damaged = Buffer.from(bytes);
    damaged[1000] ^= 1;
    begin(response, bytes).end(damaged);
    return true;
  };
  await download.click();
  await row.getByText(/hidit\.safetensors is damaged.*its checksum begins with/).waitFor();
  assert.match(await row.textContent(), new RegExp(`should begin with ${sha256(network).slice(0, 8)}`));

  hub.meddle = (_, response) => response.writeHead(200, { "Access-Control-Allow-Origin": "*", "Content-Type": "text/html" }).end("<p>Log in</p>");
  await download.click();
  await row.getByText("answers with a web page instead of hidit.safetensors").waitFor();
  await screenshot(page, "published-refused");

  hub.meddle = (_, response, bytes) => begin(response, bytes).write(bytes.subarray(0, 8_000_000)) || true;
  await download.click();
  await page.waitForFunction(() => document.querySelector("#published progress:not([hidden])")?.value === 8_000_000);
  await row.getByRole("button", { name: "Pause" }).click();
  const resume = row.getByRole("button", { name: `Resume: 24.3 MB from ${hub.host}` });
  await resume.waitFor();
  assert.match(await row.textContent(), /8 MB are in this browser/);

  const unmeasured = page.locator("li[data-name=unmeasured]");
  hub.log.length = 0;
  hub.meddle = () => false;
  await unmeasured.getByRole("button", { name: `Ask ${hub.host} for its size` }).click();
  await unmeasured.getByRole("button", { name: `Download 32.3 MB from ${hub.host}` }).waitFor();
  assert.deepEqual(hub.log.map(({ headers }) => headers.range), ["bytes=0-0", "bytes=0-0"]);

  // Who has gone on to something else is asked before the model is opened.
  hub.log.length = 0;
  let goOn;
  const closed = new Promise((resolve) => (goOn = resolve));
  hub.meddle = (request, response, bytes) => {
    hub.meddle = () => false;
    const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range)[1]);
    const range = `bytes ${from}-${bytes.length - 1}/${bytes.length}`;
    const headers = { "Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "*", "Content-Range": range, "Content-Length": bytes.length - from };
    void closed.then(() => response.writeHead(206, headers).end(bytes.subarray(from)));
    return true;
  };
  await resume.click();
  await page.keyboard.press("Escape");
  goOn();
  await page.getByRole("button", { name: "Open it" }).waitFor();
  assert.match(await words(page, "#notice"), /^Emoji from a hub has arrived\./);
  assert.equal(hub.log.find(({ server }) => server === "bytes").headers.range, "bytes=8000000-");
  assert.equal(await words(page, "#models"), "Published models…");
  assert.deepEqual(page.errors, []);
  await context.close();
  await stop();
  await hub.stop();
});

test("checkpoints open as their authors nest them: k-diffusion's training file, REPA's network on diffusers' autoencoder", async () => {
  const cases = ["kdiffusion.pth", "repa-sit.safetensors", "diffusers-vae.safetensors", "sd-vae-latents-stats.safetensors"];
  const bytes = Object.fromEntries(cases.map((name) => [name, readFileSync(join(models, "../../core/tests/cases", name))]));
  const files = Object.fromEntries(cases.map((name) => [`/authors/model/resolve/main/${name}`, bytes[name]]));
  const entry = (title, architecture, parts) => ({
    name: title.toLowerCase(),
    title,
    kind: "network",
    architecture,
    licence: { id: "MIT", commercial: true },
    files: Object.entries(parts).map(([role, name]) => ({ role, address: `hub:authors/model/${name}`, bytes: bytes[name].length, sha256: sha256(bytes[name]) })),
    sampling: { sampler: architecture === "HDiT" ? "dpmpp-2m" : "euler", steps: 2, guidance: { scale: 1, low: 0, high: 1 } },
  });
  const catalogue = [
    entry("Pixels", "HDiT", { network: "kdiffusion.pth" }),
    entry("Latents", "SiT", { network: "repa-sit.safetensors", autoencoder: "diffusers-vae.safetensors", statistics: "sd-vae-latents-stats.safetensors" }),
  ];
  const hub = await startHub(files);
  const { visit, stop, context } = await open(browser, { folder: siteFor(site, hub, catalogue) });
  // The page does not load its own model then.
  await context.addInitScript(() => Object.defineProperty(navigator, "connection", { value: { saveData: true } }));
  const page = await visit();
  for (const { name, title } of catalogue) {
    await page.click("#models");
    await page.locator(`li[data-name=${name}]`).getByRole("button", { name: /^Download/ }).click();
    await device(page, title);
    assert.equal(await page.inputValue("#steps"), "2");
  }
  assert.deepEqual(page.errors, []);
  await context.close();
  await stop();
  await hub.stop();
});
