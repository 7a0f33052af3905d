// The text that is read and written: its tokens where they are known, where the model began to write, and earlier states for Undo.

/** A text. `analysis` is null while it is not known; without it `ids` may be known, and else `text` alone. */
export class Draft {
  constructor() {
    this._set("", null, null);
    this._history = [];
  }

  /** What a model is asked to read: the tokens if they are known, since a text may be cut in other ways. */
  get prompt() {
    return this.ids ?? this.text;
  }

  get isEmpty() {
    return this.prompt.length === 0;
  }

  get canUndo() {
    return this._history.length > 0;
  }

  /** The reader typed: the text is `text`. */
  type(text) {
    if (this.ids !== null) this.remember();
    this._set(text, null, null);
  }

  /** Forget the tokens: another model has others. */
  forgetTokens() {
    this._set(this.text, null, null);
  }

  /** What is known of the text now. */
  analyzed(analysis) {
    this.analysis = analysis;
    this.ids = analysis.tokens.map(({ id }) => id);
  }

  /** From here on the model writes. */
  beginWriting() {
    this.begins ??= this.ids.length;
  }

  /** Add a token that the model wrote. */
  write(token) {
    this.ids.push(token.id);
    this.analysis.tokens.push(token);
    this.analysis.next = null;
    this._decode();
  }

  /** `token` in the place `index`, and nothing after it. */
  choose(index, { id, text, bytes }) {
    this.remember();
    this.begins = Math.min(this.begins ?? index, index);
    this.ids = [...this.ids.slice(0, index), id];
    this.analysis = { tokens: [...this.analysis.tokens.slice(0, index), { id, text, bytes }], next: null };
    this._decode();
  }

  /** Keep the state for `undo`. */
  remember() {
    this._history.push([this.text, this.ids?.slice() ?? null, this.begins]);
  }

  undo() {
    this._set(...this._history.pop());
  }

  _set(text, ids, begins) {
    [this.text, this.ids, this.begins, this.analysis] = [text, ids, begins, null];
  }

  _decode() {
    this.text = decodedText(this.analysis.tokens);
  }
}

/** The text of tokens; bytes that are no whole character become U+FFFD. */
export function decodedText(tokens) {
  return new TextDecoder().decode(Uint8Array.from(tokens.flatMap(({ bytes }) => bytes)));
}
