// Sampling: logits are filtered, turned into probabilities, and a token is drawn; the filters of lib/generate/sampling.py.
//
// They are applied in this order: repetition penalty, temperature, top-k, top-p, min-p. Each sees what the earlier ones left.
// The draws are not PyTorch's: the same seed gives the same text in every browser, but not the text that `generate` writes.

import { softmax } from "./layers.js";

/** Logits in which the tokens in `seen` are less likely: positive ones divided by `penalty`, others multiplied. */
export function penalized(logits, seen, penalty) {
  const result = Float32Array.from(logits);
  for (const id of new Set(seen)) result[id] = logits[id] > 0 ? logits[id] / penalty : logits[id] * penalty;
  return result;
}

/** The id of the largest logit, of equals the lowest. */
export function mostLikely(logits) {
  let best = 0;
  for (let id = 1; id < logits.length; id++) if (logits[id] > logits[best]) best = id;
  return best;
}

/** The `count` most likely ids, the most likely first, of equals the lowest first. */
export function mostLikelyIds(logits, count) {
  const best = [];
  for (let id = 0; id < logits.length; id++) {
    if (best.length === count && logits[id] <= logits[best[count - 1]]) continue;
    let place = best.length;
    while (place > 0 && logits[id] > logits[best[place - 1]]) place--;
    best.splice(place, 0, id);
    if (best.length > count) best.pop();
  }
  return best;
}

/** All ids in that order. */
function sortedIds(logits) {
  return Uint32Array.from(logits, (_, id) => id).sort((a, b) => logits[b] - logits[a] || a - b);
}

/** The distribution that a token is drawn from, and what became of the others.
 *
 * `settings`: {temperature, top_k, top_p, min_p, repetition_penalty}, null for a filter that is off. `seen`: the tokens of the
 * text so far, for the penalty. Returns {own, final, removed}: the model's own probabilities and the final ones, (V,) in
 * float64, and for each id the name of the filter that removed it, or null. At temperature 0 "greedy" removes all but one.
 */
export function distribution(logits, settings, seen = []) {
  const { temperature = 1, top_k = null, top_p = null, min_p = null, repetition_penalty = 1 } = settings;
  const own = softmax(logits);
  const removed = new Array(logits.length).fill(null);
  const penalizedLogits = repetition_penalty === 1 ? logits : penalized(logits, seen, repetition_penalty);
  const best = mostLikely(penalizedLogits);
  if (temperature === 0) {
    removed.fill("greedy");
    removed[best] = null;
    return { own, final: Float64Array.from(own, (_, id) => (id === best ? 1 : 0)), removed };
  }
  const scaled = Float64Array.from(penalizedLogits, (logit) => (logit - penalizedLogits[best]) / temperature);
  const remove = (id, filter) => {
    removed[id] = filter;
    scaled[id] = -Infinity;
  };
  const order = top_k === null && top_p === null ? [] : sortedIds(scaled);
  if (top_k !== null) for (const id of order.slice(top_k)) remove(id, "top_k"); // exactly k tokens stay
  if (top_p !== null) {
    // the fewest most likely tokens whose probabilities together reach p, the most likely always (Holtzman et al. 2020)
    const probabilities = softmax(scaled);
    let total = 0;
    for (const id of order) {
      total += probabilities[id];
      if (total - probabilities[id] >= top_p && id !== best && !removed[id]) remove(id, "top_p");
    }
  }
  if (min_p !== null) {
    // the tokens with at least p times the probability of the most likely one (Nguyen et al. 2024)
    const probabilities = softmax(scaled);
    probabilities.forEach((p, id) => {
      if (p < min_p * probabilities[best] && !removed[id]) remove(id, "min_p");
    });
  }
  return { own, final: softmax(scaled), removed };
}

/** The id where the sum of `probabilities` passes `uniform`, a number from 0 up to 1. */
export function drawToken(probabilities, uniform) {
  let sum = 0;
  let last = 0;
  for (let id = 0; id < probabilities.length; id++) {
    if (probabilities[id] === 0) continue;
    sum += probabilities[id];
    last = id;
    if (uniform < sum) return id;
  }
  return last; // the sum of all is 1 but for rounding
}

/** A function that returns random numbers from 0 up to 1, the same ones for the same seed.
 *
 * xoshiro128** (Blackman and Vigna 2021); its state is filled from a counter, mixed as at the end of MurmurHash3 (Appleby 2011).
 */
export function randomNumbers(seed) {
  let mixed = (seed ^ Math.floor(seed / 2 ** 32)) >>> 0;
  const state = Uint32Array.from({ length: 4 }, () => {
    mixed = (mixed + 0x9e3779b9) >>> 0;
    let z = mixed;
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
    return z ^ (z >>> 16);
  });
  const rotateLeft = (x, bits) => (x << bits) | (x >>> (32 - bits));
  const next = () => {
    const result = Math.imul(rotateLeft(Math.imul(state[1], 5), 7), 9) >>> 0;
    const shifted = state[1] << 9;
    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= shifted;
    state[3] = rotateLeft(state[3], 11);
    return result;
  };
  return () => ((next() >>> 5) * 2 ** 26 + (next() >>> 6)) / 2 ** 53; // all 53 bits of a number in [0, 1)
}
