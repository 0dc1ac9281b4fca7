// The built page in a real browser, on the processor: what a person does, and what goes wrong.

import assert from "node:assert/strict";
import { createReadStream, readFileSync, statSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { CLASSES, pmf } from "./pmf.mjs";
import { difference, finished, launch, models, native, open, origin, picture, ready, screenshot, site, words } from "./browser.mjs";

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser.close());

const MODEL = "/models/emoji/hidit.safetensors";

test("a class is picked by typing, and the picture is the native one", async () => {
  const { visit, stop, requests, origin: home, context } = await open(browser);
  const page = await visit("/?device=cpu#seed=7&steps=4");
  await ready(page);
  await page.keyboard.press("/");
  await page.keyboard.type("fru");
  assert.equal(await words(page, "#count"), "1 of 41 classes");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector("#words").textContent.startsWith("step"));
  await screenshot(page, "developing");
  await finished(page);
  const made = await picture(page);
  assert.equal(made.name, "fruit-17-7.png");
  const expected = native(["fruit", "--seed", "7", "--steps", "4"]);
  const apart = await difference(page, made.png, expected);
  console.log(`processor against native: mean absolute difference ${apart.toFixed(4)} of 255`);
  assert.ok(apart <= 0.5, `${apart}`);
  assert.deepEqual(origin(made.png), { ...origin(expected), device: "cpu" });
  assert.match(await words(page, "#words"), /^fruit, seed 7: /);
  assert.equal(new URL(page.url()).hash, "#class=fruit&seed=7&steps=4");
  assert.equal(await page.inputValue("#seed"), "8");
  await page.fill("#wipe", "50");
  await screenshot(page, "finished");
  await page.fill("#search", "no such class");
  await page.press("#search", "Enter");
  assert.deepEqual([await words(page, "#count"), await page.isHidden("#stop")], ["No class is called that.", true]);
  const elsewhere = requests.map((r) => r.url()).filter((url) => !url.startsWith(home) && !/^(blob|data):/.test(url));
  assert.deepEqual(elsewhere, [], "nothing comes from elsewhere");
  assert.deepEqual(page.errors, []);
  await context.close();
  await stop();
});

test("a link makes its picture again", async () => {
  const { visit, stop, context } = await open(browser);
  const page = await visit("/?device=cpu#class=heart&seed=3&steps=3&cfg=1&tau=0.505");
  await finished(page);
  const first = origin((await picture(page)).png);
  assert.deepEqual([first.class_name, first.seed, first.settings.steps, first.settings.guidance.scale, first.settings.tau], ["heart", 3, 3, 1, 0.505]);
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.click("#share");
  await page.waitForFunction(() => document.querySelector("#words").textContent.includes("copied"));
  const link = await page.evaluate(() => navigator.clipboard.readText());
  assert.equal(new URL(link).hash, "#class=heart&seed=3&steps=3&cfg=1&tau=0.505");
  await context.close();
  await stop();
});

test("stopping takes effect within a step, and another picture can follow", async () => {
  const { visit, stop, context } = await open(browser);
  const page = await visit("/?device=cpu#class=smiley&seed=1&steps=100");
  const step = () => page.evaluate(() => Number(/^step (\d+)/.exec(document.querySelector("#words").dataset.last ?? document.querySelector("#words").textContent)?.[1] ?? 0));
  // Remembers the last step that was shown.
  await page.evaluate(() => {
    const line = document.querySelector("#words");
    new MutationObserver(() => {
      if (line.textContent.startsWith("step")) line.dataset.last = line.textContent;
    }).observe(line, { childList: true, characterData: true, subtree: true });
  });
  await page.waitForFunction(() => /^step [3-9]/.test(document.querySelector("#words").textContent), null, { timeout: 120_000 });
  const before = await step();
  await page.keyboard.press("Escape");
  await page.waitForFunction(() => document.querySelector("#words").textContent === "Stopped.");
  assert.ok((await step()) <= before + 1, `${await step()} steps, and it was stopped at ${before}`);
  await page.evaluate(() => (location.hash = "#class=smiley&seed=1&steps=2"));
  await finished(page);
  await context.close();
  await stop();
});

const skip = availableParallelism() < 2 && "this machine has one core";
/** Waits until so many cores compute. */
const computing = (page, cores) =>
  page.waitForFunction((cores) => document.documentElement.dataset.cores === cores, String(cores), { timeout: 60_000 });

/** A second worker that is always ready, and whose answer to a half is this expression. */
const impostor = (answer) => `self.onmessage = ({ data }) => self.postMessage("files" in data ? { ready: true } : ${answer});`;
const ZEROS = "{ id: data.id, results: data.half.streams.map(({ shape, values }) => ({ shape, values: values.fill(0) })) }";

test("two cores make the picture of one, and one does where the other fails", { skip }, async () => {
  let second = null;
  const meddle = (path, response) => {
    if (!path.endsWith("/second.js") || second === null) return false;
    if (second === "") response.writeHead(404).end();
    else response.writeHead(200, { "Content-Type": "text/javascript" }).end(second);
    return true;
  };
  const { visit, stop, context } = await open(browser, { meddle, context: { serviceWorkers: "block" } });
  const warnings = [];
  context.on("console", (message) => message.text().includes("one core") && warnings.push(message.text()));
  /** The picture of a page of its own, both streams in it. */
  const make = async (cores, search = "") => {
    const page = await visit(`/?device=cpu${search}`);
    await ready(page);
    await computing(page, cores);
    await page.evaluate(() => (location.hash = "#class=fruit&seed=7&steps=4&cfg=3&tau=0.6"));
    await finished(page);
    return { page, ...(await picture(page)) };
  };
  const one = await make(1, "&cores=1");
  const two = await make(2);
  assert.equal(await difference(one.page, one.png, two.png), 0);
  assert.deepEqual(origin(two.png), origin(one.png));
  assert.deepEqual(warnings, []);

  // What the second one answers is taken.
  second = impostor(ZEROS);
  const wrong = await make(2);
  assert.ok((await difference(one.page, one.png, wrong.png)) > 1);

  second = impostor('{ failed: "no memory" }');
  const broken = await make(2);
  assert.equal(await difference(one.page, one.png, broken.png), 0);
  await computing(broken.page, 1);
  assert.deepEqual(warnings, ["Tintype computes on one core, as its second worker stopped (no memory)."]);

  second = "";
  const page = await visit("/?device=cpu");
  await ready(page);
  while (warnings.length < 2) await page.waitForTimeout(50);
  assert.match(warnings[1], /its script cannot be loaded/);
  await computing(page, 1);
  for (const { errors } of [one.page, two.page, wrong.page, broken.page, page]) assert.deepEqual(errors, []);
  await context.close();
  await stop();
});

test("a second core that is still loading is in nobody's way", { skip }, async () => {
  let held = true;
  const meddle = (path) => held && path.endsWith("/second.js");
  const { visit, stop, context } = await open(browser, { meddle, context: { serviceWorkers: "block" } });
  const page = await visit("/?device=cpu#class=smiley&seed=1&steps=100");
  await page.waitForFunction(() => /^step [2-9]/.test(document.querySelector("#words").textContent), null, { timeout: 120_000 });
  await page.keyboard.press("Escape");
  await page.waitForFunction(() => document.querySelector("#words").textContent === "Stopped.");
  const use = async (files) => {
    await page.evaluate(() => delete document.documentElement.dataset.ready);
    await page.setInputFiles("#files", files);
    await ready(page);
  };
  // A model that takes guidance as an input has no second half.
  await use([{ name: "pmf.safetensors", mimeType: "application/octet-stream", buffer: pmf() }]);
  held = false;
  await use(["hidit.safetensors", "vae-decoder.safetensors"].map((name) => join(models, name)));
  await computing(page, 2);
  await use([{ name: "pmf.safetensors", mimeType: "application/octet-stream", buffer: pmf() }]);
  await computing(page, 1);
  assert.deepEqual(page.errors, []);
  await context.close();
  await stop();
});

test("the second visit needs no network", async () => {
  const { visit, stop, context, requests } = await open(browser);
  const first = await visit();
  await ready(first);
  await first.waitForFunction(() => navigator.serviceWorker.controller !== null);
  await first.close();
  await stop();
  const before = requests.length;
  const page = await visit("/?device=cpu#class=bird&seed=2&steps=2");
  await finished(page);
  assert.equal(await page.isHidden("#notice"), true, await words(page, "#notice"));
  const weights = requests.slice(before).filter((r) => r.url().endsWith(".safetensors"));
  assert.deepEqual(weights, [], "the weights are kept");
  // The second worker's files, too.
  if (!skip) await computing(page, 2);
  await screenshot(page, "offline");
  await context.close();
});

test("a damaged file is refused, and fetched again", async () => {
  let damaged = true;
  const meddle = (path, response) => {
    if (path !== MODEL || !damaged) return false;
    const bytes = readFileSync(join(site, path));
    bytes[bytes.length - 1000] ^= 1;
    response.writeHead(200, { "Content-Length": bytes.length }).end(bytes);
    return true;
  };
  const { visit, stop, context } = await open(browser, { meddle });
  const page = await visit();
  await page.waitForSelector("#notice button");
  assert.match(await words(page, "#notice"), /hidit\.safetensors is damaged, or of another version than this page: its checksum begins with/);
  await screenshot(page, "damaged");
  damaged = false;
  await page.click("#notice button");
  await ready(page);
  await context.close();
  await stop();
});

test("a download that broke goes on where it was", async () => {
  const ranges = [];
  const meddle = (path, response, request) => {
    if (path !== MODEL) return false;
    ranges.push(request.headers.range);
    if (ranges.length > 1) return false;
    response.writeHead(200, { "Content-Length": statSync(join(site, path)).size });
    createReadStream(join(site, path), { end: 9_999_999 }).on("end", () => setTimeout(() => response.destroy(), 500)).pipe(response, { end: false });
    return true;
  };
  const { visit, stop, context } = await open(browser, { meddle });
  const page = await visit();
  await page.waitForSelector("#notice button");
  assert.match(await words(page, "#notice"), /The connection broke while hidit\.safetensors arrived/);
  await page.click("#notice button");
  await ready(page);
  assert.deepEqual(ranges, [undefined, "bytes=10000000-"]);
  await context.close();
  await stop();
});

test("without room for the files they stay in memory", async () => {
  const { visit, stop, context, origin: home } = await open(browser);
  const page = await visit("/style.css");
  const session = await context.newCDPSession(page);
  await session.send("Storage.overrideQuotaForOrigin", { origin: home, quotaSize: 8 << 20 });
  await page.goto(`${home}/?device=cpu#class=fruit&seed=7&steps=2`);
  await finished(page);
  assert.match(await words(page, "#notice"), /fetched again next time: the browser's storage is full/);
  await context.close();
  await stop();
});

test("weights of one's own, and settings from a picture", async () => {
  const { visit, stop, context } = await open(browser);
  const page = await visit();
  await ready(page);
  const [model, vae] = ["hidit.safetensors", "vae-decoder.safetensors"].map((name) => join(models, name));
  await page.setInputFiles("#files", [model]);
  await page.waitForSelector("#notice button");
  assert.match(await words(page, "#notice"), /Hi-DiT works on latents and needs an autoencoder; give its file as `vae`/);
  await page.setInputFiles("#files", [vae]);
  await page.waitForFunction(() => document.querySelector("#notice").textContent.includes("The network's weights are missing"));
  await page.evaluate(() => delete document.documentElement.dataset.ready);
  await page.setInputFiles("#files", [vae, model]);
  await ready(page);
  assert.match(await words(page, "#device"), /^hidit\.safetensors · this processor/);
  const made = native(["bird", "--seed", "5", "--steps", "3", "--cfg", "3"]);
  await page.setInputFiles("#files", [{ name: "bird-3-5.png", mimeType: "image/png", buffer: made }]);
  await page.waitForFunction(() => document.querySelector("#seed").value === "5");
  assert.equal(await words(page, '#classes [aria-selected="true"]'), "bird");
  await page.click("#generate");
  await finished(page);
  assert.ok((await difference(page, (await picture(page)).png, made)) <= 0.5);
  await page.setInputFiles("#files", [{ name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("hello") }]);
  await page.waitForFunction(() => document.querySelector("#notice").textContent.includes("notes.txt is no model"));
  await context.close();
  await stop();
});

/** A page with a tiny model of one step. */
async function oneStep() {
  const { visit, stop, context } = await open(browser);
  // The page does not load its own model then.
  await context.addInitScript(() => Object.defineProperty(navigator, "connection", { value: { saveData: true } }));
  const page = await visit();
  await page.setInputFiles("#files", [{ name: "pmf.safetensors", mimeType: "application/octet-stream", buffer: pmf() }]);
  await ready(page);
  /** The words of the picture once so many are there. */
  const made = async (count) => {
    await page.waitForFunction((count) => document.querySelectorAll("#pictures li").length === count, count, { timeout: 60_000 });
    return words(page, "#words");
  };
  return { page, made, stop, context };
}

test("a one-step model follows every change, and the last one wins", async () => {
  const { page, made, stop, context } = await oneStep();
  assert.equal(await page.isChecked("#live"), true);
  assert.equal(await page.isVisible("#qualities"), false, "all of them are one step");
  assert.equal(await page.inputValue("#steps"), "1");
  assert.match(await words(page, "#estimate"), /^About [01] s a picture on this processor\.$/);
  await page.click('#classes [data-class="1"]');
  assert.match(await made(1), new RegExp(`^${CLASSES[1]}, seed 0: `));
  const first = await picture(page);
  await page.fill("#seed", "5");
  assert.match(await made(2), /^pear, seed 5: /);
  const second = await picture(page);
  assert.ok((await difference(page, first.png, second.png)) > 1);
  await page.fill("#cfg", "3");
  await made(3);
  const { seed, settings } = origin((await picture(page)).png);
  assert.deepEqual([seed, settings.sampler, settings.steps, settings.guidance.scale], [5, "mean-flow", 1, 3]);
  assert.equal(new URL(page.url()).hash, "#class=pear&seed=5&cfg=3");
  await screenshot(page, "one-step");

  // Changes at once are one picture, and those while it is made are the next.
  await page.evaluate(async () => {
    const field = document.querySelector("#seed");
    const type = (seed) => {
      field.value = String(seed);
      field.dispatchEvent(new Event("input"));
    };
    for (let seed = 20; seed < 25; seed++) type(seed);
    for (let seed = 25; seed < 30; seed++) {
      await new Promise((resolve) => setTimeout(resolve, 0));
      type(seed);
    }
  });
  await page.waitForFunction(() => /seed 29: /.test(document.querySelector("#words").textContent) && document.querySelector("#stop").hidden);
  const count = await page.locator("#pictures li").count();
  assert.ok(count >= 4 && count <= 9, `${count} pictures`);
  assert.equal(await page.getAttribute("#pictures li:first-child button", "title"), "pear, seed 29");

  // A press makes the next one; without following nothing else does.
  await page.click("#generate");
  assert.match(await made(count + 1), /^pear, seed 30: /);
  await page.uncheck("#live");
  await page.fill("#seed", "40");
  await page.fill("#seed", "41");
  await page.click("#generate");
  assert.match(await made(count + 2), /^pear, seed 41: /);
  assert.equal(await page.inputValue("#seed"), "42");
  assert.deepEqual(page.errors, []);
  await context.close();
  await stop();
});

test("two seeds have a way between them; guidance and seeds make a sheet; rare settings have fields", async () => {
  const { page, made, stop, context } = await oneStep();
  const hash = () => new URL(page.url()).hash;
  const onSheet = () => page.locator("#sheet button").evaluateAll((buttons) => buttons.map(({ title }) => title));
  /** The words under a sheet once it is full. */
  const full = (count) => page.waitForFunction((count) => document.querySelector("#words").textContent.startsWith(`${count} pictures: `), count);
  await page.click('#classes [data-class="1"]');
  await made(1);
  const own = await picture(page);
  assert.equal(await page.isVisible("#between"), false);

  // The slider goes from one seed to the other.
  await page.fill("#to-seed", "9");
  assert.match(await made(2), /^pear, seed 0 to 9, 50 %: /);
  const half = await picture(page);
  assert.deepEqual(origin(half.png).blend, { seed: 9, amount: 0.5 });
  assert.equal(hash(), "#class=pear&seed=0&blend=9%2C0.5");
  await page.fill("#between", "0");
  await made(3);
  assert.equal(await difference(page, (await picture(page)).png, own.png), 0);
  await page.fill("#between", "1");
  await made(4);
  const other = await picture(page);
  for (const end of [own, other]) assert.ok((await difference(page, half.png, end.png)) > 0.5);

  // So does a strip, whose pictures are those of a gallery.
  await page.click("#strip");
  await full(7);
  await made(11);
  const ways = [17, 33, 50, 67, 83].map((part) => `pear, seed 0 to 9, ${part} %, guidance 1`);
  assert.deepEqual(await onSheet(), ["pear, seed 0, guidance 1", ...ways, "pear, seed 9, guidance 1"]);
  await screenshot(page, "strip");
  await page.click("#sheet button:nth-child(7)");
  const end = await picture(page);
  assert.equal(await difference(page, end.png, other.png), 0);
  assert.deepEqual([origin(end.png).seed, origin(end.png).blend], [9, undefined]);
  assert.equal(await page.getAttribute('#pictures [aria-current="true"]', "title"), "pear, seed 9");

  // A click on a picture of a sheet takes its settings, and makes nothing.
  await page.fill("#to-seed", "");
  assert.match(await made(12), /^pear, seed 0: /);
  await page.click("#grid");
  await full(9);
  const cells = [1, 3, 5].flatMap((scale) => [0, 1, 2].map((seed) => `pear, seed ${seed}, guidance ${scale}`));
  assert.deepEqual(await onSheet(), cells);
  await screenshot(page, "sheet");
  await page.click("#sheet button:nth-child(6)");
  assert.deepEqual([await page.inputValue("#seed"), await page.inputValue("#cfg")], ["2", "3"]);
  const taken = origin((await picture(page)).png);
  assert.deepEqual([taken.seed, taken.settings.guidance.scale], [2, 3]);
  assert.equal(await page.locator("#pictures li").count(), 21);

  // What the network has no use for has no field.
  await page.focus("#form summary");
  await page.keyboard.press("Enter");
  const fields = await page.locator("#fields .row:visible").evaluateAll((rows) => rows.map((row) => [...row.querySelectorAll("input, select")].map((input) => input.ariaLabel)));
  assert.deepEqual(fields, [["Guidance interval, from", "Guidance interval, to"]]);
  await page.fill("#field-cfgInterval", "0.25");
  await made(22);
  const { low, high } = origin((await picture(page)).png).settings.guidance;
  assert.deepEqual([low, high], [0.25, 1]);
  assert.equal(hash(), "#class=pear&seed=2&cfg=3&cfgInterval=0.25%2C1");
  await page.fill("#field-cfgInterval", "2");
  await page.waitForFunction(() => document.querySelector("#notice").textContent === "cfgInterval 2 1 is not an interval");
  await page.fill("#field-cfgInterval", "");
  await made(23);
  assert.equal(await page.isVisible("#notice"), false);
  assert.equal(hash(), "#class=pear&seed=2&cfg=3");
  assert.deepEqual(page.errors, []);
  await context.close();
  await stop();
});

test("it fits a phone, by day and by night", async () => {
  for (const colorScheme of ["light", "dark"]) {
    const contextOptions = { viewport: { width: 375, height: 760 }, colorScheme, hasTouch: true };
    const { visit, stop, context } = await open(browser, { context: contextOptions });
    const page = await visit("/?device=cpu#class=fruit&seed=7&steps=3");
    await finished(page);
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(overflow <= 0, `${overflow} pixels stick out`);
    await screenshot(page, `phone-${colorScheme}`);
    await context.close();
    await stop();
  }
});

test("everything has a name and can be reached by keyboard", async () => {
  const { visit, stop, context } = await open(browser);
  const page = await visit("/?device=cpu#class=fruit&seed=7&steps=2");
  await finished(page);
  const nameless = await page.evaluate(() => {
    const controls = [...document.querySelectorAll("button, input, select, a, [role=img]")].filter((e) => e.checkVisibility());
    return controls.filter((e) => !(e.ariaLabel || e.textContent.trim() || e.labels?.length)).map((e) => e.outerHTML);
  });
  assert.deepEqual(nameless, []);
  await page.focus("#search");
  const reached = new Set();
  for (let i = 0; i < 40; i++) {
    await page.keyboard.press("Tab");
    reached.add(await page.evaluate(() => document.activeElement.id || document.activeElement.tagName));
  }
  for (const id of ["seed", "dice", "to-seed", "to-dice", "steps", "cfg", "generate", "grid", "wipe", "download", "share", "reuse", "again", "models", "open", "theme"]) {
    assert.ok(reached.has(id), `${id} is not reached: ${[...reached]}`);
  }
  await context.close();
  await stop();
});

test("without WebGPU the processor computes, and says how long it will take", async () => {
  const without = await launch({ gpu: false });
  const { visit, stop } = await open(without);
  const page = await visit("/?cores=1");
  await ready(page);
  assert.match(await words(page, "#notice"), /WebGPU.*Pictures are made on the processor\.$/);
  assert.match(await words(page, "#estimate"), /^About \d+ (s|min) a picture on this processor\.$/);
  await screenshot(page, "without-webgpu");
  // Steps and sampler together, and what each takes.
  const chosen = () => page.evaluate(() => document.querySelector("#qualities :checked")?.value ?? null);
  const setting = async () => [await chosen(), await page.inputValue("#steps"), await page.inputValue("#sampler")];
  assert.deepEqual(await setting(), ["best", "50", "euler-maruyama"]);
  const seconds = (text) => Number(/(\d+) s/.exec(text)?.[1] ?? 60 * /(\d+) min/.exec(text)[1]);
  const times = (await page.locator("#qualities small").allTextContents()).map(seconds);
  assert.ok(times[0] < times[1] && times[1] < times[2], String(times));
  await page.check("#qualities [value=draft]");
  assert.deepEqual(await setting(), ["draft", "8", "unipc"]);
  assert.equal(seconds(await words(page, "#estimate")), times[0]);
  await page.fill("#steps", "9");
  assert.deepEqual(await setting(), [null, "9", "unipc"]);
  await page.fill("#steps", "16");
  assert.equal(await chosen(), "good");
  await page.check("#qualities [value=best]");
  assert.deepEqual(await setting(), ["best", "50", "euler-maruyama"]);
  await page.evaluate(() => (location.hash = "#class=fruit&seed=7&steps=2"));
  await finished(page);
  await without.close();
  await stop();
});
