// What the browser tests share: Chromium, the built page behind a server, native pictures.

import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { serve } from "../serve.mjs";

const web = dirname(dirname(fileURLToPath(import.meta.url)));
const target = process.env.CARGO_TARGET_DIR ?? join(web, "..", "target");
export const site = join(web, "dist", "site");
export const models = join(web, "..", "models", "emoji");
const pictures = join(target, "web-screenshots");
mkdirSync(pictures, { recursive: true });

const SOFTWARE_GPU = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];
const NO_GPU = ["--disable-features=WebGPU", "--disable-blink-features=WebGPU", "--disable-gpu"];

export function launch({ gpu = true } = {}) {
  const candidates = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
  const executablePath = candidates.find((path) => path && existsSync(path));
  if (!executablePath) throw new Error("no Chromium was found; install it, or name it in CHROMIUM");
  return chromium.launch({ executablePath, args: ["--no-sandbox", ...(gpu ? SOFTWARE_GPU : NO_GPU)] });
}

/** A page of its own storage, on a server of its own; `meddle` as in `serve`. */
export async function open(browser, { folder = site, meddle, context: contextOptions = {} } = {}) {
  const { server, origin } = await serve(folder, 0, meddle);
  const context = await browser.newContext({ viewport: { width: 1180, height: 860 }, ...contextOptions });
  const requests = [];
  context.on("request", (request) => requests.push(request));
  const stop = () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  };
  const visit = async (path = "/?device=cpu") => {
    const page = await context.newPage();
    const errors = [];
    page.on("pageerror", (error) => errors.push(error.message));
    await page.goto(origin + path);
    return Object.assign(page, { errors });
  };
  return { context, origin, requests, visit, stop };
}

export const ready = (page) => page.waitForFunction(() => "ready" in document.documentElement.dataset, null, { timeout: 120_000 });

/** Waits for a picture; a notice with a button is a failure. */
export async function finished(page, timeout = 300_000) {
  await page.waitForFunction(
    () => document.documentElement.dataset.seconds || document.querySelector("#notice:not([hidden]) button"),
    null,
    { timeout },
  );
  const seconds = await page.evaluate(() => document.documentElement.dataset.seconds);
  if (!seconds) throw new Error(await page.textContent("#notice"));
  return Number(seconds);
}

export const words = (page, selector) => page.textContent(selector);

/** The picture on the stage as a PNG file, downloaded. */
export async function picture(page) {
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#download")]);
  return { name: download.suggestedFilename(), png: readFileSync(await download.path()) };
}

/** What `tintype generate` makes of the same request, on the processor. */
export function native(args) {
  const program = join(target, "release", "tintype");
  if (!existsSync(program)) throw new Error("there is no target/release/tintype; `cargo build --release --locked` makes it");
  const out = mkdtempSync(join(tmpdir(), "tintype-web-"));
  execFileSync(program, ["generate", ...args, "--device", "cpu", "--out", out], { stdio: ["ignore", "ignore", "inherit"] });
  const file = readdirSync(out).find((name) => name.endsWith(".png") && name !== "grid.png");
  return readFileSync(join(out, file));
}

/** Mean absolute difference of two PNG files of one size, of 255. */
export function difference(page, a, b) {
  return page.evaluate(
    async ([a, b]) => {
      const pixels = async (bytes) => {
        const image = await createImageBitmap(new Blob([new Uint8Array(bytes)]));
        const context = new OffscreenCanvas(image.width, image.height).getContext("2d");
        context.drawImage(image, 0, 0);
        return context.getImageData(0, 0, image.width, image.height).data;
      };
      const [x, y] = [await pixels(a), await pixels(b)];
      if (x.length !== y.length) throw new Error("the pictures have different sizes");
      let sum = 0;
      for (let i = 0; i < x.length; i++) sum += Math.abs(x[i] - y[i]);
      return (sum * 4) / 3 / x.length; // every fourth value is opaque in both
    },
    [[...a], [...b]],
  );
}

/** The settings in a picture. */
export function origin(png) {
  const at = png.indexOf("iTXttintype\0");
  const text = png.subarray(at + 12 + 4, at + 4 + png.readUInt32BE(at - 4));
  return JSON.parse(text.toString("utf8"));
}

/** Kept for people to look at. */
export const screenshot = (page, name) => page.screenshot({ path: join(pictures, `${name}.png`), fullPage: true });
