// Builds the page (dist/site) and the package (dist/package) from a clean checkout: installs what it
// needs under target/ and node_modules, at pinned versions, from the registries alone.
//
//     node web/build.mjs

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, constants } from "node:zlib";

const web = dirname(fileURLToPath(import.meta.url));
const root = dirname(web);
const target = process.env.CARGO_TARGET_DIR ?? join(root, "target");
const dist = join(web, "dist");
const TRIPLE = "wasm32-unknown-unknown";

const run = (program, args, cwd = root, env = {}) => {
  console.log(`> ${program} ${args.join(" ")}`);
  execFileSync(program, args, { cwd, stdio: "inherit", env: { ...process.env, ...env } });
};

// ---- Tools ----
if (hasRustup()) run("rustup", ["target", "add", TRIPLE]);
const bindgen = wasmBindgen();
run("npm", ["ci", "--no-audit", "--no-fund"], web);

// ---- Engine ----
run("cargo", ["rustc", "--profile", "web", "--locked", "--target", TRIPLE, "-p", "tintype-web", "--lib", "--crate-type", "cdylib"]);
const wasmFolder = join(web, "engine", "wasm");
rmSync(wasmFolder, { recursive: true, force: true });
// No wasm-opt: its -O2 takes minutes, makes nothing faster that can be measured, and a file that is 10 %
// smaller as it is but 8 % larger with brotli.
const small = ["--remove-name-section", "--remove-producers-section"];
run(bindgen, ["--target", "web", ...small, "--out-dir", wasmFolder, join(target, TRIPLE, "web", "tintype_web.wasm")]);
const wasm = join(wasmFolder, "tintype_web_bg.wasm");

// ---- Page and package ----
rmSync(dist, { recursive: true, force: true });
run(process.execPath, [join(web, "node_modules", "typescript", "bin", "tsc"), "-p", web]);
const js = join(dist, "js");
cpSync(wasmFolder, join(js, "engine", "wasm"), { recursive: true });

const site = join(dist, "site");
const isDeclaration = (path) => path.endsWith(".d.ts");
cpSync(js, site, { recursive: true, filter: (path) => !isDeclaration(path) });
for (const file of ["index.html", "style.css", "icon.svg", "manifest.webmanifest"]) {
  cpSync(join(web, "page", file), join(site, file));
}
cpSync(join(root, "core", "src", "catalogue", "catalogue.json"), join(site, "catalogue.json"));
copyModel("emoji", "the emoji model", { model: "hidit.safetensors", vae: "vae-decoder.safetensors" });
writeServiceWorker();

const packaged = join(dist, "package");
cpSync(join(js, "engine"), packaged, { recursive: true });
cpSync(join(web, "README.md"), join(packaged, "README.md"));
writeFileSync(join(packaged, "package.json"), `${JSON.stringify(manifest(), null, 2)}\n`);
rmSync(js, { recursive: true });

// ---- Size ----
const raw = readFileSync(wasm);
const sizes = { raw: raw.length, brotli: brotliCompressSync(raw, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } }).length };
writeFileSync(join(dist, "size.json"), `${JSON.stringify(sizes)}\n`);
console.log(`engine: ${mb(sizes.raw)} MB, ${mb(sizes.brotli)} MB with brotli`);
console.log(`page: ${relative(process.cwd(), site)}   package: ${relative(process.cwd(), packaged)}`);

/** False with another installation of Rust, which must have the target itself. */
function hasRustup() {
  try {
    execFileSync("rustup", ["--version"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

/** The command-line half of wasm-bindgen, of the version that Cargo.lock has. */
function wasmBindgen() {
  const lock = readFileSync(join(root, "Cargo.lock"), "utf8");
  const version = lock.match(/name = "wasm-bindgen"\nversion = "([^"]+)"/)[1];
  const tools = join(target, "tools");
  const program = join(tools, "bin", "wasm-bindgen");
  const installed = existsSync(program) && execFileSync(program, ["--version"], { encoding: "utf8" });
  if (!installed || installed.trim().split(" ").at(-1) !== version) {
    const args = ["install", "wasm-bindgen-cli", "--version", version, "--root", tools];
    // It runs for seconds; optimised, it is compiled for minutes.
    const quick = { CARGO_PROFILE_RELEASE_OPT_LEVEL: "0", CARGO_PROFILE_RELEASE_LTO: "off" };
    run("cargo", [...args, "--target-dir", join(target, "tools-build")], root, quick);
  }
  return program;
}

/** Weights beside the page, with a list that holds their sizes and checksums. */
function copyModel(folder, name, roles) {
  const to = join(site, "models", folder);
  mkdirSync(to, { recursive: true });
  const files = {};
  for (const [role, file] of Object.entries(roles)) {
    const bytes = readFileSync(join(root, "models", folder, file));
    files[role] = { file, bytes: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") };
    writeFileSync(join(to, file), bytes);
  }
  writeFileSync(join(to, "manifest.json"), `${JSON.stringify({ name, files }, null, 2)}\n`);
}

/** The page's own files under one version. */
function writeServiceWorker() {
  const files = walk(site).filter((path) => !path.endsWith(".safetensors"));
  const version = createHash("sha256");
  for (const path of files) version.update(path).update(readFileSync(join(site, path)));
  const source = readFileSync(join(web, "page", "sw.js"), "utf8");
  const text = source
    .replace("%VERSION%", version.digest("hex").slice(0, 16))
    .replace('["%FILES%"]', JSON.stringify(["./", ...files]));
  writeFileSync(join(site, "sw.js"), text);
}

function walk(folder, base = folder) {
  return readdirSync(folder)
    .sort()
    .flatMap((name) => {
      const path = join(folder, name);
      return statSync(path).isDirectory() ? walk(path, base) : [relative(base, path).replaceAll("\\", "/")];
    });
}

function manifest() {
  const own = JSON.parse(readFileSync(join(web, "package.json"), "utf8"));
  return {
    name: "tintype",
    version: own.version,
    description: "Class-conditional image diffusion in the browser: WebGPU in a worker",
    license: own.license,
    type: "module",
    main: "./index.js",
    types: "./index.d.ts",
    exports: {
      ".": { types: "./index.d.ts", default: "./index.js" },
      "./worker.js": "./worker.js",
      "./second.js": "./second.js",
      "./downloader.js": "./downloader.js",
    },
    sideEffects: ["./worker.js", "./second.js", "./downloader.js"],
    files: ["*.js", "*.d.ts", "wasm"],
  };
}

function mb(bytes) {
  return (bytes / 1e6).toFixed(2);
}
