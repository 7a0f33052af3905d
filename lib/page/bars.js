// Bar charts of tokens: a row has a token's text, its number in words, and a bar.
import { element, tokenText } from "./dom.js";

/** A row; with `onclick` it is a button. `set(fraction, words)` draws it; a `faint` bar, if any, is behind the other. */
export class Bar {
  constructor(token, { onclick = null, own = false, faint = false } = {}) {
    this._faint = faint ? element("span", { class: "fill faint" }) : null;
    this._fill = element("span", { class: "fill" });
    this._number = element("span", { class: "number" });
    const parts = [this._faint, this._fill, element("code", {}, tokenText(token)), " ", this._number];
    this.body = element(onclick ? "button" : "div", { class: own ? "bar own" : "bar", onclick }, ...parts);
    this.row = element("li", {}, this.body);
  }

  set(fraction, words, { faint = 0, removed = false } = {}) {
    this._fill.style.width = `${100 * fraction}%`;
    if (this._faint) this._faint.style.width = `${100 * faint}%`;
    this._number.textContent = words;
    this.body.classList.toggle("removed", removed);
    return this;
  }
}

/** Show `rows` in `list` instead of those it has; the focus stays in its place. */
export function showRows(list, rows) {
  const focused = [...list.children].findIndex((row) => row.contains(document.activeElement));
  list.replaceChildren(...rows);
  if (focused >= 0) list.children[Math.min(focused, rows.length - 1)]?.firstElementChild.focus();
}
