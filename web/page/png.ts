// The settings that Tintype's pictures carry, in an iTXt chunk or in what other programs make of it.

import type { Origin } from "../engine/index.js";
import { seedOf } from "./seed.js";

const KEY = "tintype";

/** Letters that a text may have once it is decompressed, as in the library. */
const LONGEST = 2 << 20;

/** What a PNG says about itself; null where it says nothing of Tintype. */
export async function readOrigin(file: Blob): Promise<Origin | null> {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const view = new DataView(bytes.buffer);
  const found = new Map<string, Uint8Array<ArrayBuffer>>();
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = view.getUint32(at);
    const data = bytes.subarray(at + 8, at + 8 + length);
    const kind = latin1(bytes.subarray(at + 4, at + 8));
    const key = data[KEY.length] === 0 ? latin1(data.subarray(0, KEY.length)) : "";
    if (key === KEY && !found.has(kind)) found.set(kind, data);
    at += 12 + length;
  }
  for (const [kind, read] of [["iTXt", international], ["tEXt", plain], ["zTXt", compressed]] as const) {
    const data = found.get(kind);
    if (data) return originOf(await read(data));
  }
  return null;
}

/** JSON whose seeds may have more digits than a number holds; in a text their quotes would be escaped. */
function originOf(text: string): Origin {
  const exact = text.replace(/"seed"\s*:\s*(\d+)(?![\d.eE])/g, '"seed":"$1"');
  const seed = (value: string) => seedOf(value) ?? Number(value);
  return JSON.parse(exact, (key, value: unknown) => (key === "seed" && typeof value === "string" ? seed(value) : value)) as Origin;
}

type Data = Uint8Array<ArrayBuffer>;

/** Keyword, two bytes on compression, language and translated keyword, each ended by a zero. */
async function international(data: Data): Promise<string> {
  const end = data.indexOf(0);
  const language = data.indexOf(0, end + 3);
  const text = data.subarray(data.indexOf(0, language + 1) + 1);
  return new TextDecoder().decode(data[end + 1] === 1 ? await inflate(text) : text);
}

async function plain(data: Data): Promise<string> {
  return ofLatin1(data.subarray(data.indexOf(0) + 1));
}

/** Keyword, a zero, and the method of compression. */
async function compressed(data: Data): Promise<string> {
  return ofLatin1(await inflate(data.subarray(data.indexOf(0) + 2)));
}

async function inflate(data: Data): Promise<Data> {
  const stream = new Blob([data]).stream().pipeThrough(new DecompressionStream("deflate"));
  const parts: Data[] = [];
  let length = 0;
  for (const reader = stream.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) return new Uint8Array(await new Blob(parts).arrayBuffer());
    length += value.length;
    if (length > LONGEST) throw new Error("The picture's settings are damaged.");
    parts.push(value as Data);
  }
}

/** The text of a Latin-1 chunk, into which many programs write UTF-8 all the same. */
function ofLatin1(data: Data): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(data);
  } catch {
    return latin1(data);
  }
}

/** Each byte is a letter; a browser's "latin1" is another encoding. */
function latin1(data: Data): string {
  let text = "";
  for (const byte of data) text += String.fromCharCode(byte);
  return text;
}
