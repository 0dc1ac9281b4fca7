// Parts of the page and the engine that need no browser.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { deflateSync } from "node:zlib";
import { site } from "./browser.mjs";

const { choose } = await import(join(site, "engine", "capability.js"));
const { decode, encode } = await import(join(site, "page", "link.js"));
const { readOrigin } = await import(join(site, "page", "png.js"));
const { called, search, unmistakable } = await import(join(site, "page", "search.js"));
const { sort } = await import(join(site, "page", "files.js"));

const LIMITS = {
  maxStorageBuffersPerShaderStage: 10,
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupStorageSize: 32768,
  maxComputeWorkgroupSizeX: 256,
  maxComputeWorkgroupsPerDimension: 65535,
  maxStorageBufferBindingSize: 1 << 30,
};
const INFO = { vendor: "nvidia", architecture: "ampere", device: "", description: "", isFallbackAdapter: false };
const adapter = (over = {}) => ({ limits: { ...LIMITS, ...over.limits }, info: { ...INFO, ...over.info }, features: new Set(over.features ?? []) });
const around = (over = {}) => ({
  gpu: { requestAdapter: async () => adapter() },
  secure: true,
  userAgent: "Mozilla/5.0 (Windows NT 10.0) Chrome/150.0 Safari/537.36",
  simd: true,
  ...over,
});

test("a GPU is taken where there is one", async () => {
  const gpu = { requestAdapter: async () => adapter({ features: ["shader-f16"] }) };
  assert.deepEqual(await choose("auto", around({ gpu })), { device: "webgpu", adapter: "nvidia ampere", software: false, f16: true, notice: "" });
  // What only measures time is not needed.
  assert.equal((await choose("auto", around())).device, "webgpu");
});

test("why there is none is said for each browser", async () => {
  const CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0 Safari/537.36";
  const SAFARI = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/605.1.15";
  const FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0";
  const none = async () => null;
  const broken = async () => {
    throw new Error("driver says no");
  };
  for (const [surroundings, sentence] of [
    [{ gpu: undefined, userAgent: CHROME }, /Unsafe WebGPU Support/],
    [{ gpu: undefined, userAgent: SAFARI }, /Safari has WebGPU since version 26/],
    [{ gpu: undefined, userAgent: FIREFOX }, /Firefox has WebGPU here only in its Nightly/],
    [{ gpu: undefined, userAgent: FIREFOX.replace("X11; Linux x86_64", "Windows NT 10.0") }, /Firefox 141/],
    [{ gpu: undefined, userAgent: "Lynx" }, /no WebGPU/],
    [{ gpu: undefined, secure: false }, /plain http/],
    [{ gpu: { requestAdapter: none } }, /no graphics adapter.*block list/],
    [{ gpu: { requestAdapter: broken } }, /driver says no/],
    [{ gpu: { requestAdapter: async () => adapter({ limits: { maxStorageBuffersPerShaderStage: 4 } }) } }, /too small.*maxStorageBuffersPerShaderStage 4 of 8/],
    [{ gpu: { requestAdapter: async () => adapter({ info: { isFallbackAdapter: true } }) } }, /processor in disguise/],
  ]) {
    const capability = await choose("auto", around(surroundings));
    assert.equal(capability.device, "cpu");
    assert.match(capability.notice, sentence);
  }
  await assert.rejects(choose("webgpu", around({ gpu: undefined })), { name: "Unsupported" });
  await assert.rejects(choose("cpu", around({ simd: false })), /too old/);
  assert.equal((await choose("cpu", around({ gpu: undefined }))).notice, "");
  const software = { gpu: { requestAdapter: async () => adapter({ info: { architecture: "swiftshader" } }) } };
  assert.equal((await choose("webgpu", around(software))).device, "webgpu");
});

test("links hold requests", () => {
  const request = { class: "sea creature, fish & co.", seed: 7, steps: 20, cfg: 2.5, tau: 0.4, sampler: "euler", cfgInterval: [0, 0.7] };
  assert.deepEqual(decode(encode(request)), request);
  assert.equal(encode({ class: "fruit", seed: 7, index: 0 }), "#class=fruit&seed=7");
  assert.deepEqual(decode("#class=fruit&seed=18446744073709551615"), { class: "fruit", seed: 18446744073709551615n });
  assert.deepEqual(decode("#class=fruit&seed=-1&steps=many&cfgInterval=1"), { class: "fruit" });
  assert.equal(decode("#"), null);
  assert.equal(decode("#section-2"), null);
});

test("search finds what the library finds", () => {
  const classes = readFileSync(join(site, "../../../core/src/labels/imagenet.txt"), "utf8").trim().split("\n");
  const first = (text) => search(classes, text)[0];
  // The same cases as in the library's own test.
  assert.deepEqual(["207", "Golden Retriever", "panda bear", "daisy", "gold", "harp"].map(first), [207, 207, 388, 985, 1, 594]);
  assert.equal(search(classes, "").length, 1000);
  assert.deepEqual(search(classes, "no such thing"), []);
  for (const [text, meant] of [
    ["harp", [594]],
    ["crayfish", [124]],
    ["tub", [876]],
    ["tabby cat", [281]],
    ["crane", [134, 517]],
    ["Cardigan", [264, 474]],
    ["maillot", [638, 639]],
    ["panda", [387, 388]],
    ["cran", []],
    ["", []],
    ["207", [207]],
  ]) {
    assert.deepEqual(called(classes, text), meant, text);
  }
  assert.deepEqual([594, 593, 134, 638, 639].map((index) => unmistakable(classes, index)), ["harp", "harmonica", "134", "638", "maillot, tank suit"]);
});

test("a number is the class that is called so", () => {
  const texts = ["0", "1", "10", "11", "2", "3"];
  assert.deepEqual(["10", "2", "4"].map((text) => called(texts, text)), [[2], [4], []]);
  assert.equal(unmistakable(texts, 2), "10");
  assert.deepEqual(called(["001", "002"], "2"), [1]);
  assert.deepEqual(called(["2", "3", "background"], "2"), [0]);
  assert.deepEqual(called(["2", "3", "background"], "1"), []);
});

test("settings are read from every kind of text chunk", async () => {
  const settings = { class_name: "café" };
  const chunk = (kind, ...data) => {
    const body = Buffer.concat(data.map((part) => Buffer.from(part)));
    const length = Buffer.alloc(4);
    length.writeUInt32BE(body.length);
    return Buffer.concat([length, Buffer.from(kind), body, Buffer.alloc(4)]);
  };
  const read = (...chunks) => readOrigin(new Blob([Buffer.alloc(8), chunk("IDAT", "pixels"), ...chunks, chunk("IEND")]));
  const utf8 = Buffer.from(JSON.stringify(settings));
  const latin1 = Buffer.from(JSON.stringify(settings), "latin1");
  for (const written of [
    chunk("iTXt", "tintype\0\0\0\0\0", utf8),
    chunk("iTXt", "tintype\0\u0001\0en\0\0", deflateSync(utf8)),
    chunk("tEXt", "tintype\0", latin1),
    chunk("tEXt", "tintype\0", utf8),
    chunk("zTXt", "tintype\0\0", deflateSync(latin1)),
  ]) {
    assert.deepEqual(await read(chunk("tEXt", "Software\0a tool"), written), settings);
  }
  assert.equal(await read(chunk("tEXt", "Software\0tintype")), null);
});

test("dropped files are told apart by what is in them", async () => {
  const file = (name, keys) => {
    const header = Buffer.from(JSON.stringify(Object.fromEntries(keys.map((key) => [key, {}]))));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(header.length));
    return new File([length, header], name);
  };
  const model = file("a.safetensors", ["x_embedder.proj.weight"]);
  const vae = file("b.safetensors", ["decoder.conv_in.weight"]);
  const stats = file("c.safetensors", ["mean", "std"]);
  assert.deepEqual(await sort([vae, stats, model]), { model, vae, stats });
  const pt = [new File([""], "vavae-imagenet256-f16d32.pt"), new File([""], "lightningdit-xl-imagenet256-800ep.pt"), new File([""], "latents_stats.pt")];
  assert.deepEqual(await sort(pt), { vae: pt[0], model: pt[1], stats: pt[2] });
  const bin = new File([""], "diffusion_pytorch_model.bin"); // only autoencoders of diffusers are known
  assert.deepEqual(await sort([bin, model]), { model, vae: bin });
  await assert.rejects(sort([vae]), /weights are missing/);
  await assert.rejects(sort([model, file("d.safetensors", ["blocks.0"])]), /Both a\.safetensors and d\.safetensors look like the network/);
  await assert.rejects(sort([new File(["ten bytes!"], "e.safetensors")]), /e\.safetensors is damaged/);
  await assert.rejects(sort([new File([""], "f.txt")]), /f\.txt is no model/);
});

test("the package resolves and its types fit the README's example", () => {
  const project = mkdtempSync(join(tmpdir(), "tintype-package-"));
  mkdirSync(join(project, "node_modules"));
  symlinkSync(join(site, "../package"), join(project, "node_modules", "tintype"));
  const readme = readFileSync(join(site, "../package/README.md"), "utf8");
  const example = /```ts\n([\s\S]*?)```/.exec(readme)[1];
  const context = "declare const context: CanvasRenderingContext2D;\n";
  writeFileSync(join(project, "example.ts"), context + example);
  writeFileSync(join(project, "package.json"), '{"type": "module"}');
  const tsc = join(import.meta.dirname, "../node_modules/typescript/bin/tsc");
  const options = "--noEmit --strict --target es2022 --module nodenext --lib es2022,dom,dom.asynciterable --types".split(" ");
  execFileSync(process.execPath, [tsc, ...options, "", "example.ts"], { cwd: project, stdio: "inherit" });
});

test("the engine stays small", () => {
  const { brotli } = JSON.parse(readFileSync(join(site, "../size.json"), "utf8"));
  assert.ok(brotli <= 4_000_000, `${brotli} bytes with brotli`);
});
