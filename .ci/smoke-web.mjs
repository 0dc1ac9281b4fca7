// Makes a picture in headless Chromium, on the processor: with the unpacked site of a release, or with its package
// where npm installed it. `web/node_modules` must be there (`node web/build.mjs`, or `npm ci` in `web`).
//
//     node .ci/smoke-web.mjs site|package FOLDER PICTURE.png
import { cpSync, mkdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { finished, launch, models, open, picture } from "../web/tests/browser.mjs";

const [kind, place, file] = process.argv.slice(2);
const folder = resolve(place);

/** The page as a person opens a link. */
async function ofTheSite(visit) {
  const page = await visit("/?device=cpu#class=fruit&seed=7&steps=4");
  await finished(page);
  const { png } = await picture(page);
  return { page, png };
}

/** A page that has nothing but the package. */
async function ofThePackage(visit) {
  const page = await visit("/");
  const bytes = await page.evaluate(async () => {
    const { Tintype } = await import("/node_modules/tintype/index.js");
    const weights = (name) => new URL(`models/${name}.safetensors`, location.href).href;
    const tintype = await Tintype.load({ model: weights("hidit"), vae: weights("vae-decoder"), device: "cpu" });
    let png;
    for await (const event of tintype.generate({ class: "fruit", seed: 7, steps: 4 })) {
      if (event.type === "picture") png = event.png;
    }
    tintype.close();
    return [...new Uint8Array(await png.arrayBuffer())];
  });
  return { page, png: Buffer.from(bytes) };
}

if (kind === "package") {
  mkdirSync(join(folder, "models"));
  for (const name of ["hidit", "vae-decoder"]) {
    cpSync(join(models, `${name}.safetensors`), join(folder, "models", `${name}.safetensors`));
  }
  const policy = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:";
  writeFileSync(
    join(folder, "index.html"),
    `<!doctype html><meta http-equiv="Content-Security-Policy" content="${policy}"><title>Tintype</title>\n`,
  );
}
const browser = await launch({ gpu: false });
try {
  const { visit, stop, context } = await open(browser, { folder });
  const { page, png } = await (kind === "package" ? ofThePackage : ofTheSite)(visit);
  if (page.errors.length > 0) throw new Error(`the page reports: ${page.errors.join("; ")}`);
  writeFileSync(file, png);
  await context.close();
  await stop();
} finally {
  await browser.close();
}
