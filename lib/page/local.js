// The backend of the exported page: the model is in the page, and every number is computed here.

import { GPT, KVCache } from "./gpt.js";
import { distribution, drawToken, mostLikely, mostLikelyIds, randomNumbers } from "./sampling.js";
import { readTokenizer, visibleText } from "./tokenizer.js";

const LONGEST_TEXT = 10000; // characters: the merges of one word take time that grows with the square of its length
const PAUSE = 12; // milliseconds of computing between two moments for the page

/** The functions of the page's backend (see server.js), for the one model that `file` describes.
 *
 * `file`: {name, parameters, model, tokenizer, note}, the section `model` of a config.json and a tokenizer for `readTokenizer`.
 */
export function localBackend(file, tensors) {
  const model = new GPT(file.model, tensors);
  const tokenizer = readTokenizer(file.tokenizer);
  const T = file.model.context_length;
  // What was computed for the last text serves one that begins alike: KV caches, and the logits after each token.
  const caches = { analyze: new KVCache(), complete: new KVCache() };
  let known = { ids: [], logits: [] };

  function encode(prompt) {
    if (Array.isArray(prompt)) {
      const id = prompt.find((id) => !(Number.isInteger(id) && id >= 0 && id < tokenizer.size));
      if (id !== undefined) throw new Error(`The id ${id} is not in the vocabulary of ${tokenizer.size} tokens, 0 to ${tokenizer.size - 1}.`);
    } else if (prompt.length > LONGEST_TEXT) {
      throw new Error(`The text has ${prompt.length} characters; this page takes up to ${LONGEST_TEXT}.`);
    }
    const ids = Array.isArray(prompt) ? prompt : tokenizer.encode(prompt);
    if (!ids.length) throw new Error("The text has no tokens; give at least one.");
    return ids;
  }

  /** `work` with the KV cache called `name`, or with an empty one if other work has it. */
  async function withCache(name, work) {
    const cache = caches[name] ?? new KVCache();
    caches[name] = null;
    try {
      return await work(cache);
    } finally {
      caches[name] = cache;
    }
  }

  /** The logits of the token after `ids`; beyond the context the model reads the last T of them, as in `generate`. */
  async function logitsAfter(cache, ids, signal) {
    const window = ids.slice(-T);
    cache.keepPrefix(window);
    let logits;
    for (const id of window.slice(cache.ids.length)) {
      logits = model.next(cache, id);
      await breathe(signal);
    }
    return logits;
  }

  /** The logits after each token of a text, of which those of the last text's beginning are known. */
  function allLogits(ids, signal) {
    return withCache("analyze", async (cache) => {
      let start = 0;
      while (start < known.ids.length && known.ids[start] === ids[start]) start++;
      const logits = known.logits.slice(0, start);
      for (let n = start; n < ids.length; n++) logits.push(await logitsAfter(cache, ids.slice(0, n + 1), signal));
      known = { ids: [...ids], logits };
      return logits;
    });
  }

  /** The same with what happens inside: the attention weights, and what each layer would say. */
  async function traced(ids, lens, signal) {
    const cache = new KVCache();
    const result = { logits: [], maps: model.layers.map(() => []), layers: [] };
    for (const id of ids) {
      const trace = { maps: [], states: [] };
      const logits = model.next(cache, id, trace);
      result.logits.push(logits);
      trace.maps.forEach((heads, layer) => result.maps[layer].push(heads));
      if (lens) result.layers.push([...trace.states.slice(0, -1).map((state, layer) => model.predict(state, cache, layer)), logits]);
      await breathe(signal);
    }
    return result;
  }

  function tokenFields(id, previous) {
    return { id, text: visibleText(tokenizer.tokenBytes(id)), bytes: [...tokenizer.bytesAfter(previous, id)] };
  }

  /** The most likely tokens by `logits`. */
  function alternativesOf(logits, count, previous) {
    const logTotal = logSumExp(logits);
    return mostLikelyIds(logits, count).map((id) => ({ ...tokenFields(id, previous), probability: Math.exp(logits[id] - logTotal) }));
  }

  /** What the model expects by `logits` in the place after `previous`. */
  function expectation(logits, count, previous) {
    return { entropy: entropyOf(logits), alternatives: alternativesOf(logits, count, previous) };
  }

  /** How likely the token `id` was. */
  function score(logits, id) {
    return { surprisal: Math.max(0, logSumExp(logits) - logits[id]), rank: rankOf(logits, id) };
  }

  /** What each layer says of the token `id` by its logits, or of the next token where `id` is null. */
  function lensOf(layers, id, previous) {
    return layers.map((logits, layer) => {
      const own = id === null ? { surprisal: null, rank: null } : score(logits, id);
      return { layer, ...own, top: alternativesOf(logits, 3, previous) };
    });
  }

  return {
    note: file.note,
    hasTrainingText: false, // no counts of it, and no passages

    async models() {
      const layers = model.hasBlocks ? model.layers.length : 0; // of the lens
      const sizes = { kind: file.model.kind, layers, heads: model.layers.length ? file.model.n_heads : 0, parameters: file.parameters };
      return [{ id: file.name, context_length: T, vocab_size: tokenizer.size, chat: false, ...sizes }];
    },

    async analyze(_, { prompt, alternatives = 10, lens = false, attention = false, counts = false, memorized = false, full = false, signal }) {
      const ids = encode(prompt);
      if (ids.length > T) throw new Error(`The text has ${ids.length} tokens, and the model a context of ${T}; give it the last ${T}.`);
      if (lens && !model.hasBlocks) throw new Error(`The model is a ${file.model.kind}, which has no blocks for a lens to look between.`);
      if (attention && !model.layers.length) throw new Error(`The model is a ${file.model.kind}, which has no attention.`);
      const { logits, maps, layers } = lens || attention ? await traced(ids, lens, signal) : { logits: await allLogits(ids, signal) };
      const tokens = ids.map((id, n) => {
        if (n === 0) return { ...tokenFields(id, null), surprisal: null, rank: null, entropy: null, alternatives: null };
        const [before, previous] = [logits[n - 1], ids[n - 1]];
        const seen = { ...tokenFields(id, previous), ...score(before, id), ...expectation(before, alternatives, previous) };
        return lens ? { ...seen, lens: lensOf(layers[n - 1], id, previous) } : seen;
      });
      const [last, after] = [ids.at(-1), logits.at(-1)];
      const next = expectation(after, alternatives, last);
      return {
        object: "analysis",
        model: file.name,
        unit: "nats",
        tokens,
        next: { ...next, ...(lens ? { lens: lensOf(layers.at(-1), null, last) } : {}), ...(full ? { logits: [...after] } : {}) },
        ...(attention ? { attention: maps.map((queries) => byHead(queries, ids.length)) } : {}),
        ...(counts ? { counts_missing: "An exported page does not hold the counts of the training text." } : {}),
        ...(memorized ? { memorized_missing: "An exported page does not hold the training text." } : {}),
      };
    },

    async complete(_, prompt, sampling, { signal, onToken }) {
      const ids = [...encode(prompt)];
      const random = randomNumbers(sampling.seed ?? 0);
      return withCache("complete", async (cache) => {
        for (let count = 0; count < sampling.max_tokens; count++) {
          const logits = await logitsAfter(cache, ids, signal);
          const id = sampling.temperature === 0 ? mostLikely(logits) : drawToken(distribution(logits, sampling, ids).final, random());
          if (id === tokenizer.endoftext) return "end_of_text";
          const previous = ids.at(-1);
          onToken({ ...tokenFields(id, previous), ...score(logits, id), ...expectation(logits, 5, previous) });
          ids.push(id);
        }
        return "length";
      });
    },

    async tokenizations(text) {
      const own = { name: file.tokenizer.kind, tokenizer };
      const all = own.name === "bytes" ? [own] : [own, { name: "bytes", tokenizer: readTokenizer({ kind: "bytes" }) }];
      return all.map(({ name, tokenizer }) => {
        try {
          const ids = tokenizer.encode(text.slice(0, LONGEST_TEXT));
          const bytes = (n) => [...tokenizer.bytesAfter(n ? ids[n - 1] : null, ids[n])];
          return { name, tokens: ids.map((id, n) => ({ id, text: visibleText(tokenizer.tokenBytes(id)), bytes: bytes(n) })) };
        } catch (error) {
          return { name, error: error.message };
        }
      });
    },
  };
}

let lastBreath = 0;

/** Let the page answer its reader from time to time; an aborted `signal` ends the work. */
async function breathe(signal) {
  signal?.throwIfAborted();
  if (performance.now() - lastBreath < PAUSE) return;
  await new Promise((resolve) => setTimeout(resolve));
  lastBreath = performance.now();
  signal?.throwIfAborted();
}

/** ln Σ exp(logit), in nats. */
function logSumExp(logits) {
  const largest = logits[mostLikely(logits)];
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - largest);
  return largest + Math.log(sum);
}

/** 1 for the most likely; of equal tokens the one with the lower id ranks first. */
function rankOf(logits, id) {
  let rank = 1;
  for (let other = 0; other < logits.length; other++) {
    if (logits[other] > logits[id] || (logits[other] === logits[id] && other < id)) rank++;
  }
  return rank;
}

/** -Σ p ln p, in nats. */
function entropyOf(logits) {
  const total = logSumExp(logits);
  let entropy = 0;
  for (const logit of logits) entropy += Math.exp(logit - total) * (total - logit);
  return Math.max(0, entropy);
}

/** Attention weights by query, head and key, as [head][query][key], with 0 for keys after the query. */
function byHead(queries, length) {
  return queries[0].map((_, head) => queries.map((heads) => Array.from({ length }, (_, key) => heads[head][key] ?? 0)));
}
