// Weights from a server, kept for the next visit.
//
// A file arrives in pieces and is written to the browser's private file system (OPFS) as it does,
// under a name that holds its version; the checksum runs along. What was interrupted goes on with a
// range request. Where the file system refuses, the rest stays in memory. The result is a blob
// either way, which lies on disk where it can.

/** A running SHA-256, from the engine. */
export interface Checksum {
  update(piece: Uint8Array): void;
  hex(): string;
  free(): void;
}

export interface Wanted {
  url: string;
  bytes?: number;
  sha256?: string;
}

export interface Surroundings {
  checksum: () => Checksum;
  /** Whether to keep the file. */
  keep: boolean;
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
}

const PIECE = 4 << 20;

export async function obtain(wanted: Wanted, around: Surroundings): Promise<Obtained> {
  if (!around.keep) return download(wanted, around, null, "keeping files is switched off");
  let kept: Kept;
  try {
    kept = await Kept.of(wanted);
    const whole = await kept.whole(around);
    if (whole) return { blob: whole, notKept: "" };
  } catch (error) {
    around.signal.throwIfAborted();
    return download(wanted, around, null, `this browser keeps no files here (${(error as Error).message})`);
  }
  return download(wanted, around, kept, "");
}

/** Fetches what is missing of a file. `notKept` says why nothing is to be written, where that is so. */
async function download(wanted: Wanted, around: Surroundings, kept: Kept | null, notKept: string): Promise<Obtained> {
  const name = fileName(wanted.url);
  let sum = around.checksum();
  let part: Part | null = null;
  try {
    part = (await kept?.part(sum, around)) ?? null;
  } catch (error) {
    around.signal.throwIfAborted();
    notKept = `another page may be fetching the same file (${(error as Error).message})`;
    sum.free();
    sum = around.checksum();
  }
  try {
    let have = part?.size ?? 0;
    let total = wanted.bytes ?? null;
    const memory: Uint8Array<ArrayBuffer>[] = [];
    if (have === 0 || have !== total) {
      const response = await request(wanted, have, around.signal);
      if (have > 0 && response.status !== 206) {
        // The server sends the whole again.
        part?.restart();
        sum.free();
        sum = around.checksum();
        have = 0;
      }
      const rest = Number(response.headers.get("Content-Length")) || null;
      if (rest && !response.headers.get("Content-Encoding")) total = have + rest;
      around.progress("download", have, total);
      for await (const piece of pieces(response, name, around.signal)) {
        sum.update(piece);
        if (part && !notKept) notKept = part.append(piece);
        if (!part || notKept) memory.push(piece);
        have += piece.length;
        around.progress("download", have, total);
      }
    }
    if (total !== null && have < total) {
      throw new FileError(`${name} ended after ${have} of ${total} bytes. Try again: it goes on from there.`);
    }
    const found = sum.hex();
    if (wanted.sha256 && found !== wanted.sha256) {
      await part?.discard();
      throw new FileError(
        `${name} is damaged, or of another version than this page: its checksum begins with ${found.slice(0, 8)} and should begin with ${wanted.sha256.slice(0, 8)}. Reload the page; if that does not help, the file on the server is wrong.`,
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

/** The body of an answer as it arrives. */
async function* pieces(response: Response, name: string, signal: AbortSignal): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const reader = response.body!.getReader();
  for (;;) {
    const { done, value } = await reader.read().catch((error: Error) => {
      signal.throwIfAborted();
      throw new FileError(`The connection broke while ${name} arrived (${error.message}). Try again: it goes on from here.`);
    });
    if (done) return;
    yield value;
  }
}

async function request(wanted: Wanted, from: number, signal: AbortSignal): Promise<Response> {
  const name = fileName(wanted.url);
  const headers = from > 0 ? { Range: `bytes=${from}-` } : undefined;
  const response = await fetch(wanted.url, { headers, signal }).catch((error: Error) => {
    signal.throwIfAborted();
    throw new FileError(`${name} cannot be fetched (${error.message}). Is there a connection?`);
  });
  if (response.status === 416) return request(wanted, 0, signal);
  if (!response.ok || !response.body) {
    throw new FileError(`The server does not give ${name}: ${response.status} ${response.statusText}.`);
  }
  return response;
}

/** A file's place in the private file system. */
class Kept {
  private constructor(
    private folder: FileSystemDirectoryHandle,
    private name: string,
    private wanted: Wanted,
  ) {}

  /** Removes other versions of the same file. */
  static async of(wanted: Wanted): Promise<Kept> {
    const root = await navigator.storage.getDirectory();
    const folder = await root.getDirectoryHandle("tintype-weights", { create: true });
    const address = hash(wanted.url.replace(/[?#].*$/, ""));
    const version = wanted.sha256?.slice(0, 16) ?? "unversioned";
    const name = `${address}-${version}-${fileName(wanted.url)}`;
    for await (const other of folder.keys()) {
      if (other.startsWith(address) && !other.startsWith(name)) {
        await folder.removeEntry(other).catch(() => undefined);
      }
    }
    return new Kept(folder, name, wanted);
  }

  /** The whole file, checked; null where there is none, or where it is damaged. */
  async whole({ checksum, progress, signal }: Surroundings): Promise<Blob | null> {
    const file = await this.open(this.name);
    const expected = this.wanted.sha256 ?? (await (await this.open(`${this.name}.sha256`))?.text());
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

  /** What arrived so far, taken into the checksum. Without a version it could be of another file. */
  async part(sum: Checksum, { signal, progress }: Surroundings): Promise<Part> {
    const handle = await this.folder.getFileHandle(`${this.name}.part`, { create: true });
    const access = await handle.createSyncAccessHandle();
    try {
      if (!this.wanted.sha256) access.truncate(0);
      const size = access.getSize();
      const piece = new Uint8Array(PIECE);
      for (let at = 0; at < size; ) {
        signal.throwIfAborted();
        const read = access.read(piece, { at });
        sum.update(piece.subarray(0, read));
        at += read;
        progress("download", at, this.wanted.bytes ?? null);
      }
      return new Part(this, handle, access, size);
    } catch (error) {
      access.close();
      throw error;
    }
  }

  async finish(part: FileSystemFileHandle, sum: string): Promise<Blob> {
    if (!this.wanted.sha256) {
      const note = await this.folder.getFileHandle(`${this.name}.sha256`, { create: true });
      const access = await note.createSyncAccessHandle();
      access.truncate(0);
      access.write(new TextEncoder().encode(sum));
      access.close();
    }
    // In every browser with OPFS, and not yet in TypeScript's library.
    await (part as FileSystemFileHandle & { move(name: string): Promise<void> }).move(this.name);
    return part.getFile();
  }

  async discard() {
    await this.folder.removeEntry(`${this.name}.part`).catch(() => undefined);
  }

  private async open(name: string): Promise<File | null> {
    const handle = await this.folder.getFileHandle(name).catch(() => null);
    return handle && handle.getFile();
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

  restart() {
    this.access.truncate(0);
    this.size = 0;
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

/** FNV-1a in 32 bits; tells addresses apart. */
function hash(text: string): string {
  let value = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) {
    value = Math.imul(value ^ byte, 0x01000193) >>> 0;
  }
  return value.toString(16).padStart(8, "0");
}
