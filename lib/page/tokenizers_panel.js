// The same text cut into tokens by every tokenizer at hand, side by side.
import { count, element, tokenNodes, utf8Decoder } from "./dom.js";

/** The panel. */
export class TokenizersPanel {
  constructor() {
    this.id = "tokenizers";
    this.title = "Tokenizers";
    this._text = null;
    this.element = element("div", {});
  }

  async show(page) {
    const text = page.text;
    if (text === this._text) return;
    if (text === "") {
      this.element.replaceChildren(element("p", { class: "quiet" }, "Type a text to see it cut into tokens."));
      return;
    }
    const tokenizers = await page.questions.ask((signal) => page.backend.tokenizations(text, { signal }));
    if (!tokenizers) return;
    this._text = text;
    const characters = [...text].length;
    this.element.replaceChildren(
      ...tokenizers.map(({ name, tokens, error }) =>
        element(
          "section",
          { class: "tokenizer" },
          element("h3", {}, name, element("small", {}, tokens ? ` ${count(tokens.length)} tokens, ${(characters / Math.max(1, tokens.length)).toFixed(2)} characters/token` : "")),
          tokens ? element("p", { class: "cut" }, ...chips(tokens)) : element("p", { class: "quiet" }, error ?? "cannot represent this text"),
        ),
      ),
    );
  }

  point() {}
}

/** Each token in one of two colors, with its id as a tooltip; a part of a character as bytes. */
function chips(tokens) {
  const decoder = utf8Decoder();
  return tokens.map(({ id, bytes }, at) => element("span", { class: `chip-${at % 2}`, title: `id ${id}` }, ...tokenNodes(bytes, decoder)));
}
