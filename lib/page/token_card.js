// What the model thought of one token: its probability and rank, the entropy, what it expected instead, and the counts' opinion.
import { Bar } from "./bars.js";
import { count, element, hexadecimal, lineText, natsAndBits, percent } from "./dom.js";

const MOST_EXPECTED = 10;

/**
 * The card of a token, or of the place after the last one. `onAlternative(index, alternative)` is called for a click on one of
 * the tokens that the model expected in its place.
 */
export class TokenCard {
  constructor(node, title, onAlternative) {
    this._node = node;
    this._title = title;
    this._onAlternative = onAlternative;
  }

  /** Show the token `index` of an analysis of `vocabSize` tokens; `index` = number of tokens: the next one. */
  show(analysis, index, vocabSize) {
    const isNext = index >= analysis.tokens.length;
    const token = isNext ? (analysis.next ?? {}) : analysis.tokens[index];
    this._title.replaceChildren(isNext ? "The next token" : "Token ", isNext ? "" : element("q", {}, lineText(token.text)));
    const rows = isNext ? [] : tokenRows(token, index, analysis.tokens.length, vocabSize);
    if (typeof token.entropy === "number") rows.push(["Entropy before it", natsAndBits(token.entropy)]);
    if (token.counts) rows.push(countsRow(token));
    else if (analysis.counts_missing && !isNext) rows.push(["Counts", analysis.counts_missing]);
    this._node.replaceChildren(
      element("dl", { class: "facts" }, ...rows.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)))),
      ...this._alternatives(token, index, isNext),
    );
  }

  /** Move the focus to the first alternative. */
  focus() {
    this._node.querySelector("button")?.focus();
  }

  _alternatives(token, index, isNext) {
    if (!token.alternatives?.length) {
      return [element("p", { class: "quiet" }, index === 0 && !isNext ? "Nothing stands before the first token, so the model does not predict it." : "")];
    }
    const rows = token.alternatives.slice(0, MOST_EXPECTED).map((alternative) => {
      const { text, probability, id } = alternative;
      const bar = new Bar(text, { own: !isNext && id === token.id, onclick: () => this._onAlternative(index, alternative) });
      return bar.set(probability, percent(probability)).row;
    });
    const words = isNext ? "Expected; choose one to continue from it" : "Expected here; choose one to continue from it";
    return [element("h3", {}, words), element("ol", { class: "bars" }, ...rows)];
  }
}

function tokenRows(token, index, length, vocabSize) {
  const bytes = hexadecimal(token.bytes) || "none";
  const rows = [["Place", `${count(index + 1)} of ${count(length)}; id ${count(token.id)}; bytes ${bytes}`]];
  if (typeof token.surprisal !== "number") return rows;
  rows.unshift(["Probability", element("strong", {}, percent(Math.exp(-token.surprisal)))]);
  rows.splice(1, 0, ["Rank", `${count(token.rank)} of ${count(vocabSize)}`], ["Surprisal", natsAndBits(token.surprisal)]);
  return rows;
}

function countsRow({ surprisal, counts }) {
  const difference = counts.surprisal - surprisal;
  const verdict = Math.abs(difference) < 0.005 ? "as the model" : difference > 0 ? "the model is better" : "the counts are better";
  return [counts.name, `${percent(Math.exp(-counts.surprisal))}, ${counts.surprisal.toFixed(2)} nats: ${verdict}`];
}
