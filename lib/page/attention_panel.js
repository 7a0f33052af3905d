// Attention: which earlier tokens each head attends to, shaded in the text, and every head of the model as a small picture.
import { Bar } from "./bars.js";
import { arrowKeys, element, percent, tokenText } from "./dom.js";

const MOST_WEIGHTS = 1e6; // numbers that are asked for at once
const MEAN = -1; // of all heads of a layer

/** The panel; `list` is the text whose tokens it shades while it is shown. */
export class AttentionPanel {
  constructor(list) {
    this.id = "attention";
    this.title = "Attention";
    this._list = list;
    this._weights = null;
    this._layer = element("select", { onchange: () => this._choose(Number(this._layer.value), this._headNumber()) });
    this._head = element("select", { onchange: () => this._choose(Number(this._layer.value), this._headNumber()) });
    this._words = element("p", {});
    this._most = element("ol", { class: "bars" });
    this._grid = element("div", { class: "heads", role: "group", "aria-label": "All heads: a row of pictures per layer" });
    arrowKeys(this._grid, () => [...this._grid.children], (at) => this._choose(Math.floor(at / this._heads), at % this._heads), () => this._heads);
    this._chosen = element(
      "div",
      { class: "two" },
      element(
        "div",
        {},
        element("p", { class: "tools" }, element("label", {}, "Layer ", this._layer), element("label", {}, "Head ", this._head)),
        this._words,
        this._most,
      ),
      element("div", {}, element("h3", {}, "All heads: a row per layer; in a picture, a row per query, a column per key"), this._grid),
    );
    this._note = element("p", { class: "quiet" });
    this.element = element("div", {}, this._note, this._chosen);
  }

  async show(page) {
    this._page = page;
    this.hide();
    const { layers, heads } = page.model;
    this._chosen.hidden = true;
    if (!heads) {
      this._note.textContent = "This model has no attention heads.";
      return;
    }
    const limit = Math.max(8, Math.floor(Math.sqrt(MOST_WEIGHTS / (Math.max(1, layers) * heads))));
    const part = await page.part(limit, { attention: true });
    if (!part) return;
    this._weights = part.attention;
    this._tokens = part.tokens;
    this._note.textContent =
      `Point at a token, the query: the darker another token (on a dark screen: the brighter), the more the query attends to it.` +
      (part.cut ? ` Of this text the first ${part.tokens.length} tokens are shown.` : "");
    this._chosen.hidden = false;
    this._heads = this._weights[0].length;
    this._fill(this._weights.length, this._heads);
    this._choose(Number(this._layer.value), this._headNumber());
  }

  hide() {
    this._weights = null;
    this._list.shade(null);
  }

  point() {
    if (!this._weights || this._chosen.hidden) return;
    const query = Math.min(this._page.current, this._tokens.length - 1);
    const weights = this._row(query);
    const largest = Math.max(...weights);
    this._list.shade(weights.map((weight) => Math.sqrt(weight / largest)));
    this._words.replaceChildren(element("q", {}, tokenText(this._tokens[query])), ` (token ${query + 1}) attends to:`);
    const order = weights.map((weight, key) => [weight, key]).sort(([a], [b]) => b - a).slice(0, 6);
    this._most.replaceChildren(
      ...order.map(([weight, key]) => {
        const bar = new Bar(this._tokens[key]);
        return bar.set(weight, `token ${key + 1}: ${percent(weight)}`).row;
      }),
    );
  }

  _headNumber() {
    return this._head.value === "" ? MEAN : Number(this._head.value);
  }

  /** The weights of one query: those of the chosen head, or the mean of its layer's. */
  _row(query) {
    const layer = this._weights[Number(this._layer.value)];
    const head = this._headNumber();
    const rows = head === MEAN ? layer.map((matrix) => matrix[query]) : [layer[head][query]];
    return Array.from({ length: query + 1 }, (_, key) => rows.reduce((sum, row) => sum + row[key], 0) / rows.length);
  }

  _choose(layer, head) {
    this._layer.value = layer;
    this._head.value = head;
    for (const [at, picture] of [...this._grid.children].entries()) {
      const chosen = Math.floor(at / this._heads) === layer && (head === MEAN || at % this._heads === head);
      picture.setAttribute("aria-pressed", String(chosen));
      picture.tabIndex = at === layer * this._heads + Math.max(head, 0) ? 0 : -1;
    }
    this.point();
  }

  _fill(layers, heads) {
    const [layer, head] = [this._layer.value, this._head.value];
    this._layer.replaceChildren(...Array.from({ length: layers }, (_, at) => element("option", { value: at }, String(at + 1))));
    this._head.replaceChildren(
      element("option", { value: MEAN }, "mean of all"),
      ...Array.from({ length: heads }, (_, at) => element("option", { value: at }, String(at + 1))),
    );
    this._layer.value = Number(layer) < layers ? layer || "0" : "0";
    this._head.value = head !== "" && Number(head) < heads ? head : String(MEAN);
    this._grid.style.gridTemplateColumns = `repeat(${heads}, minmax(1.5rem, 8rem))`;
    const color = getComputedStyle(this._grid).color.match(/[\d.]+/g).map(Number);
    this._grid.replaceChildren(
      ...this._weights.flatMap((matrices, l) =>
        matrices.map((matrix, h) => {
          const canvas = element("canvas", { width: matrix.length, height: matrix.length, "aria-hidden": "true" });
          drawMatrix(canvas, matrix, color);
          return element("button", { class: "head", "aria-label": `layer ${l + 1}, head ${h + 1}`, onclick: () => this._choose(l, h) }, canvas);
        }),
      ),
    );
  }
}

/** Draw a (T, T) matrix of weights, a pixel per weight, in a color that is as opaque as the weight's square root. */
function drawMatrix(canvas, matrix, [red, green, blue]) {
  const size = matrix.length;
  const context = canvas.getContext("2d");
  const image = context.createImageData(size, size);
  matrix.forEach((row, query) =>
    row.forEach((weight, key) => image.data.set([red, green, blue, 255 * Math.sqrt(weight)], 4 * (query * size + key))),
  );
  context.putImageData(image, 0, 0);
}
