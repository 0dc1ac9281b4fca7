// The model that comes with the page.

import type { LoadOptions, RemoteFile } from "../engine/index.js";

interface Manifest {
  name: string;
  files: Partial<Record<"model" | "vae" | "stats", { file: string; bytes: number; sha256: string }>>;
}

/** Load options of a manifest; its files lie beside it. */
export async function shipped(address: string): Promise<{ name: string } & Pick<LoadOptions, "model" | "vae" | "stats">> {
  const base = new URL(address, document.baseURI);
  const response = await fetch(base).catch(() => null);
  if (!response?.ok) throw new Error(`The list of the model's files (${base.pathname}) cannot be fetched. Is there a connection?`);
  const { name, files } = (await response.json()) as Manifest;
  const remote = (role: keyof Manifest["files"]): RemoteFile | undefined => {
    const entry = files[role];
    return entry && { url: new URL(entry.file, base).href, bytes: entry.bytes, sha256: entry.sha256 };
  };
  return { name, model: remote("model")!, vae: remote("vae"), stats: remote("stats") };
}

export function bytes(n: number): string {
  return n >= 1 << 30 ? `${(n / 2 ** 30).toFixed(2)} GiB` : `${(n / 2 ** 20).toFixed(1)} MiB`;
}
