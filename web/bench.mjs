// Seconds and memory of one emoji picture in a browser tab and natively on the same machine:
//
//     node web/bench.mjs [steps]           on the processor, two cores of it
//     node web/bench.mjs [steps] cpu 1     on one core
//     node web/bench.mjs [steps] webgpu    on the browser's software GPU and the system's

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { finished, launch, open } from "./tests/browser.mjs";

const steps = process.argv[2] ?? "20";
const device = process.argv[3] ?? "cpu";
const cores = process.argv[4] ?? "2";
const rounds = device === "cpu" ? 3 : 1;
const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
/** Largest amount of memory that a process had, in MiB. */
const peak = (pid) => Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) / 1024;

const browser = await launch();
const { visit, stop, context } = await open(browser);
const cdp = await browser.newBrowserCDPSession();
const processes = async () => (await cdp.send("SystemInfo.getProcessInfo")).processInfo;

const empty = await visit("/style.css");
const idle = new Map((await processes()).map(({ id, type }) => [id, { type, before: peak(id) }]));
const started = performance.now();
const page = await visit(`/?device=${device}&cores=${cores}&preview=0#class=fruit&seed=7&steps=${steps}`);
const seconds = [await finished(page, 3_000_000)];
const first = (performance.now() - started) / 1000 - seconds[0];
const { firstStep } = await page.evaluate(() => ({ ...document.documentElement.dataset }));
for (let round = 1; round < rounds; round++) {
  // The first picture does not wait for the second core.
  if (device === "cpu") await page.waitForFunction((cores) => document.documentElement.dataset.cores === cores, cores);
  await page.click("#generate");
  seconds.push(await finished(page, 3_000_000));
}
const memory = (await processes())
  .filter(({ type }) => type === "renderer" || type === "GPU")
  .map(({ id, type }) => `${type} ${peak(id).toFixed(0)} MiB${idle.has(id) ? ` (${idle.get(id).before.toFixed(0)} with an empty page)` : ""}`);
await empty.close();
await page.reload();
const again = performance.now();
await page.waitForFunction(() => "ready" in document.documentElement.dataset, null, { timeout: 120_000 });
console.log(`browser, ${device}${device === "cpu" ? `, ${cores} of its cores` : ""}, ${steps} steps: ${median(seconds).toFixed(2)} s a picture (${seconds.map((s) => s.toFixed(2)).join(", ")})`);
console.log(`first visit: ready after ${first.toFixed(1)} s; Generate to first step ${firstStep} ms; second visit: ready after ${((performance.now() - again) / 1000).toFixed(1)} s`);
console.log(`peak memory: ${memory.join(", ")}`);
await context.close();
await browser.close();
await stop();

const out = mkdtempSync(join(tmpdir(), "tintype-bench-"));
for (const threads of device === "cpu" ? ["1", ""] : [""]) {
  const times = [];
  let most = 0;
  for (let round = 0; round < rounds; round++) {
    const args = ["generate", "fruit", "--seed", "7", "--steps", steps, "--device", device === "cpu" ? "cpu" : "wgpu", "--out", out];
    const env = { ...process.env, ...(threads && { RAYON_NUM_THREADS: threads }) };
    const begun = performance.now();
    const child = spawn("target/release/tintype", args, { cwd: join(import.meta.dirname, ".."), env, stdio: "ignore" });
    const watch = setInterval(() => {
      try {
        most = Math.max(most, peak(child.pid));
      } catch {
        // It ended.
      }
    }, 50);
    await new Promise((resolve) => child.on("exit", resolve));
    clearInterval(watch);
    times.push((performance.now() - begun) / 1000);
  }
  const ratio = (median(seconds) / median(times)).toFixed(2);
  const name = device === "cpu" ? `${threads || "all"} thread${threads === "1" ? "" : "s"}` : "wgpu";
  console.log(`native, ${name}: ${median(times).toFixed(2)} s (${times.map((s) => s.toFixed(2)).join(", ")}), ${most.toFixed(0)} MiB; the browser takes ${ratio} times as long`);
}
