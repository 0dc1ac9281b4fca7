export { Tintype, TintypeError } from "./tintype.js";
export type * from "./types.js";
