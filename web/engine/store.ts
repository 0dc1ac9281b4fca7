// Weights from a server, kept for the next visit.
//
// A file arrives in pieces and is written to the browser's private file system (OPFS) as it does,
// under a name that holds its version; the checksum runs along. What was interrupted goes on with a
// range request. Where the file system refuses, the rest stays in memory, if that is wanted. The
// result is a blob either way, which lies on disk where it can.

import type { KeptFile } from "./types.js";

/** A running SHA-256, from the engine. */
export interface Checksum {
  update(piece: Uint8Array): void;
  hex(): string;
  free(): void;
}

export interface Wanted {
  url: string;
  bytes?: number;
  /** Bytes that are too many, where `bytes` is not known. */
  most?: number;
  sha256?: string;
}

export interface Surroundings {
  checksum: () => Checksum;
  /** Files of the same model, which are no other versions of this one. */
  beside?: Wanted[];
  /** Whether to keep the file. */
  keep: boolean;
  /** Whether a file that cannot be kept stays in memory; else that is an error. */
  memory: boolean;
  signal: AbortSignal;
  progress: (phase: "download" | "verify", bytes: number, total: number | null) => void;
}

export interface Obtained {
  blob: Blob;
  /** Why it is not kept for the next visit; empty where it is. */
  notKept: string;
}

/** A file that cannot be had, with a sentence for people. */
export class FileError extends Error {
  override name = "FileError";

  constructor(
    message: string,
    /** Whether the same may work a little later. */
    readonly passing = false,
  ) {
    super(message);
  }
}

const PIECE = 4 << 20;
const FOLDER = "tintype-weights";

/** Another site learns which file is wanted and, as CORS goes, the page's origin: no cookies and no referrer. */
const ELSEWHERE: RequestInit = { mode: "cors", credentials: "omit", referrerPolicy: "no-referrer", cache: "no-store" };

/** Files are kept here; the browser's cache would have them once more, and what is damaged in it would stay so. */
const HERE: RequestInit = { cache: "no-store" };

export async function obtain(wanted: Wanted, around: Surroundings): Promise<Obtained> {
  if (!around.keep) return download(wanted, around, null, "keeping files is switched off");
  let kept: Kept;
  try {
    kept = await Kept.of(wanted, around.beside);
    const whole = await kept.whole(around);
    if (whole) return { blob: whole, notKept: "" };
  } catch (error) {
    around.signal.throwIfAborted();
    return download(wanted, around, null, `this browser keeps no files here (${(error as Error).message})`);
  }
  return download(wanted, around, kept, "");
}

/** The file if it is kept, checked; null where it is not. Makes no request. */
export async function find(wanted: Wanted, around: Surroundings): Promise<Blob | null> {
  return (await Kept.at(wanted))?.whole(around) ?? null;
}

/** What is kept of a file, unchecked; null for nothing. Makes no request. */
export async function look(wanted: Wanted): Promise<KeptFile | null> {
  return (await Kept.at(wanted))?.look() ?? null;
}

/** Removes what is kept of a file. */
export async function remove(wanted: Wanted): Promise<void> {
  await (await Kept.at(wanted))?.remove();
}

/** Asks a server how large a file is, for one byte of it. */
export async function sizeOf(url: string, signal?: AbortSignal): Promise<number> {
  const { response, total } = await ask({ url }, "bytes=0-0", signal);
  await response.body?.cancel();
  if (total === null) throw new FileError(`${hostOf(url)} does not say how large ${fileName(url)} is.`);
  return total;
}

/** Fetches what is missing of a file. `notKept` says why nothing is to be written, where that is so. */
async function download(wanted: Wanted, around: Surroundings, kept: Kept | null, notKept: string): Promise<Obtained> {
  const name = fileName(wanted.url);
  let sum = around.checksum();
  let part: Part | null = null;
  const anew = () => {
    sum.free();
    sum = around.checksum();
  };
  const cannotKeep = (why: string) => {
    if (!around.memory) throw new FileError(`${name} cannot be kept: ${why}.`);
    notKept = why;
  };
  try {
    if (notKept) cannotKeep(notKept);
    if (kept) {
      part = await kept.part(sum, around).catch((error: Error) => {
        around.signal.throwIfAborted();
        cannotKeep(`another page may be fetching the same file (${error.message})`);
        anew();
        return null;
      });
    }
    let have = part?.size ?? 0;
    let total = wanted.bytes ?? null;
    const memory: Uint8Array<ArrayBuffer>[] = [];
    if (have === 0 || have !== total) {
      const answer = await continued(wanted, have, part?.etag ?? null, around.signal);
      const wrong = answer.total === null ? "" : wrongSize(wanted, answer.total);
      if (wrong) {
        await answer.response.body!.cancel();
        await part?.discard();
        throw new FileError(wrong);
      }
      total = answer.total ?? total;
      if (answer.from === 0) {
        anew();
        await part?.restart(answer.etag);
        have = 0;
      }
      around.progress("download", have, total);
      for await (const piece of pieces(answer.response, name, around.signal)) {
        sum.update(piece);
        if (part && !notKept) {
          const refused = part.append(piece);
          if (refused) cannotKeep(refused);
        }
        if (!part || notKept) memory.push(piece);
        have += piece.length;
        if (have > (total ?? wanted.most ?? Infinity)) {
          await part?.discard();
          throw new FileError(`${name} sends more than the ${total ?? wanted.most} bytes that were said.`);
        }
        around.progress("download", have, total);
      }
    }
    if (total !== null && have < total) {
      throw new FileError(`${name} ended after ${have} of ${total} bytes. Try again: it goes on from there.`, true);
    }
    const found = sum.hex();
    const expected = wanted.sha256?.toLowerCase();
    if (expected && found !== expected) {
      await part?.discard();
      throw new FileError(
        `${name} is damaged, or of another version than this page: its checksum begins with ${found.slice(0, 8)} and should begin with ${expected.slice(0, 8)}. Reload the page; if that does not help, the file on the server is wrong.`,
      );
    }
    if (!part) return { blob: new Blob(memory), notKept };
    const written = await part.file();
    if (notKept) return { blob: new Blob([written, ...memory]), notKept };
    return await part.finish(found).then(
      (blob) => ({ blob, notKept: "" }),
      (error: Error) => ({ blob: written, notKept: `this browser does not rename files (${error.message})` }),
    );
  } finally {
    part?.close();
    sum.free();
  }
}

/** What is wrong with the size that a server tells; empty where nothing is. */
function wrongSize({ url, bytes, most = Infinity }: Wanted, total: number): string {
  const name = fileName(url);
  if (bytes === undefined) return total <= most ? "" : `${name} is larger than was said: it has ${total} bytes.`;
  return total === bytes ? "" : `${name} is of another version than this page: it has ${total} bytes and should have ${bytes}.`;
}

/** The body of an answer as it arrives. */
async function* pieces(response: Response, name: string, signal: AbortSignal): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const reader = response.body!.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read().catch((error: Error) => {
        signal.throwIfAborted();
        throw new FileError(`The connection broke while ${name} arrived (${error.message}). Try again: it goes on from here.`, true);
      });
      if (done) return;
      yield value;
    }
  } finally {
    // What is refused before its end would arrive all the same.
    void reader.cancel().catch(() => undefined);
  }
}

interface Answer {
  response: Response;
  /** The place of its first byte, where it tells. */
  start: number | null;
  /** Bytes of the whole file, where it tells. */
  total: number | null;
  /** What names the file's content, where it is sure. */
  etag: string | null;
}

/** An answer that goes on where a part ends, or begins anew: where the server knows no ranges, gives
 * another one, or has another file by now. A digest tells in the end; without one, the ETag must. */
async function continued(wanted: Wanted, from: number, etag: string | null, signal: AbortSignal): Promise<Answer & { from: number }> {
  if (from > 0) {
    const answer = await ask(wanted, `bytes=${from}-`, signal);
    const isSame = wanted.sha256 !== undefined || (etag !== null && etag === answer.etag);
    if (answer.response.status === 206 && isSame && (answer.start ?? from) === from) {
      return { ...answer, total: answer.total ?? withBefore(from, lengthOf(answer.response)), from };
    }
    if (answer.response.status === 200) return { ...answer, from: 0 };
    await answer.response.body?.cancel();
  }
  const answer = await ask(wanted, null, signal);
  if (answer.response.status !== 200) throw refusal(wanted.url, answer.response);
  return { ...answer, from: 0 };
}

/** Sends a request and makes sure that the answer can be a file: 200, 206, or 416 for a range beyond its end. */
async function ask({ url }: Wanted, range: string | null, signal?: AbortSignal): Promise<Answer> {
  const options: RequestInit = { ...(isElsewhere(url) ? ELSEWHERE : HERE), ...(range && { headers: { Range: range } }) };
  const response = await fetch(url, { ...options, signal: signal ?? null }).catch((error: Error) => {
    signal?.throwIfAborted();
    throw new FileError(`${fileName(url)} cannot be fetched (${error.message}). Is there a connection?`, true);
  });
  if (!(response.ok && response.body) && !(range && response.status === 416)) throw refusal(url, response);
  if (/^text\/html\b/i.test(response.headers.get("Content-Type") ?? "")) {
    await response.body?.cancel();
    throw new FileError(`${hostOf(url)} answers with a web page instead of ${fileName(url)}. Is there a portal to log in to?`);
  }
  const [, start, all] = /^bytes (\d+)-\d+\/(\d+)$/.exec(response.headers.get("Content-Range") ?? "") ?? [];
  const etag = response.headers.get("ETag");
  return {
    response,
    start: start === undefined ? null : Number(start),
    total: all !== undefined ? Number(all) : response.status === 200 ? lengthOf(response) : null,
    // A weak one names what may differ in its bytes.
    etag: etag?.startsWith('"') ? etag : null,
  };
}

function refusal(url: string, { status, statusText }: Response): FileError {
  const advice = status === 401 || status === 403 ? " It may ask for conditions to be accepted on its page." : "";
  const passing = status === 408 || status === 429 || status >= 500;
  return new FileError(`${hostOf(url)} does not give ${fileName(url)}: ${[status, statusText].join(" ").trim()}.${advice}`, passing);
}

function lengthOf(response: Response): number | null {
  // The length of what was compressed tells nothing.
  return response.headers.has("Content-Encoding") ? null : Number(response.headers.get("Content-Length")) || null;
}

function withBefore(from: number, rest: number | null): number | null {
  return rest === null ? null : from + rest;
}

/** A file's place in the private file system. */
class Kept {
  private constructor(
    private folder: FileSystemDirectoryHandle,
    private name: string,
    private wanted: Wanted,
  ) {}

  /** Removes other versions of the same file, but none of those beside it. */
  static async of(wanted: Wanted, beside: Wanted[] = []): Promise<Kept> {
    const root = await navigator.storage.getDirectory();
    const folder = await root.getDirectoryHandle(FOLDER, { create: true });
    const { address, name } = namesOf(wanted);
    const needed = [name, ...beside.map((other) => namesOf(other).name)];
    for await (const other of folder.keys()) {
      if (other.startsWith(address) && !needed.some((name) => other.startsWith(name))) {
        await folder.removeEntry(other).catch(() => undefined);
      }
    }
    return new Kept(folder, name, wanted);
  }

  /** Changes nothing; null where nothing is kept. */
  static async at(wanted: Wanted): Promise<Kept | null> {
    try {
      const root = await navigator.storage.getDirectory();
      return new Kept(await root.getDirectoryHandle(FOLDER), namesOf(wanted).name, wanted);
    } catch {
      return null;
    }
  }

  /** The whole file, checked; null where there is none, or where it is damaged. */
  async whole({ checksum, progress, signal }: Surroundings): Promise<Blob | null> {
    const file = await this.open("");
    const expected = await this.digest();
    if (!file || !expected) return null;
    const sum = checksum();
    try {
      for (let at = 0; at < file.size; at += PIECE) {
        signal.throwIfAborted();
        progress("verify", at, file.size);
        sum.update(new Uint8Array(await file.slice(at, at + PIECE).arrayBuffer()));
      }
      progress("verify", file.size, file.size);
      if (sum.hex() === expected) return file;
    } finally {
      sum.free();
    }
    await this.folder.removeEntry(this.name);
    return null;
  }

  async look(): Promise<KeptFile | null> {
    const file = await this.open("");
    const sha256 = await this.digest();
    if (file && sha256) return { bytes: file.size, whole: true, sha256 };
    const part = await this.open(".part");
    return part && part.size > 0 ? { bytes: part.size, whole: false, sha256: null } : null;
  }

  async remove() {
    for (const end of ["", ".part", ".etag", ".sha256"]) {
      await this.folder.removeEntry(this.name + end).catch((error: DOMException) => {
        if (error.name === "NotFoundError") return;
        throw new FileError(`${fileName(this.wanted.url)} cannot be removed: another page may be fetching it (${error.message}).`);
      });
    }
  }

  /** What arrived so far, taken into the checksum. Of a file without a version, only what has an ETag to
   * compare: it could be of another one. */
  async part(sum: Checksum, { signal, progress }: Surroundings): Promise<Part> {
    const handle = await this.folder.getFileHandle(`${this.name}.part`, { create: true });
    const access = await handle.createSyncAccessHandle();
    try {
      const etag = (await (await this.open(".etag"))?.text()) || null;
      const { bytes, sha256 } = this.wanted;
      if (!sha256 && !etag) access.truncate(0);
      if (bytes !== undefined && access.getSize() > bytes) access.truncate(0);
      const size = access.getSize();
      const piece = new Uint8Array(PIECE);
      for (let at = 0; at < size; ) {
        signal.throwIfAborted();
        const read = access.read(piece, { at });
        sum.update(piece.subarray(0, read));
        at += read;
        progress("verify", at, bytes ?? null);
      }
      return new Part(this, handle, access, size, etag);
    } catch (error) {
      access.close();
      throw error;
    }
  }

  /** Remembers which file the part is of, where no digest will tell. */
  async remember(etag: string | null) {
    if (this.wanted.sha256 === undefined) await this.note(".etag", etag ?? "");
  }

  async finish(part: FileSystemFileHandle, sum: string): Promise<Blob> {
    if (!this.wanted.sha256) await this.note(".sha256", sum);
    // In every browser with OPFS, and not yet in TypeScript's library.
    await (part as FileSystemFileHandle & { move(name: string): Promise<void> }).move(this.name);
    await this.folder.removeEntry(`${this.name}.etag`).catch(() => undefined);
    return part.getFile();
  }

  async discard() {
    for (const end of [".part", ".etag"]) await this.folder.removeEntry(this.name + end).catch(() => undefined);
  }

  /** The checksum that the whole file must have: its version's, or that with which it arrived. */
  private async digest(): Promise<string | null> {
    return this.wanted.sha256?.toLowerCase() ?? ((await (await this.open(".sha256"))?.text()) || null);
  }

  private async note(end: string, text: string) {
    const note = await this.folder.getFileHandle(this.name + end, { create: true });
    const access = await note.createSyncAccessHandle();
    access.truncate(0);
    access.write(new TextEncoder().encode(text));
    access.close();
  }

  private async open(end: string): Promise<File | null> {
    const handle = this.folder.getFileHandle(this.name + end);
    return handle.then((handle) => handle.getFile()).catch(() => null);
  }
}

/** A file that is being written. */
class Part {
  private closed = false;

  constructor(
    private kept: Kept,
    private handle: FileSystemFileHandle,
    private access: FileSystemSyncAccessHandle,
    public size: number,
    public etag: string | null,
  ) {}

  /** Writes a piece; tells why where it cannot, and then has none of it. */
  append(piece: Uint8Array<ArrayBuffer>): string {
    try {
      if (this.access.write(piece, { at: this.size }) === piece.length) {
        this.size += piece.length;
        return "";
      }
    } catch {
      // As below.
    }
    this.access.truncate(this.size);
    return "the browser's storage is full";
  }

  async restart(etag: string | null) {
    this.access.truncate(0);
    this.size = 0;
    await this.kept.remember(etag);
  }

  /** What was written; nothing more can be. */
  async file(): Promise<Blob> {
    this.close();
    return this.handle.getFile();
  }

  async finish(sum: string): Promise<Blob> {
    return this.kept.finish(this.handle, sum);
  }

  async discard() {
    this.close();
    await this.kept.discard();
  }

  close() {
    if (this.closed) return;
    this.closed = true;
    try {
      this.access.flush();
    } catch {
      // What did not reach the disk is fetched again.
    }
    this.access.close();
  }
}

export function fileName(url: string): string {
  return decodeURIComponent(new URL(url).pathname.split("/").pop() || "weights");
}

function hostOf(url: string): string {
  return new URL(url).host;
}

function isElsewhere(url: string): boolean {
  return new URL(url).origin !== location.origin;
}

/** The beginning that all versions of a file share, and the name of the one that is wanted. Without a checksum,
 * what the address asks for is its version. */
function namesOf({ url, sha256 }: Wanted): { address: string; name: string } {
  const address = hash(url.replace(/[?#].*$/, ""));
  const { search } = new URL(url);
  const version = sha256?.slice(0, 16).toLowerCase() ?? `unversioned${search && `-${hash(search)}`}`;
  return { address, name: `${address}-${version}-${fileName(url)}` };
}

/** FNV-1a in 32 bits; tells addresses apart. */
function hash(text: string): string {
  let value = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) {
    value = Math.imul(value ^ byte, 0x01000193) >>> 0;
  }
  return value.toString(16).padStart(8, "0");
}
