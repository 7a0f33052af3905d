// The backend of the exported page: the model is in the page, and every number is computed here.

import { GPT, Text } from "./gpt.js";
import { distribution, drawToken, mostLikely, randomNumbers, ranked } from "./sampling.js";
import { readTokenizer, visibleText } from "./tokenizer.js";

const LONGEST_TEXT = 20000; // characters: the merges of one word take time that grows with the square of its length
const PAUSE = 12; // milliseconds of computing between two moments for the page

/** The functions of the page's backend (see server.js), for the one model that `file` describes.
 *
 * `file`: {name, parameters, model, tokenizer, note}, the section `model` of a config.json and a tokenizer for `readTokenizer`.
 */
export function localBackend(file, tensors) {
  const model = new GPT(file.model, tensors);
  const tokenizer = readTokenizer(file.tokenizer);
  const T = file.model.context_length;
  let lastText = new Text(); // its keys and values serve a text that begins alike

  function encode(prompt) {
    if (Array.isArray(prompt)) {
      const id = prompt.find((id) => !(Number.isInteger(id) && id >= 0 && id < tokenizer.size));
      if (id !== undefined) throw new Error(`The id ${id} is not in the vocabulary of ${tokenizer.size} tokens, 0 to ${tokenizer.size - 1}.`);
      return prompt;
    }
    if (prompt.length > LONGEST_TEXT) throw new Error(`The text has ${prompt.length} characters; this page takes up to ${LONGEST_TEXT}.`);
    const ids = tokenizer.encode(prompt);
    return ids.length ? ids : tokenizer.defaultPrompt();
  }

  /** The logits of the token after `ids`; beyond the context the last T of them are read anew, as in `generate`. */
  async function logitsAfter(text, ids, signal) {
    const window = ids.slice(-T);
    text.keepPrefix(window);
    let logits;
    for (const id of window.slice(text.ids.length)) {
      logits = model.next(text, id);
      await breathe(signal);
    }
    return logits;
  }

  function described(id, previous) {
    return { id, text: visibleText(tokenizer.tokenBytes(id)), bytes: [...tokenizer.bytesAfter(previous, id)] };
  }

  /** The most likely tokens by `logits`. */
  function likeliest(logits, count, previous) {
    const logTotal = logSumExp(logits);
    return Array.from(ranked(logits).slice(0, count), (id) => ({ ...described(id, previous), probability: Math.exp(logits[id] - logTotal) }));
  }

  /** What the model expected in the place of the token `id`. */
  function score(logits, id, count, previous) {
    return {
      surprisal: logSumExp(logits) - logits[id],
      rank: rankOf(logits, id),
      entropy: entropyOf(logits),
      alternatives: likeliest(logits, count, previous),
    };
  }

  /** What each layer says of the token `id` by its logits, or of the next token where `id` is null. */
  function lensOf(layers, id, previous) {
    return layers.map((logits, layer) => {
      const own = id === null ? { surprisal: null, rank: null } : { surprisal: logSumExp(logits) - logits[id], rank: rankOf(logits, id) };
      return { layer, ...own, top: likeliest(logits, 3, previous) };
    });
  }

  return {
    note: file.note,
    hasTrainingText: false, // neither for counts nor for memorized passages

    async models() {
      const layers = model.hasBlocks ? model.layers.length : 0; // of the lens
      const facts = { kind: file.model.kind, layers, heads: model.layers.length ? file.model.n_heads : 0, parameters: file.parameters };
      return [{ id: file.name, context_length: T, vocab_size: tokenizer.size, chat: false, ...facts }];
    },

    async analyze(_, { prompt, alternatives = 10, lens = false, attention = false, counts = false, memorized = false, full = false, signal }) {
      const ids = encode(prompt);
      if (ids.length > T && (lens || attention)) {
        throw new Error(`The text has ${ids.length} tokens, and the context of the model ${T}; the lens and attention need it in one window.`);
      }
      if (lens && !model.hasBlocks) throw new Error(`The model is a ${file.model.kind}, which has no blocks for a lens to look between.`);
      if (attention && !model.layers.length) throw new Error(`The model is a ${file.model.kind}, which has no attention.`);
      let text;
      const tokens = [];
      const maps = model.layers.map(() => []);
      let logits = null;
      let layers = [];
      for (const [n, id] of ids.entries()) {
        const previous = n ? ids[n - 1] : null;
        const entry = { ...described(id, previous), surprisal: null, rank: null, entropy: null, alternatives: null };
        if (n) Object.assign(entry, score(logits, id, alternatives, previous), lens ? { lens: lensOf(layers, id, previous) } : {});
        tokens.push(entry);
        if (n % T === 0) text = new Text(); // a longer text is read in windows that touch, as by `evaluate`
        const trace = lens || attention ? { maps: [], states: [] } : null;
        logits = model.next(text, id, trace);
        if (lens) layers = trace.states.map((state, layer) => (layer < model.layers.length ? model.predict(state, text, layer) : logits));
        trace?.maps.forEach((heads, layer) => maps[layer].push(heads));
        await breathe(signal);
      }
      if (ids.length > T) logits = await logitsAfter(new Text(), ids, signal);
      const last = ids.at(-1);
      const next = { entropy: entropyOf(logits), alternatives: likeliest(logits, alternatives, last) };
      return {
        object: "analysis",
        model: file.name,
        unit: "nats",
        tokens,
        next: { ...next, ...(lens ? { lens: lensOf(layers, null, last) } : {}), ...(full ? { logits: [...logits] } : {}) },
        ...(attention ? { attention: maps.map((queries) => byHead(queries, ids.length)) } : {}),
        ...(counts ? { counts_missing: "An exported page does not hold the counts of the training text." } : {}),
        ...(memorized ? { memorized_missing: "An exported page does not hold the training text." } : {}),
      };
    },

    async complete(_, prompt, sampling, { signal, onToken }) {
      const ids = [...encode(prompt)];
      const random = randomNumbers(sampling.seed ?? 0);
      const text = lastText;
      lastText = new Text(); // another completion may begin while this one waits
      try {
        for (let count = 0; count < sampling.max_tokens; count++) {
          const logits = await logitsAfter(text, ids, signal);
          const id = sampling.temperature === 0 ? mostLikely(logits) : drawToken(distribution(logits, sampling, ids).final, random());
          if (id === tokenizer.endoftext) return "end_of_text";
          const previous = ids.at(-1);
          onToken({ ...described(id, previous), ...score(logits, id, 5, previous) });
          ids.push(id);
        }
      } finally {
        lastText = text;
      }
      return "length";
    },

    async tokenizations(text) {
      const all = [{ name: file.tokenizer.kind, tokenizer }, { name: "bytes", tokenizer: readTokenizer({ kind: "bytes" }) }];
      const shown = file.tokenizer.kind === "bytes" ? all.slice(1) : all;
      const spelled = (tokenizer, id) => ({ id, text: visibleText(tokenizer.tokenBytes(id)), bytes: [...tokenizer.tokenBytes(id)] });
      return shown.map(({ name, tokenizer }) => {
        try {
          return { name, tokens: tokenizer.encode(text.slice(0, LONGEST_TEXT)).map((id) => spelled(tokenizer, id)) };
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
  return entropy;
}

/** Attention weights by query, head and key, as [head][query][key], with 0 for keys after the query. */
function byHead(queries, length) {
  return queries[0].map((_, head) => queries.map((heads) => Array.from({ length }, (_, key) => heads[head][key] ?? 0)));
}
