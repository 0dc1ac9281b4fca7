// A pMF of 16 × 16 pixels with weights by a formula, as a safetensors file.

const D = 24; // width
const HEAD = 12;
const BETWEEN = 20; // of the SwiGLU
const BOTTLENECK = 4;
const PATCH = 4;
const VALUES = PATCH * PATCH * 3;
export const CLASSES = ["apple", "pear", "quince"];

function shapes() {
  const linear = (name, out, into, bias = true) => ({
    [`${name}.weight`]: [out, into],
    ...(bias && { [`${name}.bias`]: [out] }),
  });
  const embedder = (name) => ({
    ...linear(`${name}.mlp.0._flax_linear`, D, 256),
    ...linear(`${name}.mlp.2._flax_linear`, D, D),
  });
  const block = (name) => ({
    ...Object.fromEntries(["attn_scale", "mlp_scale", "norm1.weight", "norm2.weight"].map((part) => [`${name}.${part}`, [D]])),
    ...Object.fromEntries(["q_norm", "k_norm"].map((norm) => [`${name}.attn.${norm}.weight`, [HEAD]])),
    ...Object.assign({}, ...["q", "k", "v", "out"].map((part) => linear(`${name}.attn.${part}_proj._flax_linear`, D, D, false))),
    ...linear(`${name}.mlp.w1._flax_linear`, BETWEEN, D, false),
    ...linear(`${name}.mlp.w3._flax_linear`, BETWEEN, D, false),
    ...linear(`${name}.mlp.w2._flax_linear`, D, BETWEEN, false),
  });
  const tokens = ["class", "omega", "t_min", "t_max", "time"];
  return {
    ...Object.fromEntries(tokens.map((name) => [`${name}_tokens`, [1, 1, D]])),
    ...Object.assign({}, ...["h", "omega", "cfg_t_start", "cfg_t_end"].map((name) => embedder(`${name}_embedder`))),
    "y_embedder.embedding_table._flax_embedding.weight": [CLASSES.length + 1, D],
    ...block("shared_blocks.0"),
    ...block("u_heads.0"),
    "u_final_layer.norm.weight": [D],
    ...linear("u_final_layer.linear._flax_linear", VALUES, D),
    pos_embed: [1, tokens.length + 16, D],
    "x_embedder.proj1.weight": [BOTTLENECK, 3, PATCH, PATCH],
    "x_embedder.proj1.bias": [BOTTLENECK],
    "x_embedder.proj2.weight": [D, BOTTLENECK, 1, 1],
    "x_embedder.proj2.bias": [D],
  };
}

export function pmf() {
  const header = { __metadata__: { classes: JSON.stringify(CLASSES) } };
  const values = [];
  let n = 0;
  for (const [name, shape] of Object.entries(shapes())) {
    const begin = 4 * values.length;
    for (let count = shape.reduce((a, b) => a * b, 1); count > 0; count--) {
      n = (Math.imul(n, 1_664_525) + 1_013_904_223) >>> 0;
      values.push(name.includes("norm") ? 1 : (n / 2 ** 31 - 1) * 0.3);
    }
    header[name] = { dtype: "F32", shape, data_offsets: [begin, 4 * values.length] };
  }
  const text = JSON.stringify(header);
  const words = Buffer.from(text + " ".repeat(-text.length & 7));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(words.length));
  return Buffer.concat([length, words, Buffer.from(Float32Array.from(values).buffer)]);
}
