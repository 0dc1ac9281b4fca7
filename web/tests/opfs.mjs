// The browser's private file system in memory, as far as the store uses it.

/** Puts it where the store looks for it; `limit` is in bytes. */
export function install() {
  const disk = { root: new Folder(), limit: Infinity };
  disk.root.disk = disk;
  Object.defineProperty(globalThis, "navigator", { configurable: true, value: { storage: { getDirectory: async () => disk.root } } });
  return disk;
}

const missing = () => new DOMException("It is not there.", "NotFoundError");

class Folder {
  entries = new Map();

  async getDirectoryHandle(name, { create = false } = {}) {
    if (!this.entries.has(name)) {
      if (!create) throw missing();
      this.entries.set(name, Object.assign(new Folder(), { disk: this.disk }));
    }
    return this.entries.get(name);
  }

  async getFileHandle(name, { create = false } = {}) {
    if (!this.entries.has(name)) {
      if (!create) throw missing();
      this.entries.set(name, new Handle(this, name));
    }
    return this.entries.get(name);
  }

  async removeEntry(name) {
    const entry = this.entries.get(name);
    if (!entry) throw missing();
    if (entry.locked) throw new DOMException("It is in use.", "NoModificationAllowedError");
    this.entries.delete(name);
  }

  async *keys() {
    yield* [...this.entries.keys()];
  }
}

class Handle {
  bytes = Buffer.alloc(0);
  locked = false;

  constructor(folder, name) {
    Object.assign(this, { folder, name });
  }

  async getFile() {
    return new File([this.bytes], this.name);
  }

  async move(name) {
    this.folder.entries.delete(this.name);
    this.folder.entries.set(name, this);
    this.name = name;
  }

  async createSyncAccessHandle() {
    if (this.locked) throw new DOMException("It is in use.", "NoModificationAllowedError");
    this.locked = true;
    return {
      getSize: () => this.bytes.length,
      truncate: (size) => (this.bytes = Buffer.concat([this.bytes, Buffer.alloc(Math.max(0, size - this.bytes.length))]).subarray(0, size)),
      read: (into, { at }) => this.bytes.copy(into, 0, at),
      write: (piece, { at } = { at: 0 }) => {
        if (at + piece.length > this.folder.disk.limit) throw new DOMException("No room.", "QuotaExceededError");
        this.bytes = Buffer.concat([this.bytes.subarray(0, at), piece]);
        return piece.length;
      },
      flush: () => undefined,
      close: () => (this.locked = false),
    };
  }
}
