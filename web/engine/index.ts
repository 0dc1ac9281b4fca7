export { Downloads } from "./downloads.js";
export { Tintype, TintypeError } from "./tintype.js";
export type * from "./types.js";
