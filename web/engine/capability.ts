// Whether this browser can compute, and on what; asked before anything is downloaded.

import type { Capability } from "./types.js";

/** What decides; by hand in tests. */
export interface Surroundings {
  gpu: Pick<GPU, "requestAdapter"> | undefined;
  secure: boolean;
  userAgent: string;
  /** Whether the browser has WebAssembly's vector instructions. */
  simd: boolean;
}

/** What the kernels take for granted; WebGPU's defaults, which compatibility modes lack. */
const NEEDED = {
  maxStorageBuffersPerShaderStage: 8,
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupStorageSize: 16384,
  maxComputeWorkgroupSizeX: 256,
  maxComputeWorkgroupsPerDimension: 65535,
  maxStorageBufferBindingSize: 128 << 20,
} as const;

/** A module of one function that returns a vector. */
const SIMD = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
]);

export function surroundings(): Surroundings {
  return {
    gpu: (navigator as Navigator & { gpu?: GPU }).gpu,
    secure: isSecureContext,
    userAgent: navigator.userAgent,
    simd: WebAssembly.validate(SIMD),
  };
}

/** A browser that cannot run the engine at all, or not on the device that was asked for. */
export class Unsupported extends Error {
  override name = "Unsupported";
}

/** Chooses the device. Throws if the requested one is unavailable. */
export async function choose(
  wish: "auto" | "webgpu" | "cpu",
  { gpu, secure, userAgent, simd }: Surroundings = surroundings(),
): Promise<Capability> {
  if (!simd) {
    throw new Unsupported("This browser is too old: it lacks WebAssembly's vector instructions. Browsers since 2023 have them.");
  }
  const cpu = (notice: string): Capability => {
    if (wish === "webgpu") throw new Unsupported(notice);
    return { device: "cpu", adapter: "", software: false, f16: false, notice };
  };
  if (wish === "cpu") return cpu("");
  if (!secure) {
    return cpu("The page came over plain http, and browsers give a GPU only to https and localhost. Open it with https.");
  }
  if (!gpu) return cpu(withoutWebGpu(userAgent));
  let adapter: GPUAdapter | null;
  try {
    adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  } catch (error) {
    return cpu(`The browser's WebGPU failed (${(error as Error).message}). An update of the browser or of the graphics driver may help.`);
  }
  if (!adapter) {
    return cpu(
      "The browser has WebGPU but no graphics adapter for it: hardware acceleration is off in its settings, or the driver is on its block list.",
    );
  }
  const lacking = Object.entries(NEEDED).filter(([name, least]) => adapter.limits[name as keyof typeof NEEDED] < least);
  if (lacking.length > 0) {
    const list = lacking.map(([name, least]) => `${name} ${adapter.limits[name as keyof typeof NEEDED]} of ${least}`).join(", ");
    return cpu(`The graphics adapter is too small for the kernels (${list}).`);
  }
  const { vendor, architecture, device, description } = infoOf(adapter);
  const name = description || [vendor, architecture, device].filter(Boolean).join(" ") || "a GPU that does not say its name";
  const software = isSoftware(adapter);
  if (software && wish === "auto") {
    return cpu(`The browser's only graphics adapter (${name}) is the processor in disguise, which is slower than the processor itself.`);
  }
  return {
    device: "webgpu",
    adapter: name,
    software,
    f16: adapter.features.has("shader-f16"),
    notice: software ? `${name} is the processor in disguise; pictures take long.` : "",
  };
}

/** What an adapter says of itself; older browsers say nothing. */
function infoOf(adapter: GPUAdapter): Partial<GPUAdapterInfo> {
  return adapter.info ?? {};
}

function isSoftware(adapter: GPUAdapter): boolean {
  const { isFallbackAdapter = false, architecture = "", description = "", device = "" } = infoOf(adapter);
  return isFallbackAdapter || /swiftshader|llvmpipe|lavapipe|basic render/i.test(`${architecture} ${description} ${device}`);
}

/** Where a browser keeps its WebGPU. */
function withoutWebGpu(userAgent: string): string {
  if (/Firefox\//.test(userAgent)) {
    return /Windows|Macintosh/.test(userAgent)
      ? "This Firefox has WebGPU switched off or not yet: it is on in Firefox 141 for Windows and 145 for Macs with Apple's chips."
      : "Firefox has WebGPU here only in its Nightly; Chromium-based browsers have it.";
  }
  if (/Chrom(e|ium)\//.test(userAgent)) {
    return /Linux/.test(userAgent) && !/Android/.test(userAgent)
      ? "This browser has WebGPU switched off: on Linux, switch on “Unsafe WebGPU Support” under chrome://flags, then chrome://gpu tells whether it works."
      : "This browser has no WebGPU: Chrome and Edge have it since version 113 (121 on Android); chrome://gpu tells why it is off.";
  }
  if (/Safari\//.test(userAgent)) {
    return "Safari has WebGPU since version 26 (macOS, iOS and iPadOS 26).";
  }
  return "This browser has no WebGPU.";
}
