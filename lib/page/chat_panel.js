// A conversation with a model that has learned to answer.
import { element } from "./dom.js";

/** The panel. */
export class ChatPanel {
  constructor() {
    this.id = "chat";
    this.title = "Chat";
    this._messages = [];
    this._stop = null;
    this._log = element("ol", { class: "chat", tabindex: "0", "aria-label": "Conversation" });
    this._system = element("input", { id: "system", type: "text", autocomplete: "off", placeholder: "none" });
    this._input = element("textarea", { id: "message", rows: 2, onkeydown: (event) => this._key(event) });
    this._send = element("button", { class: "main" }, "Send");
    this._status = element("p", { class: "unseen", role: "status" });
    const form = element(
      "form",
      { onsubmit: (event) => (event.preventDefault(), this._stop ? this._stop.abort() : this._answer()) },
      element("label", { for: "message" }, "Message"),
      this._input,
      element("p", { class: "tools" }, this._send, element("button", { type: "button", onclick: () => this._clear() }, "New conversation"), element("label", {}, "System message ", this._system)),
    );
    this.element = element("div", {}, this._log, this._status, form);
  }

  show(page) {
    if (this._page && this._model !== page.model.id) this._clear();
    this._page = page;
    this._model = page.model.id;
  }

  point() {}

  hide() {
    this._stop?.abort();
  }

  _key(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!this._stop) this._answer();
  }

  _clear() {
    this._stop?.abort();
    this._stop = null;
    this._send.textContent = "Send";
    this._messages = [];
    this._log.replaceChildren();
  }

  async _answer() {
    const content = this._input.value.trim();
    if (content === "") return;
    const page = this._page;
    const messages = [...this._messages, { role: "user", content }];
    this._input.value = "";
    const asked = this._show("user", content);
    const answer = this._show("assistant", "");
    const system = this._system.value.trim();
    const prompt = system ? [{ role: "system", content: system }, ...messages] : messages;
    let text = "";
    const stop = new AbortController();
    this._stop = stop;
    this._send.textContent = "Stop";
    const onToken = (token) => {
      const isAtEnd = this._log.scrollTop + this._log.clientHeight >= this._log.scrollHeight - 8;
      text += token.text;
      answer.textContent = text;
      if (isAtEnd) this._log.scrollTop = this._log.scrollHeight;
    };
    let reason = null;
    try {
      reason = await page.backend.chat(page.model.id, prompt, page.sampling, { signal: stop.signal, onToken });
    } catch (error) {
      page.questions.report(error);
    }
    if (this._stop === stop) {
      this._stop = null;
      this._send.textContent = "Send";
    }
    if (!answer.isConnected) return; // a new conversation was begun meanwhile
    if (text.trim() === "") {
      // an empty message cannot be part of a conversation
      asked.parentNode.remove();
      answer.parentNode.remove();
      this._input.value ||= content; // to be sent again
      return;
    }
    this._messages = [...messages, { role: "assistant", content: text }];
    if (reason === "length") answer.append(element("small", {}, " (the context is full; begin a new conversation)"));
    this._status.textContent = `The model: ${text}`;
  }

  _show(role, text) {
    const body = element("div", { class: "body" }, text);
    this._log.append(element("li", { class: role }, element("strong", {}, role === "user" ? "You" : "Model"), body));
    this._log.scrollTop = this._log.scrollHeight;
    return body;
  }
}
