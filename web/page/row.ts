// A published model in the list: what is there of it, what can be done with it, and how far that is.

import type { Downloads, FetchProgress, KeptFile } from "../engine/index.js";
import { sizeOf, tooLarge, type Part, type Published, type PublishedFile } from "./catalogue.js";
import { duration } from "./duration.js";
import { Rate } from "./rate.js";
import { size } from "./size.js";

/** The files of a model, as they are dropped. */
export type Files = { model: File } & Partial<Record<Exclude<Part, "config">, File>> & { config?: string };

/** What a row asks of the page and tells it. */
export interface Around {
  device: () => "webgpu" | "cpu";
  /** Whether something else is being fetched. */
  isBusy: () => boolean;
  /** Whether another model that is here needs a file. */
  isShared: (file: PublishedFile, of: Row) => boolean;
  /** What is there, or what goes on, changed. */
  changed: () => Promise<void>;
  /** A part of what is being fetched is there, of 1; null where nothing is being fetched any more. */
  advanced: (part: number | null) => void;
  open: (model: Published, find: () => Promise<Files>) => void;
  /** All of it has arrived. */
  arrived: (model: Published, find: () => Promise<Files>) => void;
}

export class Row {
  readonly item = element("li");
  private words = element("p");
  private bar = element("progress");
  private digests = element("p", "hint");
  private actions = element("div", "actions");
  /** What is kept of each file. */
  private kept: (KeptFile | null)[] = [];
  private fetching: AbortController | null = null;
  private trouble = "";
  private rate = new Rate();

  constructor(
    readonly model: Published,
    private downloads: Downloads,
    private around: Around,
  ) {
    const { name, title, facts, page, warning } = model;
    this.item.dataset.name = name;
    // Gets the focus where its buttons go.
    this.item.tabIndex = -1;
    const line = element("p", "hint", `${facts}${page && " · "}`);
    if (page) line.append(link(page));
    this.bar.ariaLabel = `Download of ${title}`;
    this.item.append(element("h4", "", title), line, element("p", "warning", warning), this.words, this.bar, this.digests, this.actions);
  }

  get isHere(): boolean {
    return this.kept.length > 0 && this.kept.every((file) => file?.whole);
  }

  get isFetching(): boolean {
    return this.fetching !== null;
  }

  /** Looks at what is kept. Makes no request. */
  async look() {
    if (this.fetching) return;
    const { files, obstacle } = this.model;
    if (!obstacle) this.kept = await Promise.all(files.map((file) => this.downloads.kept(remote(file))));
  }

  /** The files, checked. Makes no request. */
  async find(): Promise<Files> {
    const found: Partial<Record<Part, File>> = {};
    for (const file of this.model.files) {
      const opened = await this.downloads.open(remote(file));
      if (!opened) throw new Error(`${file.name} was damaged, or is not in this browser any more. Download it again.`);
      found[file.part] = opened;
    }
    const { model, config, ...rest } = found;
    return { model: model!, ...rest, ...(config && { config: await config.text() }) };
  }

  show() {
    const { model, kept } = this;
    const here = kept.reduce((sum, file) => sum + (file?.bytes ?? 0), 0);
    const missing = this.missing();
    this.bar.hidden = !this.fetching;
    // Nobody wants every number of a download read out.
    this.words.role = this.fetching ? null : "status";
    this.digests.replaceChildren(...(this.isHere ? this.unpinned() : []));
    if (this.fetching) {
      this.actions.replaceChildren(button("Pause", () => this.fetching?.abort(new DOMException("Paused.", "AbortError"))));
      return;
    }
    const isOwn = (file: PublishedFile, i: number) => kept[i] && !this.around.isShared(file, this);
    const remove = model.files.some(isOwn) ? [button("Remove", () => this.remove())] : [];
    const refused = this.isHere ? "" : model.obstacle || tooLarge(model.files, this.downloads.abilities, this.around.device());
    const host = model.files[0]?.url ? new URL(model.files[0].url).host : "";
    if (this.isHere) {
      this.say(this.trouble || `${size(here)} in this browser.`);
      this.actions.replaceChildren(button("Open", () => this.around.open(model, () => this.find()), "main"), ...remove);
    } else if (refused) {
      this.say(refused);
      this.actions.replaceChildren(...remove);
    } else if (missing === null) {
      this.say(this.trouble || "Its size is not known.");
      this.actions.replaceChildren(button(`Ask ${host} for its size`, () => this.ask()), ...remove);
    } else {
      this.say(this.trouble || (here > 0 ? `${size(here)} are in this browser.` : ""));
      const amount = `${missing.exact ? "" : "about "}${size(missing.bytes)} from ${host}`;
      const isBegun = kept.some((file) => file && !file.whole);
      const download = button(isBegun ? `Resume: ${amount}` : `Download ${amount}`, () => this.download());
      download.disabled = this.around.isBusy();
      if (download.disabled) download.title = "Another model is being fetched.";
      this.actions.replaceChildren(download, ...remove);
    }
  }

  private say(words: string) {
    this.words.textContent = words;
  }

  /** Bytes that are still to come; null where not all sizes are known. */
  private missing(): { bytes: number; exact: boolean } | null {
    let [bytes, exact] = [0, true];
    for (const [i, file] of this.model.files.entries()) {
      if (this.kept[i]?.whole) continue;
      const all = sizeOf(file);
      if (all === null) return null;
      bytes += Math.max(0, all - (this.kept[i]?.bytes ?? 0));
      exact &&= file.bytes !== undefined;
    }
    return { bytes, exact };
  }

  /** The digests that files came with, where the catalogue names none. */
  private unpinned(): Node[] {
    return this.model.files.flatMap((file, i) =>
      file.sha256 ? [] : [document.createTextNode(`${file.name} came with the SHA-256 `), element("code", "", this.kept[i]!.sha256!), element("br")],
    );
  }

  private async ask() {
    this.trouble = "";
    try {
      for (const file of this.model.files) {
        if (sizeOf(file) === null) file.bytes = await this.downloads.size(remote(file));
      }
    } catch (error) {
      this.trouble = (error as Error).message;
    }
    this.show();
    this.focus();
  }

  private async download() {
    const abort = new AbortController();
    [this.fetching, this.trouble] = [abort, ""];
    this.bar.removeAttribute("value");
    this.rate.reset();
    this.say("Starting");
    this.show();
    this.focus();
    await this.around.changed();
    try {
      await makeRoom(this.missing()!.bytes);
      for (const [i, file] of this.model.files.entries()) {
        if (this.kept[i]?.whole) continue;
        await this.downloads.fetch({ ...remote(file), most: this.most(file) }, { signal: abort.signal, onProgress: (p) => this.advance(i, p) });
        this.kept[i] = await this.downloads.kept(remote(file));
      }
    } catch (error) {
      if (!abort.signal.aborted) this.trouble = (error as Error).message;
    }
    this.fetching = null;
    this.around.advanced(null);
    await this.around.changed();
    this.focus();
    if (this.isHere) this.around.arrived(this.model, () => this.find());
  }

  /** The most bytes that a file may turn out to have. */
  private most({ about }: PublishedFile): number {
    return about === undefined ? this.downloads.abilities.largest : Math.ceil(about * 1.1);
  }

  /** So much of the file in hand is there. */
  private advance(of: number, { phase, bytes, total }: FetchProgress) {
    let [have, all] = [0, 0];
    for (const [i, file] of this.model.files.entries()) {
      const known = sizeOf(file) ?? 0;
      have += i === of ? bytes : (this.kept[i]?.bytes ?? 0);
      all += i === of ? (total ?? known) : (this.kept[i]?.whole ? this.kept[i].bytes : known);
    }
    [this.bar.max, this.bar.value] = [Math.max(all, 1), have];
    this.around.advanced(have / Math.max(all, 1));
    const amount = `${size(have)} of ${size(all)}`;
    if (phase === "download") this.rate.add(have);
    else this.rate.reset();
    const { perSecond } = this.rate;
    const left = perSecond ? ` · ${size(Math.round(perSecond))}/s · ${duration((all - have) / perSecond)} left` : "";
    this.say({ download: `${amount}${left}`, verify: `Checking what is here: ${amount}`, wait: `The connection broke, another attempt follows. ${amount} are here.` }[phase]);
  }

  private async remove() {
    this.trouble = "";
    try {
      for (const file of this.model.files) {
        if (!this.around.isShared(file, this)) await this.downloads.remove(remote(file));
      }
    } catch (error) {
      this.trouble = (error as Error).message;
    }
    await this.around.changed();
    this.focus();
  }

  private focus() {
    (this.actions.querySelector("button") ?? this.item).focus();
  }
}

function remote({ url, bytes, sha256 }: PublishedFile) {
  return { url, bytes, sha256 };
}

/** Refuses what the browser has no room for, and asks it to keep what arrives. */
async function makeRoom(bytes: number) {
  // Over plain http there is no storage; the download says so.
  const storage = navigator.storage as StorageManager | undefined;
  const { quota, usage = 0 } = (await storage?.estimate()) ?? {};
  if (quota !== undefined && bytes > quota - usage) {
    throw new Error(`It needs ${size(bytes)}, and this browser has room for ${size(Math.max(0, quota - usage))}. Remove other models, or make room on the disk.`);
  }
  // Some browsers ask the person; the download does not wait for the answer.
  void storage?.persist().catch(() => undefined);
}

function element<K extends keyof HTMLElementTagNameMap>(kind: K, name = "", text = ""): HTMLElementTagNameMap[K] {
  const element = document.createElement(kind);
  element.className = name;
  element.textContent = text;
  return element;
}

function button(text: string, act: () => unknown, name = ""): HTMLButtonElement {
  const button = element("button", name, text);
  button.type = "button";
  button.addEventListener("click", () => void act());
  return button;
}

function link(address: string): HTMLAnchorElement {
  const link = element("a", "", "its page");
  Object.assign(link, { href: address, target: "_blank", rel: "noopener noreferrer" });
  return link;
}
