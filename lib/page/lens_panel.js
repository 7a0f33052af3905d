// The logit lens (nostalgebraist 2020): what the model would predict if it stopped after each layer.
import { element, percent, tokenText } from "./dom.js";

const MOST_TOKENS = 256; // that are asked for
const MOST_LOGITS = 2 ** 27; // that a server computes for them
const COLUMNS = 32; // that are shown at once

/** The panel. */
export class LensPanel {
  constructor() {
    this.id = "lens";
    this.title = "Logit lens";
    this._note = element("p", { class: "quiet" });
    this._table = element("table", { class: "lens" });
    this._detail = element("p", {});
    this.element = element("div", {}, this._note, element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Logit lens" }, this._table), this._detail);
  }

  async show(page) {
    this._page = page;
    this._places = null;
    this._table.replaceChildren();
    if (!page.model.layers) {
      this._note.textContent = "This model has no layers to look into.";
      return;
    }
    const { layers, vocab_size } = page.model;
    const most = Math.max(1, Math.min(MOST_TOKENS, Math.floor(MOST_LOGITS / ((layers + 1) * vocab_size))));
    const part = await page.part(most, { lens: true });
    if (!part) return;
    const places = part.tokens.map((token, index) => ({ ...token, index })).filter((token) => token.lens);
    if (part.next?.lens && !part.cut) places.push({ ...part.next, text: "?", index: part.tokens.length });
    if (places.length === 0) {
      this._note.textContent = "There is nothing to predict yet: the first token has nothing before it. Write more.";
      return;
    }
    this._places = places;
    this._note.textContent =
      "A row is a layer, the last on top; a cell holds the token that the model would predict there if it stopped after that layer, shaded by its " +
      `probability. Framed: the token that actually follows.${part.cut ? ` Of this text the first ${part.tokens.length} tokens are shown.` : ""}`;
    this._first = null;
    this.point();
  }

  point() {
    if (!this._places) return;
    const at = this._places.findIndex(({ index }) => index === this._page.current);
    const current = at < 0 ? this._places.length - 1 : at;
    const last = this._places.length - COLUMNS;
    const first = Math.max(0, Math.min(last, current - Math.floor(COLUMNS / 2)));
    if (first !== this._first) this._draw(first);
    for (const cell of this._table.querySelectorAll(".current")) cell.classList.remove("current");
    for (const cell of this._table.querySelectorAll(`[data-place="${current}"]`)) cell.classList.add("current");
    this._scroll(this._table.querySelector(`th[data-place="${current}"]`));
    this._say(this._places[current]);
  }

  /** Scroll the table, and nothing else, so that the column of `cell` is seen. */
  _scroll(cell) {
    const box = this._table.parentNode;
    const names = this._table.querySelector("th").offsetWidth; // which stay at the left
    if (cell.offsetLeft < box.scrollLeft + names) box.scrollLeft = cell.offsetLeft - names;
    const right = cell.offsetLeft + cell.offsetWidth;
    if (right > box.scrollLeft + box.clientWidth) box.scrollLeft = right - box.clientWidth;
  }

  _draw(first) {
    this._first = first;
    const shown = this._places.slice(first, first + COLUMNS);
    const layers = shown[0].lens.map(({ layer }) => layer).reverse();
    const head = element("tr", {}, element("th", { scope: "col" }, "layer"), ...shown.map((place, at) => element("th", { scope: "col", "data-place": first + at }, element("code", {}, tokenText(place)))));
    const rows = layers.map((layer, row) =>
      element(
        "tr",
        {},
        element("th", { scope: "row" }, rowName(layer, row === 0)),
        ...shown.map((place, at) => {
          const entry = place.lens[layers.length - 1 - row];
          const cell = element("td", { "data-place": first + at, class: entry.rank === 1 ? "right" : null }, element("code", {}, tokenText(entry.top[0])));
          cell.style.setProperty("--weight", `${Math.round(100 * entry.top[0].probability)}%`);
          return cell;
        }),
      ),
    );
    this._table.replaceChildren(
      element("caption", { class: "unseen" }, "Logit lens: the most likely token by layer"),
      element("thead", {}, head),
      element("tbody", {}, ...rows),
    );
  }

  /** In words: from which layer on the token that follows is the first. */
  _say(place) {
    const { lens } = place;
    const expected = lens.map(({ layer, top, rank }) => ({ layer, rank, top: top[0] }));
    const wrong = expected.findLastIndex(({ rank }) => rank !== undefined && rank !== null && rank !== 1);
    const last = expected.at(-1);
    const best = `After the last layer: ${tokenText(last.top)}, ${percent(last.top.probability)}.`;
    let words = best;
    if (last.rank === 1) words = `${tokenText(place)} is the first choice from ${layerName(expected[wrong + 1].layer)} on. ${best}`;
    else if (last.rank) words = `${tokenText(place)} has rank ${last.rank} after the last layer. ${best}`;
    this._detail.textContent = words;
  }
}

function layerName(layer) {
  return layer === 0 ? "the embeddings" : `layer ${layer}`;
}

function rowName(layer, isLast) {
  if (layer === 0) return "embeddings";
  return isLast ? `${layer}, output` : String(layer);
}
