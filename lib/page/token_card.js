// What the model thought of one token: its probability and rank, the entropy, what it expected instead, and the counts' opinion.
import { Bar, showRows } from "./bars.js";
import { count, element, hexadecimal, natsAndBits, percent, tokenText } from "./dom.js";

const MOST_EXPECTED = 10;

/**
 * The card of a token, or of the place after the last one. `onAlternative(index, alternative)` is called for a click on one of
 * the tokens that the model expected in its place.
 */
export class TokenCard {
  constructor(node, title, onAlternative) {
    this._title = title;
    this._onAlternative = onAlternative;
    this._facts = element("dl", { class: "facts" });
    this._words = element("h3");
    this._bars = element("ol", { class: "bars" });
    node.append(this._facts, this._words, this._bars);
  }

  /** Show the token `index` of an analysis by a model with `vocabSize` tokens; `index` = number of tokens: the next one. */
  show(analysis, index, vocabSize) {
    const isNext = index >= analysis.tokens.length;
    const token = isNext ? (analysis.next ?? {}) : analysis.tokens[index];
    this._title.replaceChildren(isNext ? "The next token" : "Token ", isNext ? "" : element("q", {}, tokenText(token)));
    const facts = isNext ? [] : tokenFacts(token, index, analysis.tokens.length, vocabSize);
    if (typeof token.entropy === "number") facts.push(["Entropy", natsAndBits(token.entropy)]);
    if (token.counts) facts.push(countsFact(token));
    else if (analysis.counts_missing && !isNext) facts.push(["Counts", analysis.counts_missing]);
    this._facts.replaceChildren(...facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
    this._showAlternatives(token, index, isNext);
  }

  /** Move the focus to the first alternative. */
  focus() {
    this._bars.querySelector("button")?.focus();
  }

  _showAlternatives(token, index, isNext) {
    const alternatives = token.alternatives ?? [];
    const isFirst = index === 0 && !isNext;
    this._words.textContent = isFirst ? "Nothing stands before the first token, so the model does not predict it." : "";
    if (alternatives.length) this._words.textContent = "Alternatives; choose one to continue from it";
    const bars = alternatives.slice(0, MOST_EXPECTED).map((alternative) => {
      const { probability, id } = alternative;
      const bar = new Bar(alternative, { own: !isNext && id === token.id, onclick: () => this._onAlternative(index, alternative) });
      return bar.set(probability, percent(probability)).row;
    });
    showRows(this._bars, bars);
  }
}

function tokenFacts(token, index, length, vocabSize) {
  const bytes = hexadecimal(token.bytes) || "none";
  const position = ["Position", `${count(index + 1)} of ${count(length)}; id ${count(token.id)}; bytes ${bytes}`];
  if (typeof token.surprisal !== "number") return [position];
  return [
    ["Probability", element("strong", {}, percent(Math.exp(-token.surprisal)))],
    ["Rank", `${count(token.rank)} of ${count(vocabSize)}`],
    ["Surprisal", natsAndBits(token.surprisal)],
    position,
  ];
}

function countsFact({ surprisal, counts }) {
  const difference = counts.surprisal - surprisal;
  const verdict = Math.abs(difference) < 0.005 ? "as the model" : difference > 0 ? "the model is better" : "the counts are better";
  return [counts.name, `${percent(Math.exp(-counts.surprisal))}, ${counts.surprisal.toFixed(2)} nats: ${verdict}`];
}
