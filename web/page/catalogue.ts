// Published models as a page can use them: from the catalogue of the library, which the build puts beside the page.

import type { Abilities, Origin } from "../engine/index.js";
import { size } from "./size.js";

type Settings = Partial<Origin["settings"]>;

/** The catalogue's file; core/src/catalogue says more. */
export interface Catalogue {
  models: Entry[];
}

interface Entry {
  name: string;
  title: string;
  kind: string;
  architecture?: string;
  image_size?: number;
  classes?: number;
  licence: Licence;
  page?: string;
  files?: FileEntry[];
  needs?: string[];
  sampling?: Settings;
  results?: { fid: number; guided: boolean; note?: string }[];
}

interface FileEntry {
  role: string;
  address: string;
  bytes?: number;
  about_bytes?: number;
  sha256?: string;
}

interface Licence {
  id: string;
  commercial?: boolean | null;
}

/** Guidance that is off. */
const UNGUIDED: Origin["settings"]["guidance"] = { scale: 1, low: 0, high: 1, channels: null };

/** What a model is loaded from; other roles are of no use to a page. */
const PARTS = { network: "model", config: "config", autoencoder: "vae", statistics: "stats" } as const;
export type Part = (typeof PARTS)[keyof typeof PARTS];

export interface PublishedFile {
  part: Part;
  /** Where it lies; "" where a page cannot reach it. */
  url: string;
  name: string;
  /** Its size, where it is known exactly. */
  bytes?: number;
  /** Its size within a few per cent. */
  about?: number;
  sha256?: string;
}

export interface Published {
  name: string;
  title: string;
  /** What tells it from others, in a line. */
  facts: string;
  /** The page that describes it; "" for none. */
  page: string;
  /** What is to be known of its licences before it is fetched; "" for nothing. */
  warning: string;
  files: PublishedFile[];
  /** Why a page cannot have it, whatever its size; "" where it can. */
  obstacle: string;
  /** What its authors sample with; null where they do not say. */
  settings: Settings | null;
}

/** Where hub files are served: Hugging Face, or what the page names in its head. */
export function endpoint(): string {
  return document.querySelector<HTMLMetaElement>("meta[name=hub]")!.content.replace(/\/$/, "");
}

/** The models of networks that the engine knows, in the catalogue's order. */
export function published({ models }: Catalogue, networks: readonly string[], hub: string): Published[] {
  const entries = new Map(models.map((entry) => [entry.name, entry]));
  const known = models.filter((entry) => entry.kind === "network" && networks.includes(entry.architecture!));
  return known.map((entry) => describe(entry, entries, hub));
}

function describe(entry: Entry, entries: ReadonlyMap<string, Entry>, hub: string): Published {
  const all = [entry, ...(entry.needs ?? []).map((name) => entries.get(name)!)];
  // An entry's own files come before those of the ones that it needs.
  const used: FileEntry[] = [];
  for (const file of all.flatMap(({ files = [] }) => files)) {
    if (file.role in PARTS && !used.some(({ role }) => role === file.role)) used.push(file);
  }
  const network = entry.files?.find(({ role }) => role === "network");
  // Another network's guidance is not what this one's own would be at the same scale.
  const isGuided = entry.files?.some(({ role }) => role === "guide") ?? false;
  const warnings = [...all.map(warning), isGuided ? `The authors of ${entry.title} guide it by a second network, which a page does not load: guidance is off at first.` : ""];
  const { sampling } = entry;
  return {
    name: entry.name,
    title: entry.title,
    facts: facts(entry, isGuided),
    page: entry.page ?? (network && hubPage(network.address, hub)) ?? "",
    warning: warnings.filter(Boolean).join(" "),
    files: used.map((file) => fileOf(file, hub)),
    obstacle: network ? obstacle(used, hub) : "The names of its files are not known; its page has them.",
    settings: (sampling && isGuided ? { ...sampling, guidance: UNGUIDED } : sampling) ?? null,
  };
}

function fileOf({ role, address, bytes, about_bytes: about, sha256 }: FileEntry, hub: string): PublishedFile {
  const url = hubAddress(address, hub) ?? "";
  const name = decodeURIComponent(new URL(url || plain(address)).pathname.split("/").at(-1)!);
  return { part: PARTS[role as keyof typeof PARTS], url, name, bytes, about, sha256 };
}

function obstacle(files: readonly FileEntry[], hub: string): string {
  const outside = files.find(({ address }) => hubAddress(address, hub) === null);
  if (outside) return `It lies on ${new URL(plain(outside.address)).host}, which lets no page of another site read it; use the desktop app.`;
  const addresses = new Set(files.map(({ address }) => address));
  return addresses.size < files.length ? "One file holds network and autoencoder, and a page does not take it apart; use the desktop app." : "";
}

function facts({ architecture, image_size: image, classes, results = [], licence }: Entry, isGuided: boolean): string {
  // With guidance where it was measured with guidance, but for that of another network; that of the entry's own settings
  // before others.
  const of = (guided: boolean) => results.filter((r) => r.guided === guided).sort((a, b) => Number(!!a.note) - Number(!!b.note))[0];
  const best = (isGuided ? undefined : of(true)) ?? of(false);
  return [
    architecture,
    image && `${image} × ${image}`,
    classes && `${classes} classes`,
    best && `FID ${best.fid}`,
    licence.id === "unknown" ? "licence unknown" : licence.id,
  ]
    .filter(Boolean)
    .join(" · ");
}

function warning({ title, licence: { id, commercial } }: Entry): string {
  if (id === "unknown") return `The licence of ${title} is not known: ask its authors before you use it.`;
  if (commercial === false) return `${title} is under ${id}, not for commercial use.`;
  return commercial ? "" : `Whether ${id}, the licence of ${title}, allows commercial use is not known.`;
}

/** The address of `hub:OWNER/REPO/PATH[@REVISION]`, as core/download makes it; null where the file lies elsewhere. */
export function hubAddress(address: string, hub: string): string | null {
  const match = /^hub:((?:datasets\/)?[^/]+\/[^/]+)\/(.+?)(?:@([^@]+))?$/.exec(address);
  if (!match) return null;
  const [, repository, path, revision = "main"] = match;
  return `${hub}/${repository}/resolve/${encoded(revision)}/${path!.split("/").map(encoded).join("/")}`;
}

function hubPage(address: string, hub: string): string | undefined {
  const repository = /^hub:((?:datasets\/)?[^/]+\/[^/]+)\//.exec(address)?.[1];
  return repository && `${hub}/${repository}`;
}

function plain(address: string): string {
  return address.replace(/^link:/, "");
}

/** With `%XX` for all that may not stand in an address. */
function encoded(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
}

/** Bytes of a file, exactly or about; null where that is not known. */
export function sizeOf({ bytes, about }: PublishedFile): number | null {
  return bytes ?? about ?? null;
}

/** Whether the engine reads it at once. */
function isAtOnce({ name }: PublishedFile): boolean {
  return /\.(pt|pth|ckpt|bin)$/i.test(name);
}

/** Bytes of the engine's 4 GiB that a model may take: the rest is for what a picture takes. The engine asks again once it
 * has the files, by their dtypes (src/room.rs). */
const ROOM = 3 * 2 ** 30;

/** Why a model does not fit into a tab; "" where it does, as far as sizes are known. */
export function tooLarge(files: readonly PublishedFile[], { largest, largestAtOnce }: Abilities, device: "webgpu" | "cpu"): string {
  for (const file of files) {
    const bytes = sizeOf(file) ?? 0;
    if (isAtOnce(file) && bytes > largestAtOnce) {
      return `${size(bytes)}: does not fit into a tab, which reads PyTorch's files at once, up to ${size(largestAtOnce)}. Use the desktop app, or convert it to safetensors (“tintype convert”) and drop that here.`;
    }
    if (bytes > largest) return `${size(bytes)}: does not fit into a tab; use the desktop app.`;
  }
  // What is read at once lies in the engine's memory, and so do weights that the processor computes with: autoencoders are
  // published in float32, in which they compute.
  const held = files.reduce((sum, file) => sum + (sizeOf(file) ?? 0) * (Number(isAtOnce(file)) + Number(device === "cpu")), 0);
  const tab = device === "cpu" ? "a tab that computes on the processor" : "a tab";
  return held > ROOM ? `${size(held)} of memory: does not fit into ${tab}; use the desktop app.` : "";
}
