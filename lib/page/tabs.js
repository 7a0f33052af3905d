// Panels of which one is shown, chosen with the mouse or the arrow keys (the tabs pattern of the ARIA Authoring Practices).
import { arrowKeys, element } from "./dom.js";

/** Show one of `panels`, each with id, title and element, below the tabs in `list`; `onChange(panel)` is called for each choice. */
export class Tabs {
  constructor(list, panels, onChange) {
    this._onChange = onChange;
    this._entries = panels.map((panel) => {
      const tab = element("button", { role: "tab", id: `tab-${panel.id}`, "aria-controls": `panel-${panel.id}`, onclick: () => this.choose(panel.id) }, panel.title);
      const box = element("div", { role: "tabpanel", id: `panel-${panel.id}`, "aria-labelledby": `tab-${panel.id}`, tabindex: "0" }, panel.element);
      list.append(tab);
      list.parentNode.append(box);
      return { panel, tab, box };
    });
    arrowKeys(list, () => this._shown().map(({ tab }) => tab), (index) => this.choose(this._shown()[index].panel.id));
  }

  /** The panel that is shown. */
  get panel() {
    return this._entries.find(({ box }) => !box.hidden).panel;
  }

  /** Show the panel called `id`, or the first one. */
  choose(id) {
    const shown = this._shown();
    const chosen = shown.find(({ panel }) => panel.id === id) ?? shown[0];
    for (const entry of this._entries) {
      const active = entry === chosen;
      entry.tab.setAttribute("aria-selected", String(active));
      entry.tab.tabIndex = active ? 0 : -1;
      entry.box.hidden = !active;
    }
    this._onChange(chosen.panel);
  }

  /** Show the tab of a panel, or hide it. */
  allow(id, allowed) {
    const entry = this._entries.find(({ panel }) => panel.id === id);
    if (entry.tab.hidden === !allowed) return;
    entry.tab.hidden = !allowed;
    if (!allowed && !entry.box.hidden) this.choose(null);
  }

  _shown() {
    return this._entries.filter(({ tab }) => !tab.hidden);
  }
}
