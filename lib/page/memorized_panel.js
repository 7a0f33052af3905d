// Passages of the text that appear verbatim in the training text, and what is around them there.
import { count, element, textNodes } from "./dom.js";

/** The panel. */
export class MemorizedPanel {
  constructor() {
    this.id = "memorized";
    this.title = "Memorized";
    this.element = element("div", {});
  }

  show({ analysis }) {
    const passages = analysis?.memorized;
    if (!passages) {
      this.element.replaceChildren(element("p", { class: "quiet" }, analysis?.memorized_missing ?? "The training text of this model is not at hand."));
      return;
    }
    if (passages.length === 0) {
      this.element.replaceChildren(element("p", {}, "No long passage of this text appears in the training text."));
      return;
    }
    const items = passages.map(({ start, stop, place, before, text, after }, number) =>
      element(
        "li",
        {},
        element("p", { class: "quiet" }, `Tokens ${count(start + 1)} to ${count(stop)} of this text; in the training text from token ${count(place + 1)} on:`),
        element("blockquote", {}, element("span", { class: "quiet" }, "… ", ...textNodes(before)), element("mark", { class: `copied-${number % 2}` }, ...textNodes(text)), element("span", { class: "quiet" }, ...textNodes(after), " …")),
      ),
    );
    this.element.replaceChildren(element("p", {}, "Underlined passages appear verbatim in the training text."), element("ol", { class: "passages" }, ...items));
  }

  point() {}
}
