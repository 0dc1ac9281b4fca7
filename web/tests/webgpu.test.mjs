// The built page on WebGPU, in software, which is slow: one picture of few steps, both streams in it.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { difference, finished, launch, native, open, origin, picture, screenshot, words } from "./browser.mjs";

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser.close());

test("on WebGPU the picture is the native one", async () => {
  const { visit, stop, context } = await open(browser);
  // Two evaluations of the latent, one of both streams, a decode; no guidance, which would double each.
  const settings = { steps: 2, cfg: 1, tau: 0.6, sampler: "euler" };
  const fields = Object.entries(settings);
  const page = await visit(`/?device=webgpu&preview=0#class=fruit&seed=7&${fields.map((f) => f.join("=")).join("&")}`);
  const seconds = await finished(page, 900_000);
  const made = await picture(page);
  const expected = native(["fruit", "--seed", "7", ...fields.flatMap(([key, value]) => [`--${key}`, String(value)])]);
  const apart = await difference(page, made.png, expected);
  const { firstStep } = await page.evaluate(() => ({ ...document.documentElement.dataset }));
  console.log(`WebGPU against native: mean absolute difference ${apart.toFixed(4)} of 255; first step after ${firstStep} ms, picture after ${seconds} s`);
  assert.ok(apart <= 2, `${apart}`);
  assert.equal(origin(made.png).device, "webgpu");
  assert.match(await words(page, "#notice"), /swiftshader is the processor in disguise/);
  await screenshot(page, "webgpu");
  await context.close();
  await stop();
});

test("a software adapter is left for the processor, which is faster", async () => {
  const { visit, stop, context } = await open(browser);
  const page = await visit("/#class=fruit&seed=7&steps=2");
  await finished(page);
  assert.match(await words(page, "#notice"), /processor in disguise, which is slower than the processor itself\. Pictures are made on the processor\./);
  await context.close();
  await stop();
});
