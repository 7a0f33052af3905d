// A model that writes: one text at a time, which can be stopped.

/** Lets the models of `backend` write; `report(error)` is called for what goes wrong. */
export class Writer {
  constructor(backend, report) {
    this._backend = backend;
    this._report = report;
    this._stop = null; // ends the text that is being written
  }

  get isWriting() {
    return this._stop !== null;
  }

  /** No more tokens: `write` returns with those that were written. */
  interrupt() {
    this._stop?.abort();
  }

  /** No more tokens, and none of those on their way: the text is another one. */
  drop() {
    this.interrupt();
    this._stop = null;
  }

  /** Continue the tokens `prompt`, `onToken` for each new one; how it ended, as {words, failed}, or null if it was dropped. */
  async write(model, prompt, sampling, onToken) {
    const stop = (this._stop = new AbortController());
    const isCurrent = () => this._stop === stop;
    let outcome;
    try {
      const reason = await this._backend.complete(model, prompt, sampling, {
        signal: stop.signal,
        onToken: (token) => isCurrent() && !token.end_of_text && onToken(token),
      });
      outcome = { words: reason === "length" ? "" : ", and the model ended the text", failed: false };
    } catch (error) {
      if (isCurrent()) this._report(error);
      outcome = { words: ", then stopped", failed: error.name !== "AbortError" };
    }
    if (!isCurrent()) return null;
    this._stop = null;
    return outcome;
  }
}
