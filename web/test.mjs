// Tests of the browser engine and its page: builds both, runs the engine's tests in a browser's worker,
// then the page as a person would. Native pictures come from target/release/tintype, which `cargo test
// --release` leaves there. Needs Chromium and its driver.
//
//     node web/test.mjs             everything
//     node web/test.mjs --no-build  with what was built last

import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const web = dirname(fileURLToPath(import.meta.url));
const root = dirname(web);
const target = process.env.CARGO_TARGET_DIR ?? join(root, "target");
const run = (program, args, cwd, env = {}) => {
  console.log(`> ${program} ${args.join(" ")}`);
  execFileSync(program, args, { cwd, stdio: "inherit", env: { ...process.env, ...env } });
};

if (!process.argv.includes("--no-build")) run(process.execPath, [join(web, "build.mjs")], root);

const driver = [process.env.CHROMEDRIVER, "/usr/bin/chromedriver"].find((path) => path && existsSync(path));
if (!driver) throw new Error("no chromedriver was found; install chromium-driver, or name it in CHROMEDRIVER");
const triple = "wasm32-unknown-unknown";
run("cargo", ["test", "--profile", "web", "--locked", "--target", triple, "-p", "tintype-web", "--test", "engine"], root, {
  CHROMEDRIVER: driver,
  CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER: join(target, "tools", "bin", "wasm-bindgen-test-runner"),
  WASM_BINDGEN_TEST_TIMEOUT: "900",
});

const minutes = 20 * 60 * 1000;
const options = ["--test", "--test-reporter=spec", "--test-concurrency=1", `--test-timeout=${minutes}`];
run(process.execPath, [...options, ...["parts", "store", "page", "published", "webgpu"].map((name) => join("tests", `${name}.test.mjs`))], web);
