// The text that is read and written: its tokens where they are known, where the model began to write, and earlier states for Undo.
import { utf8Decoder } from "./dom.js";

/** A text. `analysis` is null while it is not known; without it `ids` may be known, and else `text` alone. */
export class Draft {
  constructor() {
    this.version = 0; // another one after each change of the text
    this._history = [];
    this._set("", null, null, []);
  }

  get isEmpty() {
    return (this.ids ?? this.text).length === 0;
  }

  get canUndo() {
    return this._history.length > 0;
  }

  /**
   * What a model of a context of `length` tokens is asked to read: the tokens if they are known, since a text may be cut in other
   * ways, and of these the last ones, as the model reads them to continue the text.
   */
  prompt(length) {
    return this.ids ? this.ids.slice(-length) : this.text;
  }

  /** The reader typed: the text is `text`. */
  type(text) {
    if (this.ids !== null) this.remember();
    this._set(text, null, null, []);
  }

  /** Forget the tokens: another model has others. */
  forgetTokens() {
    this._history = this._history.map(([text]) => [text, null, null, []]);
    this._set(this.text, null, null, []);
  }

  /** What is known of the text now, by an analysis of its `prompt`. Tokens keep the scores that they have by a longer context. */
  analyzed(analysis) {
    const start = this.ids ? this.ids.length - analysis.tokens.length : 0;
    const last = analysis.tokens.map((token, at) => (start > 0 ? { ...token, ...scoresOf(this._known[start + at]) } : token));
    const moved = (span) => ({ ...span, start: span.start + start, stop: span.stop + start });
    this.analysis = { ...analysis, start, memorized: analysis.memorized?.map(moved), tokens: [...this._known.slice(0, start), ...last] };
    this._known = this.analysis.tokens;
    this.ids = this._known.map(({ id }) => id);
  }

  /** From here on the model writes. */
  beginWriting() {
    this.begins ??= this.ids.length;
  }

  /** Add a token that the model wrote. */
  write(token) {
    this._change([...this._known, token]);
  }

  /** `token` at the position `index`, or at the end, and nothing after it. */
  choose(position, { id, text, bytes }) {
    const index = Math.min(position, this.ids.length);
    this.remember();
    this.begins = Math.min(this.begins ?? index, index);
    this._change([...this._known.slice(0, index), { id, text, bytes }]);
  }

  /** Keep the state for `undo`. */
  remember() {
    this._history.push([this.text, this.ids, this.begins, this._known]);
  }

  undo() {
    this._set(...this._history.pop());
  }

  _change(tokens) {
    this._set(decodedText(tokens), tokens.map(({ id }) => id), this.begins, tokens);
    this.analysis = { tokens, next: null };
  }

  _set(text, ids, begins, known) {
    this.version += 1;
    [this.text, this.ids, this.begins, this._known, this.analysis] = [text, ids, begins, known, null];
  }
}

/** The text of tokens; bytes that are no whole character become U+FFFD. */
export function decodedText(tokens) {
  return utf8Decoder().decode(Uint8Array.from(tokens.flatMap(({ bytes }) => bytes)));
}

/** What is known of how a token was predicted. */
function scoresOf(token) {
  return Object.fromEntries(Object.entries(token ?? {}).filter(([name, value]) => name !== "lens" && value !== null && value !== undefined));
}
