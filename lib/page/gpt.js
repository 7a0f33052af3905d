// A GPT that reads a text token by token: each goes through all layers once, and its keys and values are kept for later ones.
//
// The names of weights and options are those of lib/model and params.yaml. What stands there as one product over a whole
// text is a loop here: one position at a time.
//
// C embedding, H heads, G key and value heads, D head size, V vocabulary

import { add, dot, frequencies, gelu, layerNorm, linear, relu, rmsNorm, rotate, rowOf, scaledFrequencies, sigmoid, silu, sinusoidal, softmax } from "./layers.js";

const WAVE_BASE = 10000; // of sinusoidal positions, as in lib/model/positions.py
const HASH_FACTOR = 1103515245n; // of n-grams, as in lib/model/ngram_embeddings.py
const HASH_PRIME = 2147483629n;
const SMALLEST = 2 ** -126; // the least positive normal number of float32

/** The KV cache of one text: its ids so far, and the keys and values of each of them in every attention. */
export class KVCache {
  constructor() {
    this.ids = [];
    this.layers = new Map();
  }

  /** The keys and the values of the attention called `name`, one of each for every position. */
  of(name) {
    if (!this.layers.has(name)) this.layers.set(name, { keys: [], values: [] });
    return this.layers.get(name);
  }

  /** Forget all after the longest part that is also the beginning of `ids`, of which the last is to be read in any case. */
  keepPrefix(ids) {
    let length = 0;
    while (length < Math.min(this.ids.length, ids.length - 1) && this.ids[length] === ids[length]) length++;
    this.ids.length = length;
    for (const { keys, values } of this.layers.values()) {
      keys.length = length;
      values.length = Math.min(values.length, length); // a pointer has none
    }
  }
}

/** A linear layer, a norm: the weights that `name` has in `tensors`, and what they do. */
function linearLayer(tensors, name) {
  const [weight, bias] = [tensors[`${name}.weight`], tensors[`${name}.bias`]];
  return (x) => linear(x, weight, bias);
}

function norm(tensors, name, eps) {
  const [scale, shift] = [tensors[`${name}.scale`], tensors[`${name}.shift`]];
  if (!scale) return (x) => x; // there is none
  return shift ? (x) => layerNorm(x, scale.data, shift.data, eps) : (x) => rmsNorm(x, scale.data, eps);
}

/** Whether position t attends to an earlier position s (lib/model/sparse_attention.py). */
function attentionPattern({ window, attention_pattern, summary_tokens }) {
  if (window === null) return () => true;
  const patterns = {
    sliding: (t, s) => t - s < window,
    strided: (t, s) => t - s < window || (t - s) % window === 0,
    fixed: (t, s) => Math.floor(s / window) === Math.floor(t / window) || s % window >= window - summary_tokens,
  };
  return patterns[attention_pattern];
}

/** The speeds at which rotary positions turn, or null. */
function rotarySpeeds(config, size) {
  if (config.positions !== "rotary") return null;
  const speeds = frequencies(size, config.rope_base);
  if (config.rope_factor === 1) return speeds;
  const scaling = { factor: config.rope_factor, low: config.rope_low_freq_factor, high: config.rope_high_freq_factor };
  return scaledFrequencies(speeds, { ...scaling, context: config.rope_original_context });
}

/** Causal self-attention: each position collects the values of those whose keys fit its query (lib/model/attention.py). */
class Attention {
  constructor(config, tensors, name) {
    this.H = config.n_heads;
    this.G = config.n_kv_heads ?? config.n_heads;
    this.D = config.head_dim ?? config.emb_dim / config.n_heads;
    this.attendsTo = attentionPattern(config);
    this.speeds = rotarySpeeds(config, this.D);
    this.qNorm = norm(tensors, `${name}.q_norm`, config.norm_eps);
    this.kNorm = norm(tensors, `${name}.k_norm`, config.norm_eps);
    if (tensors[`${name}.W_query.weight`]) {
      // a single head has three matrices, and its output is not projected (lib/model/causal_attention.py)
      const parts = ["W_query", "W_key", "W_value"].map((part) => linearLayer(tensors, `${name}.${part}`));
      this.queriesKeysValues = (x) => parts.map((part) => part(x));
      this.project = (x) => x;
    } else {
      const [qkv, rows] = [linearLayer(tensors, `${name}.W_qkv`), this.G * this.D];
      this.queriesKeysValues = (x) => {
        const all = qkv(x);
        const [keys, values] = [all.length - 2 * rows, all.length - rows];
        return [all.subarray(0, keys), all.subarray(keys, values), all.subarray(values)];
      };
      this.project = linearLayer(tensors, `${name}.out_proj`);
    }
  }

  /** The vector of the last position, (C,) -> (C,). `maps` collects its weights: for each head a number for each position. */
  forward(x, cache, maps) {
    const { H, G, D } = this;
    const position = cache.keys.length;
    const [q, k, v] = this.queriesKeysValues(x);
    const query = this.perHead(q, this.qNorm, position);
    cache.keys.push(this.perHead(k, this.kNorm, position));
    cache.values.push(v);
    const seen = [];
    for (let s = 0; s <= position; s++) if (this.attendsTo(position, s)) seen.push(s);
    const output = new Float32Array(H * D);
    const map = [];
    for (let h = 0; h < H; h++) {
      const start = Math.floor(h / (H / G)) * D; // H/G neighbors share a key and value head
      const weights = softmax(seen.map((s) => dot(query, h * D, cache.keys[s], start, D) / Math.sqrt(D)));
      seen.forEach((s, n) => {
        const value = cache.values[s];
        for (let i = 0; i < D; i++) output[h * D + i] += weights[n] * value[start + i];
      });
      if (maps) map.push(spread(weights, seen, position + 1));
    }
    maps?.push(map);
    return this.project(output);
  }

  /** The vectors of all heads, each normalized and rotated: (heads · D,) -> (heads · D,). */
  perHead(x, normalize, position) {
    const result = Float32Array.from(x);
    for (let start = 0; start < x.length; start += this.D) {
      const head = normalize(x.subarray(start, start + this.D));
      result.set(this.speeds ? rotate(head, position, this.speeds) : head, start);
    }
    return result;
  }
}

/** `length` numbers: the `values` at their `places`, 0 elsewhere. */
function spread(values, places, length) {
  const all = new Float32Array(length);
  places.forEach((place, n) => (all[place] = values[n]));
  return all;
}

/** The feed-forward layer: wider, an activation, and back (lib/model/feed_forward.py). */
function feedForward(config, tensors, name) {
  const [expand, contract] = [linearLayer(tensors, `${name}.expand`), linearLayer(tensors, `${name}.contract`)];
  if (config.feed_forward === "swiglu") {
    const gate = linearLayer(tensors, `${name}.gate`);
    return (x) => {
      const wide = expand(x);
      return contract(silu(gate(x)).map((value, i) => value * wide[i]));
    };
  }
  const activation = { gelu, relu }[config.feed_forward];
  return (x) => contract(activation(expand(x)));
}

/** A transformer block: attention, then feed-forward, each inside a shortcut (lib/model/block.py). */
class Block {
  constructor(config, tensors, name) {
    this.norm1 = norm(tensors, `${name}.norm1`, config.norm_eps);
    this.attention = new Attention(config, tensors, `${name}.attention`);
    this.norm2 = norm(tensors, `${name}.norm2`, config.norm_eps);
    this.feedForward = feedForward(config, tensors, `${name}.feed_forward`);
    this.isPost = config.norm_position === "post";
  }

  forward(x, cache, maps) {
    if (this.isPost) {
      x = this.norm1(add(x, this.attention.forward(x, cache, maps)));
      return this.norm2(add(x, this.feedForward(x)));
    }
    x = add(x, this.attention.forward(this.norm1(x), cache, maps));
    return add(x, this.feedForward(this.norm2(x)));
  }
}

/** The parts of each kind of model between the embeddings and the head: blocks, or attention alone; a bigram has none. */
const LAYERS = {
  bigram: () => [],
  single_head: (config, tensors) => [new Attention(config, tensors, "attention")],
  multi_head: (config, tensors) => [new Attention(config, tensors, "attention")],
  single_block: (config, tensors) => [new Block(config, tensors, "block")],
  gpt: (config, tensors) => Array.from({ length: config.n_layers }, (_, n) => new Block(config, tensors, `blocks.${n}`)),
};
LAYERS.pointer = LAYERS.gpt;

/** A model of `config`, the section `model` of a run's config.json, with its `tensors` by name. */
export class GPT {
  constructor(config, tensors) {
    this.config = config;
    this.tensors = tensors;
    this.layers = LAYERS[config.kind](config, tensors);
    this.hasBlocks = this.layers[0] instanceof Block; // whose outputs add up, so that the head can read each
    this.finalNorm = norm(tensors, "final_norm", config.norm_eps);
    this.head = tensors["out_head.weight"] ?? tensors["tok_emb.weight"]; // tied: one matrix for both
    this.waves = config.positions === "sinusoidal" ? frequencies(config.emb_dim, WAVE_BASE) : null;
  }

  /** Add the token `id` to the text of `cache`; return the logits of the next one, (V,).
   *
   * `trace`: {maps, states} collects the attention weights of each layer, (H, positions), and the vector before the first
   * layer and after each, (C,).
   */
  next(cache, id, trace = null) {
    cache.ids.push(id);
    if (this.config.kind === "bigram") return rowOf(this.head, id);
    let x = this.embed(cache.ids);
    trace?.states.push(x);
    this.layers.forEach((layer, number) => {
      x = layer.forward(x, cache.of(number), trace?.maps);
      trace?.states.push(x);
    });
    return this.predict(x, cache, this.layers.length);
  }

  /** The input of the first layer for the last of `ids`: embeddings of the token, its position and its n-grams, (C,). */
  embed(ids) {
    const position = ids.length - 1;
    let x = rowOf(this.tensors["tok_emb.weight"], ids[position]);
    if (this.config.positions === "learned") x = add(x, rowOf(this.tensors["pos_emb.weight"], position));
    if (this.waves) x = sinusoidal(x, position, this.waves);
    for (let order = 2; order <= this.config.ngram_order; order++) {
      const table = this.tensors[`ngram_emb.tables.${order - 2}.weight`];
      x = add(x, rowOf(table, Number(ngramHash(ids, order) % BigInt(table.shape[0]))));
    }
    return x;
  }

  /** The logits by the vector of the last position: the final norm and the head.
   *
   * With the vector after `layer` blocks they are the logit lens: what the model would say if these were all of its blocks.
   */
  predict(x, cache, layer) {
    x = this.finalNorm(x);
    return this.config.kind === "pointer" ? this.point(x, cache.ids, cache.of(`pointer after ${layer}`)) : linear(x, this.head);
  }

  /** ln p of a pointer model: the head's distribution, and what followed in the text so far (lib/model/pointer.py). */
  point(x, ids, cache) {
    const position = cache.keys.length;
    cache.keys.push(linear(x, this.tensors["pointer.W_key.weight"]));
    const p = softmax(linear(x, this.head));
    if (position > 0) {
      const query = linear(x, this.tensors["pointer.W_query.weight"]);
      const scores = cache.keys.slice(0, position).map((key) => dot(query, 0, key, 0, key.length) / Math.sqrt(key.length));
      const gate = sigmoid(dot(x, 0, this.tensors["pointer.gate"].data, 0, x.length) + this.tensors["pointer.gate_bias"].data[0]);
      for (let id = 0; id < p.length; id++) p[id] *= 1 - gate;
      softmax(scores).forEach((weight, s) => (p[ids[s + 1]] += gate * weight));
    }
    return Float32Array.from(p, (value) => Math.log(Math.max(value, SMALLEST)));
  }
}

/** The hash of the last `order` ids; before the first token of a text stands -1. */
function ngramHash(ids, order) {
  let hash = 0n;
  for (let n = ids.length - order; n < ids.length; n++) hash = (hash * HASH_FACTOR + BigInt(ids[n] ?? -1) + 2n) % HASH_PRIME;
  return hash;
}
