// Parts of the page and the engine that need no browser.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { deflateSync } from "node:zlib";
import { serve } from "../serve.mjs";
import { site } from "./browser.mjs";

const { choose } = await import(join(site, "engine", "capability.js"));
const { decode, encode } = await import(join(site, "page", "link.js"));
const { readOrigin } = await import(join(site, "page", "png.js"));
const { called, search, unmistakable } = await import(join(site, "page", "search.js"));
const { sort } = await import(join(site, "page", "files.js"));
const { hubAddress, published, tooLarge } = await import(join(site, "page", "catalogue.js"));
const { fits } = await import(join(site, "engine", "pair.js"));
const { Pace, evaluations } = await import(join(site, "page", "pace.js"));
const { size } = await import(join(site, "page", "size.js"));
const { grid, strip } = await import(join(site, "page", "sheet.js"));
const { seedOf } = await import(join(site, "page", "seed.js"));
const { Rate } = await import(join(site, "page", "rate.js"));
const { given } = await import(join(site, "engine", "tintype.js"));

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
  const nameless = { gpu: { requestAdapter: async () => ({ ...adapter(), info: undefined }) } };
  const { device, adapter: name } = await choose("auto", around(nameless));
  assert.deepEqual([device, name], ["webgpu", "a GPU that does not say its name"]);
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
  const rare = { seed: 7, blend: { seed: 18446744073709551615n, amount: 0.25 }, times: "karras", cfgAdaptive: 0.999, shift: 0.3, karras: { eta: 0.5, s_noise: 1.003, sigma_max: 40 } };
  assert.deepEqual(decode(encode(rare)), rare);
  assert.equal(encode({ class: "fruit", seed: 7, index: 0 }), "#class=fruit&seed=7");
  assert.deepEqual(decode("#class=fruit&seed=18446744073709551615"), { class: "fruit", seed: 18446744073709551615n });
  assert.deepEqual(decode("#class=fruit&seed=-1&steps=many&cfgInterval=1&blend=9&rho=x"), { class: "fruit" });
  assert.deepEqual(decode("#class=fruit&seed=18446744073709551616&blend=-1,0.5"), { class: "fruit" });
  assert.equal(decode("#"), null);
  assert.equal(decode("#section-2"), null);
});

test("a request has known fields, of which some may be undefined", () => {
  assert.deepEqual(given({ class: null, seed: 7, steps: undefined, preview: false }), { class: null, seed: 7, preview: false });
  assert.throws(() => given({ seed: 7, guidance: 2 }), /no field “guidance”/);
});

test("seeds are whole numbers of 64 bits", () => {
  assert.deepEqual(["0", "9007199254740991", "9007199254740993"].map(seedOf), [0, 9007199254740991, 9007199254740993n]);
  assert.deepEqual(["", "-1", "1.5", "1e3", "18446744073709551616"].map(seedOf), [null, null, null, null, null]);
});

test("a sheet has guidance below each other and seeds side by side", () => {
  const info = { defaults: { cfg: 2.4 }, guided: true };
  const scales = (request, over = {}) => grid(request, { ...info, ...over }).requests.map(({ cfg }) => cfg);
  assert.deepEqual(scales({}), [1.7, 2.4, 3.1]);
  assert.deepEqual([1, 0, 7].map((cfg) => scales({ cfg })), [[1, 3, 5], [0, 3, 5], [4, 7, 10]]);
  assert.deepEqual(scales({}, { defaults: { cfg: 1 }, guided: false }), [1]);
  assert.deepEqual(grid({ seed: 7, steps: 9 }, info).requests[1], { seed: 7, steps: 9, cfg: 2.4, count: 3 });
  const way = strip({ seed: 7, steps: 9, blend: { seed: 4, amount: 0.3 } });
  assert.deepEqual(way.requests, [{ seed: 7, steps: 9, toSeed: 4, count: way.columns }]);
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
  const seeds = String.raw`{"class_name": "\"seed\": 3", "seed": 18446744073709551615, "blend": {"seed":9007199254740993,"amount":0.5}, "index": 7}`;
  const exact = { class_name: '"seed": 3', seed: 18446744073709551615n, blend: { seed: 9007199254740993n, amount: 0.5 }, index: 7 };
  assert.deepEqual(await read(chunk("tEXt", "tintype\0", Buffer.from(seeds))), exact);
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
  const pt = [new File([""], "vavae-imagenet256-f16d32-dinov2.pt"), new File([""], "lightningdit-xl-imagenet256-800ep.pt"), new File([""], "latents_stats.pt")];
  assert.deepEqual(await sort(pt), { vae: pt[0], model: pt[1], stats: pt[2] });
  const bin = new File([""], "diffusion_pytorch_model.bin"); // only autoencoders of diffusers are known
  assert.deepEqual(await sort([bin, model]), { model, vae: bin });
  // A RAE's files, of which the decoder is told by a tensor: it is called as networks are.
  const pickle = (name, tensor) => new File(["PK", Buffer.alloc(3000), tensor], name);
  const rae = [pickle("stage2_model.pt", "s_embedder.proj.weight"), pickle("model.pt", "trainable_cls_token"), pickle("stat.pt", "mean")];
  assert.deepEqual(await sort(rae), { model: rae[0], vae: rae[1], stats: rae[2] });
  const converted = [file("g.safetensors", ["decoder_embed.bias", "trainable_cls_token"]), file("h.safetensors", ["var"])];
  assert.deepEqual(await sort([...converted, model]), { model, vae: converted[0], stats: converted[1] });
  const [yaml, json] = [new File(["stage_2:"], "sampling.yaml"), new File(["{}"], "config.json")];
  assert.deepEqual(await sort([model, yaml]), { model, config: "stage_2:" });
  await assert.rejects(sort([model, yaml, json]), /Both sampling\.yaml and config\.json look like the network's configuration/);
  // The configuration of an autoencoder is for it, and not for the network.
  const configOf = (config) => new File([JSON.stringify(config)], "config.json");
  for (const config of [
    { _class_name: "AutoencoderKL", block_out_channels: [128] },
    { block_out_channels: [128] },
    { model_type: "vit_mae", hidden_size: 768 },
    { decoder_hidden_size: 16, decoder_num_attention_heads: 2 },
  ]) {
    assert.deepEqual(await sort([model, configOf(config), vae]), { model, vae, vaeConfig: JSON.stringify(config) });
    await assert.rejects(sort([model, configOf(config)]), /config\.json describes an autoencoder, and there is none/);
  }
  for (const config of [{ hidden_size: 1152 }, { _class_name: "DiTTransformer2DModel", block_out_channels: [128] }, null]) {
    assert.deepEqual(await sort([model, configOf(config), vae]), { model, vae, config: JSON.stringify(config) });
  }
  await assert.rejects(sort([vae]), /weights are missing/);
  await assert.rejects(sort([model, file("d.safetensors", ["blocks.0"])]), /Both a\.safetensors and d\.safetensors look like the network/);
  await assert.rejects(sort([new File(["ten bytes!"], "e.safetensors")]), /e\.safetensors is damaged/);
  await assert.rejects(sort([new File([""], "f.txt")]), /f\.txt is no model/);
});

test("addresses of a hub are those of the library", () => {
  const address = (text) => hubAddress(text, "https://h.example");
  // The same cases as in the library's own tests.
  for (const [text, url] of [
    ["hub:a/b/file name with [brackets] and %.pt@refs/pr/1", "https://h.example/a/b/resolve/refs%2Fpr%2F1/file%20name%20with%20%5Bbrackets%5D%20and%20%25.pt"],
    ["hub:datasets/a/b/c/ä.txt", "https://h.example/datasets/a/b/resolve/main/c/%C3%A4.txt"],
    ["hub:a/b/c@d.pt@main", "https://h.example/a/b/resolve/main/c%40d.pt"],
    ["hub:a/b/c/d.pt@refs/pr/1", "https://h.example/a/b/resolve/refs%2Fpr%2F1/c/d.pt"],
    ["hub:a/b/it's (new).pt", "https://h.example/a/b/resolve/main/it%27s%20%28new%29.pt"],
    ["https://example.org/a.pt", null],
    ["link:https://example.org/a?dl=1", null],
  ]) {
    assert.equal(address(text), url, text);
  }
});

const catalogue = JSON.parse(readFileSync(join(site, "catalogue.json"), "utf8"));
const ABILITIES = { networks: ["HDiT", "Hi-DiT", "LightningDiT", "SiT"], largest: 4294967295, largestAtOnce: 2147483647 };

test("published models are those of known networks, with what is in the way", () => {
  const models = new Map(published(catalogue, ABILITIES.networks, "https://h.example").map((model) => [model.name, model]));
  assert.deepEqual(["imf-b-2", "va-vae", "inception"].filter((name) => models.has(name)), []);
  const sit = models.get("sit-s-2");
  assert.deepEqual(sit.files.map(({ part, name }) => [part, name]), [
    ["model", "SiT-S-2-256.pt"],
    ["vae", "diffusion_pytorch_model.safetensors"],
  ]);
  assert.equal(sit.files[0].url, "https://h.example/nyu-visionx/SiT-collections/resolve/9a43ddf08f80ac7f3525208ce72943e98fe98343/SiT-S-2-256.pt");
  assert.deepEqual([sit.files[0].bytes, sit.files[0].sha256.slice(0, 4), sit.obstacle], [131893962, "a245", ""]);
  assert.match(sit.warning, /^The licence of SiT-S\/2, ImageNet 256 is not known/);
  assert.equal(tooLarge(sit.files, ABILITIES, "cpu"), "");

  const lightning = models.get("lightningdit-xl-1-800ep");
  assert.deepEqual(lightning.files.map(({ part }) => part), ["model", "vae", "stats"]);
  assert.equal(lightning.facts, "LightningDiT · 256 × 256 · 1000 classes · FID 1.35 · MIT");
  assert.equal(lightning.page, "https://h.example/hustvl/lightningdit-xl-imagenet256-800ep");
  assert.deepEqual([lightning.warning, lightning.obstacle, lightning.settings.steps], ["", "", 249]);
  assert.match(tooLarge(lightning.files, ABILITIES, "webgpu"), /^2\.7 GB: does not fit into a tab, which reads PyTorch's files at once, up to 2\.15 GB\. Use the desktop app/);

  for (const [name, obstacle] of [
    ["hi-dit-xl-256", /names of its files are not known/],
    ["repa-sit-xl-2", /^It lies on www\.dropbox\.com/],
    ["repa-e-joint-sdvae", /^One file holds network and autoencoder/],
  ]) {
    assert.match(models.get(name).obstacle, obstacle);
  }
});

test("what fits into a tab depends on how it is read, and on the device", () => {
  const fits = (files, device) => tooLarge(files, ABILITIES, device) === "";
  const [large, small] = [2e9, 1e9];
  assert.ok(fits([{ name: "a.safetensors", bytes: 4e9 }], "webgpu"));
  assert.ok(!fits([{ name: "a.safetensors", bytes: 4e9 }], "cpu"));
  assert.match(tooLarge([{ name: "a.safetensors", about: 5.2e9 }], ABILITIES, "webgpu"), /^5\.2 GB: does not fit into a tab; use the desktop app\.$/);
  assert.ok(fits([{ name: "a.pt", bytes: large }, { name: "b.safetensors", bytes: small }], "webgpu"));
  assert.ok(!fits([{ name: "a.pt", bytes: large }, { name: "b.pt", bytes: large }], "webgpu"));
  assert.ok(fits([{ name: "a.pt", bytes: small }, { name: "b.safetensors", bytes: small }], "cpu"));
  assert.ok(!fits([{ name: "a.pt", bytes: large }], "cpu"));
  assert.ok(fits([{ name: "a.pt" }], "cpu"), "a size that is not known is asked for");
});

test("the smallest one-step models fit into a tab, the largest do not", () => {
  const abilities = { ...ABILITIES, networks: ["iMF", "pMF"] };
  const models = new Map(published(catalogue, abilities.networks, "https://h.example").map((model) => [model.name, model]));
  // Of weights in float32, as a page hears of them when it asks.
  const words = (name, bytes, device) => {
    const model = models.get(name);
    assert.equal(model.obstacle, "");
    assert.match(model.files[0].name, /\.pth?$/);
    return tooLarge(model.files.map((file) => (file.part === "model" ? { ...file, bytes } : file)), abilities, device);
  };
  assert.deepEqual(models.get("imf-b-2").files.map(({ part }) => part), ["model", "vae"]);
  for (const device of ["cpu", "webgpu"]) {
    assert.equal(words("imf-b-2", 0.36e9, device), "");
    assert.equal(words("pmf-b-16", 0.47e9, device), "");
    assert.match(words("imf-xl-2", 2.44e9, device), /^2\.44 GB: does not fit into a tab, which reads PyTorch's files at once/);
    assert.match(words("pmf-h-16", 3.8e9, device), /^3\.8 GB: does not fit into a tab/);
  }
  assert.equal(words("pmf-l-16", 1.65e9, "webgpu"), "");
  assert.match(words("pmf-l-16", 1.65e9, "cpu"), /^3\.3 GB of memory: does not fit into a tab that computes on the processor/);
});

test("a RAE's network and decoder do not fit into a tab as they are published, and its guide is not loaded", () => {
  const models = new Map(published(catalogue, ["DiT-DH", "JiT"], "https://h.example").map((model) => [model.name, model]));
  const rae = models.get("rae-ditdh-xl-256");
  assert.deepEqual(rae.files.map(({ part, name }) => [part, name]), [["model", "stage2_model.pt"], ["vae", "model.pt"], ["stats", "stat.pt"]]);
  assert.equal(rae.obstacle, "");
  // Published with another network's guidance, which this one's own is not.
  assert.equal(rae.facts, "DiT-DH · 256 × 256 · 1000 classes · FID 1.51 · MIT");
  assert.match(rae.warning, /second network, which a page does not load: guidance is off at first\.$/);
  assert.deepEqual([rae.settings.steps, rae.settings.guidance.scale], [49, 1]);
  // Of weights in float32, as a page hears of them when it asks.
  const words = (network, device) => tooLarge(rae.files.map((file) => ({ ...file, bytes: { model: network, vae: 1.66e9, stats: 1.6e6 }[file.part] })), ABILITIES, device);
  assert.match(words(3.35e9, "webgpu"), /^3\.35 GB: does not fit into a tab, which reads PyTorch's files at once/);
  // Beside the decoder not even the guide fits on the processor, nor the decoder alone.
  assert.equal(words(0.79e9, "webgpu"), "");
  assert.match(words(0.79e9, "cpu"), /^4\.9 GB of memory: does not fit into a tab that computes on the processor/);
  assert.match(words(0, "cpu"), /^3\.32 GB of memory/);

  const jit = models.get("jit-b-16");
  assert.equal(jit.obstacle, "The names of its files are not known; its page has them.");
  assert.deepEqual([jit.settings.sampler, jit.settings.guidance.high, jit.page], ["heun", 0.9, "https://github.com/LTH14/JiT"]);
});

test("times of pictures follow evaluations, and what was measured", () => {
  const info = {
    defaults: { sampler: "euler", steps: 50, cfg: 2, cfgInterval: [0, 1], cfgChannels: null, shift: 0 },
    evaluations: { euler: 1, heun: 2, dopri5: null },
    oneStep: false,
  };
  const count = (request, over = {}) => evaluations({ ...info, ...over }, request);
  assert.deepEqual([count({}), count({ cfg: 1 }), count({ sampler: "heun", steps: 8 }), count({ sampler: "dopri5" })], [100, 50, 32, null]);
  assert.equal(count({ cfgInterval: [0.25, 0.75] }), 75);
  assert.equal(count({ cfgInterval: [NaN, 1] }), null);
  assert.equal(count({ steps: 1 }, { oneStep: true }), 1, "guidance is an input");

  const onTwoCores = (request) => evaluations(info, request, 2);
  assert.deepEqual([onTwoCores({}), onTwoCores({ cfg: 1 }), onTwoCores({ cfgInterval: [0.25, 0.75] })], [50, 50, 50]);

  assert.equal(new Pace(null).seconds(10), null);
  const pace = new Pace(0.5);
  assert.deepEqual([pace.seconds(10), pace.seconds(null)], [6, null]);
  // Four steps of two evaluations, the first one slower, and a second of decoding.
  pace.learn(8, [0, 900, 1300, 1700], 3100);
  assert.ok(Math.abs(pace.seconds(8) - 2.6) < 1e-9 && Math.abs(pace.seconds(1) - 1.2) < 1e-9, String(pace.seconds(8)));
  // Of one step only the sum is known.
  const once = new Pace(null);
  once.learn(1, [100], 700);
  assert.ok(Math.abs(once.seconds(1) - 0.6) < 1e-9);
});

test("a second core needs another core and room for the model twice", () => {
  const [small, large] = [50e6, 467e6];
  assert.deepEqual([1, 2, 16].map((hardwareConcurrency) => fits(small, { hardwareConcurrency })), [false, true, true]);
  const memory = (deviceMemory) => ({ hardwareConcurrency: 4, deviceMemory });
  assert.deepEqual([0.25, 2, 4, 8, undefined].map((gib) => fits(large, memory(gib))), [false, false, true, true, true]);
  assert.equal(fits(2e9, memory(8)), false);
});

test("sizes and rates are for people", () => {
  assert.deepEqual([547, 999_499, 999_500, 334_643_276, 2_150_000_000, 10.8e9].map(size), ["547 bytes", "999 kB", "1 MB", "335 MB", "2.15 GB", "10.8 GB"]);
  const rate = new Rate();
  rate.add(0, 0);
  rate.add(500, 500);
  assert.equal(rate.perSecond, null);
  for (let time = 1000; time <= 20_000; time += 500) rate.add(time < 10_000 ? time : 2 * time, time);
  assert.equal(rate.perSecond, 2000, "of the last seconds");
  rate.reset();
  assert.equal(rate.perSecond, null);
});

test("the server goes on after addresses that lead nowhere", async () => {
  const { server, origin } = await serve(site);
  const status = async (path, headers = {}) => (await fetch(`${origin}${path}`, { headers })).status;
  assert.equal(await status("/%zz"), 400);
  assert.equal(await status("/engine"), 404, "a folder");
  assert.equal(await status("/sw.js", { Range: "bytes=5-2" }), 416);
  assert.equal(await status("/sw.js", { Range: "bytes=2-5" }), 206);
  assert.equal(await status("/"), 200);
  server.close();
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
