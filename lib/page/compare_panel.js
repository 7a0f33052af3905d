// Two models side by side: the same text read by both, and continued by both with the same settings and the same seed.
import { count, element, lineText, meanSurprisal, percent } from "./dom.js";
import { TokenList } from "./token_list.js";

/** The panel. */
export class ComparePanel {
  constructor() {
    this.id = "compare";
    this.title = "Side by side";
    this._other = element("select", { id: "other", onchange: () => this.show(this._page) });
    this._run = element("button", { class: "main", onclick: () => (this._stop ? this._stop.abort() : this._continue()) }, "Continue both");
    this._columns = [0, 1].map(() => new Column());
    this._verdict = element("p", { role: "status" });
    this._stop = null;
    this.element = element(
      "div",
      {},
      element("p", { class: "tools" }, element("label", {}, "Compare with ", this._other), this._run),
      this._verdict,
      element("div", { class: "two" }, ...this._columns.map((column) => column.element)),
    );
  }

  async show(page) {
    this._page = page;
    this._offer(page);
    if (this._stop || page.text === "") return;
    const models = [page.model, page.models.find(({ id }) => id === this._other.value)];
    const answers = await page.questions.ask((signal) =>
      Promise.all(models.map(({ id }) => page.backend.analyze(id, { prompt: page.text, alternatives: 1, signal }))),
    );
    if (!answers) return;
    answers.forEach((analysis, side) => this._columns[side].show(models[side].id, analysis.tokens));
    this._compare();
  }

  point() {}

  hide() {
    this._stop?.abort();
  }

  /** All models but the one of the page. */
  _offer({ models, model }) {
    const others = models.filter(({ id }) => id !== model.id).map(({ id }) => id);
    const chosen = others.includes(this._other.value) ? this._other.value : others[0];
    this._other.replaceChildren(...others.map((id) => element("option", { value: id }, id)));
    this._other.value = chosen;
  }

  /** Which of the two expects the text better, per byte, since their tokens may differ. */
  _compare() {
    const bits = this._columns.map(({ tokens }) => meanSurprisal(tokens)?.bits);
    const names = this._columns.map(({ name }) => name);
    if (bits.some((value) => !Number.isFinite(value))) {
      this._verdict.textContent = "";
      return;
    }
    const better = bits[0] <= bits[1] ? 0 : 1;
    this._verdict.textContent = `${names[better]} expects this text better, by ${Math.abs(bits[0] - bits[1]).toFixed(2)} bits/byte.`;
  }

  async _continue() {
    const page = this._page;
    if (page.text === "") return;
    this._stop = new AbortController();
    this._run.textContent = "Stop";
    this._verdict.textContent = "";
    const text = page.text;
    const tasks = this._columns.map(async (column) => {
      let first = true;
      const onToken = (token) => {
        if (!token.end_of_text) column.add(token, first);
        first = false;
      };
      await page.backend.complete(column.name, text, page.sampling, { signal: this._stop.signal, onToken });
    });
    for (const { reason } of await Promise.allSettled(tasks)) if (reason) page.questions.report(reason);
    this._stop = null;
    this._run.textContent = "Continue both";
  }
}

/** One model's half: its name, the tokens as it sees them, the one pointed at in words. */
class Column {
  constructor() {
    this.tokens = [];
    this.name = "";
    this._title = element("h3");
    this._list = new TokenList("Tokens", (index) => this._point(index));
    this._words = element("p", { class: "quiet" });
    this.element = element("section", {}, this._title, this._list.element, this._words);
  }

  show(name, tokens) {
    this.name = name;
    this.tokens = [...tokens];
    this._title.textContent = name;
    this._list.element.setAttribute("aria-label", `Tokens as ${name} sees them`);
    this._list.show(tokens);
    this._point(null);
  }

  add(token, first) {
    this.tokens.push(token);
    this._list.add(token, first);
    this._point(null);
  }

  _point(index) {
    const token = this.tokens[index];
    const mean = meanSurprisal(this.tokens);
    if (token && typeof token.surprisal === "number") {
      this._words.textContent = `${lineText(token.text)}: ${percent(Math.exp(-token.surprisal))}, rank ${count(token.rank)}`;
    } else {
      this._words.textContent = mean ? `${count(this.tokens.length)} tokens, ${mean.nats.toFixed(2)} nats/token, ${mean.bits.toFixed(2)} bits/byte` : "";
    }
  }
}
