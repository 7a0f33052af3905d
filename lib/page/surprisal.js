// Levels of surprisal: the same as in the report and in `plot tokens` (lib/report/surprisal.py), with the same colors.
import { count, element, meanSurprisal, natsAndBits } from "./dom.js";

/** The lowest probability of each level, from 0 on; what is less likely than the last has level 5. */
export const SURPRISAL_LEVELS = [0.5, 0.2, 0.05, 0.01, 0.001];

/** 0, expected, to 5, less likely than one in a thousand. */
export function surprisalLevel(nats) {
  return SURPRISAL_LEVELS.filter((probability) => nats > -Math.log(probability)).length;
}

/** How well a model expects a text on average, in words. */
export function surprisalSummary(tokens) {
  const mean = meanSurprisal(tokens);
  if (!mean) return "";
  const perplexity = count(Number(Math.exp(mean.nats).toPrecision(3)));
  return `${count(tokens.length)} tokens; on average ${natsAndBits(mean.nats)} per token, ${mean.bits.toFixed(2)} bits/byte, perplexity ${perplexity}`;
}

/**
 * Which of two models expects a text better, by their tokens of the same bytes: the difference of the second minus the first in
 * bits/byte and its standard error, over the pieces of the text that both have borders around; null if there are too few.
 */
export function compareSurprisal(first, second) {
  const [a, b] = [bitsByBorder(first), bitsByBorder(second)];
  const borders = [...a.keys()].filter((border) => b.has(border));
  const differences = borders.slice(1).map((border, at) => b.get(border) - b.get(borders[at]) - a.get(border) + a.get(borders[at]));
  const bytes = borders.at(-1) - borders[0];
  if (differences.length < 2 || !(bytes > 0)) return null;
  const sum = differences.reduce((total, difference) => total + difference, 0);
  const mean = sum / differences.length;
  const variance = differences.reduce((total, difference) => total + (difference - mean) ** 2, 0) / (differences.length - 1);
  return { difference: sum / bytes, error: Math.sqrt(differences.length * variance) / bytes };
}

/** The bits of all tokens up to each border after the first token, by the number of bytes before the border. */
function bitsByBorder(tokens) {
  let [bytes, bits] = [0, 0];
  return new Map(
    tokens.map((token) => {
      bytes += token.bytes.length;
      bits += (token.surprisal ?? 0) / Math.LN2;
      return [bytes, bits];
    }),
  );
}

/** The legend: each level with its probabilities, in percent, nats and bits. */
export function surprisalLegend() {
  const rows = [...SURPRISAL_LEVELS, null].map((probability, level) => {
    const words = level === 0 ? "over 50 %" : probability === null ? "less" : `to ${100 * probability} %`;
    const edge = probability ?? SURPRISAL_LEVELS.at(-1);
    const sign = probability === null ? ">" : "≤";
    const nats = `${sign} ${(-Math.log(edge)).toFixed(1)} nats`;
    return element(
      "li",
      {},
      element("span", { class: `swatch s${level}` }, words),
      element("small", {}, nats, element("br"), `${sign} ${(-Math.log2(edge)).toFixed(1)} bits`),
    );
  });
  return element("ul", { class: "legend", "aria-label": "Colors: the probability of a token, its surprisal" }, ...rows);
}
