// The settings that Tintype's pictures carry in an iTXt chunk.

import type { Origin } from "../engine/index.js";

/** What a PNG says about itself; null where it says nothing of Tintype. */
export async function readOrigin(file: Blob): Promise<Origin | null> {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const view = new DataView(bytes.buffer);
  const latin1 = new TextDecoder("latin1");
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = view.getUint32(at);
    const data = bytes.subarray(at + 8, at + 8 + length);
    if (latin1.decode(bytes.subarray(at + 4, at + 8)) === "iTXt") {
      const end = data.indexOf(0);
      // Keyword, then two bytes on compression, language and translated keyword, each ended by a zero.
      if (latin1.decode(data.subarray(0, end)) === "tintype" && data[end + 1] === 0) {
        const language = data.indexOf(0, end + 3);
        const keyword = data.indexOf(0, language + 1);
        return JSON.parse(new TextDecoder().decode(data.subarray(keyword + 1))) as Origin;
      }
    }
    at += 12 + length;
  }
  return null;
}
