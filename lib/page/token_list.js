// A text as its tokens, each colored by its surprisal. With the mouse, by touch or with the arrow keys one of them is pointed at.
import { arrowKeys, element, percent, tokenNodes, utf8Decoder } from "./dom.js";
import { surprisalLevel } from "./surprisal.js";

/**
 * The tokens of a text. `onPoint(index, isFocus)` is called for the token under the mouse, or with the focus, and `onPoint(null)`
 * when the mouse leaves; `onEnter()` for Enter. `withNext`: at the end there is a place for the token that comes next.
 */
export class TokenList {
  constructor(label, onPoint, { onEnter = () => {}, withNext = false } = {}) {
    this.element = element("div", { class: "tokens", role: "listbox", "aria-label": label, "aria-orientation": "horizontal" });
    this._next = withNext ? element("span", { class: "next", role: "option", "aria-label": "… the next token", tabindex: "-1" }, "…") : null;
    this._decoder = utf8Decoder();
    const indexAt = (event) => this._children.indexOf(event.target.closest("[role=option]"));
    this.element.addEventListener("pointerover", (event) => indexAt(event) >= 0 && onPoint(indexAt(event), false));
    this.element.addEventListener("pointerleave", () => onPoint(null, false));
    this.element.addEventListener("focusin", (event) => {
      this._setTabStop(event.target);
      onPoint(indexAt(event), true);
    });
    this.element.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault(); // the key is not meant for what gets the focus
      onEnter();
    });
    arrowKeys(this.element, () => this._children, () => {});
  }

  /** Show `tokens` instead of those shown so far; from `start` on they are the model's, and the spans `underlined` are marked. */
  show(tokens, { start = Infinity, underlined = [] } = {}) {
    const focused = this._children.indexOf(document.activeElement);
    this._decoder = utf8Decoder();
    this.element.classList.remove("shaded");
    this.element.replaceChildren(...tokens.map((token, index) => this._option(token, index === start && start > 0)));
    underlined.forEach((span, number) => {
      for (const child of this._children.slice(span.start, span.stop)) {
        child.classList.add("copied", `copied-${number % 2}`);
        child.setAttribute("aria-label", `${child.getAttribute("aria-label")}, in the training text`);
      }
    });
    if (this._next) this.element.append(this._next);
    this._setTabStop(this.element.lastElementChild);
    if (focused >= 0) this._children[Math.min(focused, this._children.length - 1)]?.focus();
  }

  /** Add a token that the model wrote; `first`: the first of them. */
  add(token, first) {
    this.element.insertBefore(this._option(token, first), this._next);
  }

  scrollToEnd() {
    this.element.scrollTop = this.element.scrollHeight;
  }

  /** Mark the token that is looked at. */
  mark(index) {
    this.element.querySelector(".current")?.classList.remove("current");
    this.element.children[index]?.classList.add("current");
  }

  /** Shade the tokens by `weights`, 0 to 1, instead of their surprisal; null: by their surprisal again. */
  shade(weights) {
    this.element.classList.toggle("shaded", weights !== null);
    if (weights === null) return;
    this._children.forEach((child, index) => child.style.setProperty("--weight", `${Math.round(100 * (weights[index] ?? 0))}%`));
  }

  get _children() {
    return [...this.element.children];
  }

  _option(token, first) {
    const node = element("span", { role: "option", "aria-selected": "false", tabindex: "-1" }, ...tokenNodes(token.bytes, this._decoder));
    const isScored = typeof token.surprisal === "number";
    const words = isScored ? `${percent(Math.exp(-token.surprisal))}, rank ${token.rank}` : "not predicted";
    node.setAttribute("aria-label", `${node.textContent.trim() || "space"}: ${words}`);
    node.classList.add(isScored ? `s${surprisalLevel(token.surprisal)}` : "s0");
    node.classList.toggle("begins", first);
    return node;
  }

  /** One token is in the order of the tab key; the arrow keys reach the others. */
  _setTabStop(node) {
    for (const old of this.element.querySelectorAll("[tabindex='0']")) {
      old.tabIndex = -1;
      old.setAttribute("aria-selected", "false");
    }
    if (!node) return;
    node.tabIndex = 0;
    node.setAttribute("aria-selected", "true");
  }
}
