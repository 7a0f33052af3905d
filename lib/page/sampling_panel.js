// How the next token is sampled: sliders for temperature, top-k, top-p and min-p, and the distribution that they leave.
import { Bar, showRows } from "./bars.js";
import { count, element, natsAndBits, percent } from "./dom.js";
import { distribution } from "./sampling.js";

const TOP_K = [1, 2, 3, 5, 10, 20, 50, 100, 200, 500, null]; // null: off

/** The sliders, in this order: what a position means, which position means a value. */
const SLIDERS = {
  temperature: { title: "Temperature", min: 0.1, max: 2, step: 0.05, start: 1, value: Number, position: Number },
  top_k: { title: "Top-k", min: 0, max: TOP_K.length - 1, step: 1, start: TOP_K.length - 1, value: (at) => TOP_K[at], position: nearestTopK },
  top_p: { title: "Top-p", min: 0.05, max: 1, step: 0.01, start: 1, value: (p) => (Number(p) === 1 ? null : Number(p)), position: Number },
  min_p: { title: "Min-p", min: 0, max: 0.5, step: 0.01, start: 0, value: (p) => (Number(p) === 0 ? null : Number(p)), position: Number },
};

const FILTERS = { greedy: "greedy", top_k: "top-k", top_p: "top-p", min_p: "min-p" };

/**
 * The panel; `onChange()` is called when a setting changes, `onPick(alternative)` when a token is chosen. `greedy` and `most` are
 * the inputs of the page for greedy sampling and for the number of tokens.
 */
export class SamplingPanel {
  constructor({ onChange, onPick, greedy, most }) {
    this.id = "sampling";
    this.title = "Next token";
    this._onPick = onPick;
    this._greedy = greedy;
    this._most = most;
    this._analysis = null;
    this._rows = [];
    this._inputs = {};
    this._outputs = {};
    const moved = () => {
      this._draw();
      onChange();
    };
    const sliders = Object.entries(SLIDERS).map(([name, { title, min, max, step, start }]) => {
      const input = element("input", { type: "range", id: name, min, max, step, value: start, oninput: moved });
      const output = element("output", { for: name });
      [this._inputs[name], this._outputs[name]] = [input, output];
      return element("div", { class: "slider" }, element("label", { for: name }, title), output, input);
    });
    this._seed = element("input", { type: "number", id: "seed", min: 0, max: 2 ** 31, step: 1, value: 0, oninput: moved });
    const another = element("button", { onclick: () => ((this._seed.value = Math.floor(Math.random() * 10000)), moved()) }, "Another seed");
    this._summary = element("p", { class: "quiet" });
    this._bars = element("ol", { class: "bars" });
    this.element = element(
      "div",
      { class: "two" },
      element("div", {}, ...sliders, element("p", { class: "tools" }, element("label", {}, "Seed ", this._seed), another), this._summary),
      element("div", {}, element("h3", {}, "Can be sampled; choose one to add it"), this._bars),
    );
    greedy.addEventListener("change", moved);
    most.addEventListener("change", moved);
  }

  /** The sampling parameters, as fields of a request. */
  get sampling() {
    const values = Object.entries(SLIDERS).map(([name, { value }]) => [name, value(this._inputs[name].value)]);
    const seed = Math.max(0, Math.floor(Number(this._seed.value)) || 0);
    const sampling = { ...Object.fromEntries(values), seed, max_tokens: Math.max(1, Math.floor(Number(this._most.value)) || 1) };
    return this._greedy.checked ? { ...sampling, temperature: 0 } : sampling;
  }

  /** Move the sliders to the values that `settings` gave, a URLSearchParams; the others to where the page begins. */
  restore(settings) {
    for (const [name, { position, start }] of Object.entries(SLIDERS)) {
      this._inputs[name].value = settings.has(name) ? position(Number(settings.get(name))) : start;
    }
    this._seed.value = settings.get("seed") ?? 0;
    this._most.value = settings.get("max_tokens") ?? this._most.defaultValue;
    this._greedy.checked = settings.has("greedy");
    this._draw();
  }

  /** The values that differ from those where the page begins, as pairs. */
  settings() {
    const moved = Object.entries(SLIDERS).filter(([name, { start }]) => Number(this._inputs[name].value) !== start);
    const entries = moved.map(([name, { value }]) => [name, String(value(this._inputs[name].value))]);
    if (Number(this._seed.value)) entries.push(["seed", this._seed.value]);
    if (this._most.value !== this._most.defaultValue) entries.push(["max_tokens", this._most.value]);
    if (this._greedy.checked) entries.push(["greedy", "1"]);
    return entries;
  }

  /** Draw the distribution after the text of the page. */
  show(page) {
    this._analysis = page.analysis;
    this._rows = (page.analysis?.next?.alternatives ?? []).map((alternative) => ({
      ...alternative,
      bar: new Bar(alternative, { faint: true, onclick: () => this._onPick(alternative) }),
    }));
    showRows(
      this._bars,
      this._rows.map(({ bar }) => bar.row),
    );
    this._draw();
  }

  point() {}

  _draw() {
    const sampling = this.sampling;
    for (const [name, { step, value }] of Object.entries(SLIDERS)) {
      const setting = value(this._inputs[name].value);
      const text = setting === null ? "off" : step < 1 ? setting.toFixed(2) : String(setting);
      this._outputs[name].textContent = text;
      this._inputs[name].setAttribute("aria-valuetext", text);
      this._inputs[name].disabled = this._greedy.checked;
    }
    const logits = this._analysis?.next?.logits;
    if (!logits) return;
    const { own, final, removed } = distribution(logits, sampling);
    const widest = Math.max(own.reduce(larger, 0), final.reduce(larger, 0));
    for (const { id, bar } of this._rows) {
      const words = removed[id] ? `filtered out: ${FILTERS[removed[id]]}` : percent(final[id]);
      bar.set(final[id] / widest, words, { faint: own[id] / widest, removed: Boolean(removed[id]) });
    }
    this._summary.textContent = summary(own, final, removed);
  }
}

function nearestTopK(k) {
  const distances = TOP_K.map((value) => (value === null ? Infinity : Math.abs(value - k)));
  return distances.indexOf(Math.min(...distances));
}

function larger(a, b) {
  return Math.max(a, b);
}

/** How many tokens are left, what the filters cut off, the entropy of both. */
function summary(own, final, removed) {
  const left = removed.filter((reason) => !reason).length;
  const cut = own.reduce((sum, p, id) => (removed[id] ? sum + p : sum), 0);
  const others = left < own.length ? `; the others have ${percent(cut)} of the model's probability` : "";
  return (
    `${count(left)} of ${count(own.length)} tokens can be sampled${others}. Entropy of what is sampled: ${natsAndBits(entropy(final))}; ` +
    `of the model: ${natsAndBits(entropy(own))}. A pale bar is the model's own probability.`
  );
}

function entropy(probabilities) {
  return Math.abs(probabilities.reduce((sum, p) => (p > 0 ? sum - p * Math.log(p) : sum), 0));
}
