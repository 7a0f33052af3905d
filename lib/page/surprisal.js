// Levels of surprisal: the same as in the report and in `plot tokens` (lib/report/surprisal.py), with the same colors.
import { element } from "./dom.js";

/** The lowest probability of each level, from 0 on; what is less likely than the last has level 5. */
export const SURPRISAL_LEVELS = [0.5, 0.2, 0.05, 0.01, 0.001];

/** 0, expected, to 5, less likely than one in a thousand. */
export function surprisalLevel(nats) {
  return SURPRISAL_LEVELS.filter((probability) => nats > -Math.log(probability)).length;
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
