// Two models side by side: the same text read by both, and continued by both with the same settings and the same seed.
import { count, element, meanSurprisal, percent, tokenText } from "./dom.js";
import { compareSurprisal } from "./surprisal.js";
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
    this._stop = null; // ends the texts that are being written
    this._read = null; // the text, who read it, and what they said
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
    this.hide();
    const { text } = page;
    if (text === "") return;
    const names = [page.model.id, this._other.value];
    const answers = await page.questions.ask((signal) =>
      Promise.allSettled(names.map((id) => page.backend.analyze(id, { prompt: text, alternatives: 1, signal }))),
    );
    if (!answers) return;
    this._read = { text, names, answers };
    this._showRead();
    this._verdict.textContent = verdict(names, answers);
  }

  point() {}

  hide() {
    this._stop?.abort();
    this._read = null;
  }

  /** All models but the one of the page. */
  _offer({ models, model }) {
    const others = models.filter(({ id }) => id !== model.id).map(({ id }) => id);
    const chosen = others.includes(this._other.value) ? this._other.value : others[0];
    this._other.replaceChildren(...others.map((id) => element("option", { value: id }, id)));
    this._other.value = chosen;
  }

  /** The text as it was read, without what was written. */
  _showRead() {
    const { names, answers } = this._read;
    this._columns.forEach((column, side) => column.show(names[side], answers[side]));
  }

  async _continue() {
    if (!this._read) return; // the text is being read
    const { questions, backend, sampling } = this._page;
    const { text, names } = this._read;
    const stop = (this._stop = new AbortController());
    this._run.textContent = "Stop";
    this._showRead();
    const tasks = this._columns.map((column, side) => {
      let isFirst = true;
      const onToken = (token) => {
        if (!stop.signal.aborted && !token.end_of_text) column.add(token, isFirst);
        isFirst = false;
      };
      return backend.complete(names[side], text, sampling, { signal: stop.signal, onToken });
    });
    for (const { reason } of await Promise.allSettled(tasks)) if (reason) questions.report(reason);
    if (this._stop !== stop) return;
    this._stop = null;
    this._run.textContent = "Continue both";
  }
}

/** Which of two models expects the text better, if the difference is more than two standard errors. */
function verdict(names, answers) {
  const tokens = answers.map(({ value }) => value?.tokens ?? []);
  const compared = compareSurprisal(...tokens);
  if (!compared) return "";
  const { difference, error } = compared;
  const words = `${Math.abs(difference).toFixed(2)} ± ${error.toFixed(2)} bits/byte`;
  if (Math.abs(difference) < 2 * error) return `The difference, ${words}, is not significant.`;
  return `${names[difference > 0 ? 0 : 1]} expects this text better, by ${words}.`;
}

/** One model's half: its name, the tokens as it sees them, the one pointed at in words. */
class Column {
  constructor() {
    this._tokens = [];
    this._title = element("h3");
    this._list = new TokenList("Tokens", (index) => this._point(index));
    this._words = element("p", { class: "quiet" });
    this.element = element("section", {}, this._title, this._list.element, this._words);
  }

  /** Show the tokens of an answer, or why it failed. */
  show(name, { value, reason }) {
    this._tokens = [...(value?.tokens ?? [])];
    this._title.textContent = name;
    this._list.element.setAttribute("aria-label", `Tokens as ${name} sees them`);
    this._list.show(this._tokens);
    this._point(null);
    if (reason) this._words.textContent = reason.message;
  }

  add(token, isFirst) {
    this._tokens.push(token);
    this._list.add(token, isFirst);
    this._point(null);
  }

  _point(index) {
    const token = this._tokens[index];
    const mean = meanSurprisal(this._tokens);
    if (token && typeof token.surprisal === "number") {
      this._words.textContent = `${tokenText(token)}: ${percent(Math.exp(-token.surprisal))}, rank ${count(token.rank)}`;
    } else {
      this._words.textContent = mean ? `${count(this._tokens.length)} tokens, ${mean.nats.toFixed(2)} nats/token, ${mean.bits.toFixed(2)} bits/byte` : "";
    }
  }
}
