// Questions to the backend: of each kind the newest one counts, and an error is shown in words.
import { byId } from "./dom.js";

/** Asks `backend` one question of each kind at a time: about the text, for the panel that is shown, about the models. */
export class Questions {
  constructor(backend) {
    this._backend = backend;
    this._asked = {}; // stops the question of a kind whose answer is waited for
    this._waiting = 0; // for how many answers
    this._parts = new Map(); // the last analysis of a beginning of a text, by what was asked
  }

  /** Show an error in words; what was stopped on purpose is none. */
  report(error) {
    if (error.name === "AbortError") return;
    byId("alert").textContent = error.message;
    byId("alert").hidden = false;
    if (error.status === 401) byId("key-form").hidden = false;
  }

  /** Wait no longer for answers about the text and for the panel: the text is another one. */
  stop() {
    this._asked.text?.abort();
    this._asked.panel?.abort();
  }

  /** The answer to `question(signal)`; null after an error, which is shown, and undefined if it was stopped or asked again. */
  async ask(question, kind = "panel") {
    this._asked[kind]?.abort();
    const asked = (this._asked[kind] = new AbortController());
    if (kind !== "panel") byId("alert").hidden = true;
    this._busy(1);
    try {
      const answer = await question(asked.signal);
      return asked.signal.aborted ? undefined : answer;
    } catch (error) {
      if (asked.signal.aborted) return undefined;
      this.report(error);
      return null;
    } finally {
      this._busy(-1);
    }
  }

  /** The analysis by `model`, with `fields`, of the first `limit` of the tokens `ids`; `cut`: there are more. */
  async part(model, ids, limit, fields) {
    if (!ids?.length) return null;
    const request = { prompt: ids.slice(0, limit), alternatives: 1, ...fields };
    const key = JSON.stringify([model, request]);
    if (!this._parts.has(key)) {
      const analysis = await this.ask((signal) => this._backend.analyze(model, { ...request, signal }));
      if (!analysis) return null;
      this._parts = new Map([[key, analysis]]);
    }
    return { ...this._parts.get(key), cut: ids.length > limit };
  }

  _busy(change) {
    this._waiting += change;
    byId("tokens").setAttribute("aria-busy", String(this._waiting > 0));
  }
}
