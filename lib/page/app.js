// The page: a text, the model that reads and continues it, and the panels that look at both.
import { AttentionPanel } from "./attention_panel.js";
import { ChatPanel } from "./chat_panel.js";
import { ComparePanel } from "./compare_panel.js";
import { byId, count, debounced, element } from "./dom.js";
import { Draft, decodedText } from "./draft.js";
import { LensPanel } from "./lens_panel.js";
import { MemorizedPanel } from "./memorized_panel.js";
import { Questions } from "./questions.js";
import { SamplingPanel } from "./sampling_panel.js";
import { chooseTheme, readAddress, writeAddress } from "./settings.js";
import { surprisalLegend, surprisalSummary } from "./surprisal.js";
import { Tabs } from "./tabs.js";
import { TokenCard } from "./token_card.js";
import { TokenList } from "./token_list.js";
import { TokenizersPanel } from "./tokenizers_panel.js";
import { Writer } from "./writer.js";

const FIRST_TEXT = "The verdict was";
const EMPTY = { tokens: [], next: null }; // the analysis of no text
const TYPING_PAUSE = 300; // ms without a key before a text is analyzed

/** Show the page, with the models of `backend`: `serverBackend()` of server.js, or another object with its functions. */
export function startPage(backend) {
  return new Page(backend).start();
}

/** What the page shows and does. The panels use the parts without an underscore. */
class Page {
  constructor(backend) {
    this.backend = backend;
    this.questions = new Questions(backend);
    this.models = [];
    this.model = null;
    this._draft = new Draft();
    this._writer = new Writer(backend, (error) => this.questions.report(error));
    this._hovered = this._focused = null; // the token that is pointed at
    this._list = new TokenList("Tokens of the text", (index, isFocus) => this._point(index, isFocus), {
      onEnter: () => this._card.focus(),
      withNext: true,
    });
    byId("tokens").append(this._list.element);
    this._card = new TokenCard(byId("token"), byId("token-title"), (index, token) => this._choose(index, token, true));
    this._sampling = new SamplingPanel({
      greedy: byId("greedy"),
      most: byId("max-tokens"),
      onChange: debounced(() => this._keepAddress(), TYPING_PAUSE),
      onPick: (token) => this._choose(Infinity, token, false),
    });
    const panels = [new AttentionPanel(this._list), new LensPanel(), new TokenizersPanel(), new MemorizedPanel()];
    panels.push(new ComparePanel(), new ChatPanel());
    this._tabs = new Tabs(byId("tabs"), [this._sampling, ...panels], (panel) => this._panelChosen(panel));
  }

  /** The text, and what is known of it: null while nothing is. */
  get text() {
    return this._draft.text;
  }

  get analysis() {
    return this._draft.analysis;
  }

  /** The sampling parameters, as fields of a request. */
  get sampling() {
    return this._sampling.sampling;
  }

  /** The index of the token that is looked at; the number of tokens means the next one. */
  get current() {
    const length = this.analysis?.tokens.length ?? 0;
    const last = this.analysis?.next ? length : Math.max(0, length - 1);
    return Math.min(this._hovered ?? this._focused ?? last, length);
  }

  /** For the panel that is shown: the analysis, with `fields`, of the first `limit` tokens; null if it is no longer of use. */
  async part(limit, fields) {
    const { version, ids } = this._draft;
    const panel = this._tabs.panel;
    const part = await this.questions.part(this.model.id, ids, Math.min(limit, this.model.context_length), fields);
    return part && this._draft.version === version && this._tabs.panel === panel ? part : null;
  }

  async start() {
    byId("legend").append(surprisalLegend());
    byId("note").textContent = this.backend.note ?? "";
    chooseTheme(byId("theme"), () => this._showPanel());
    this._listen();
    this._readAddress();
    await this._load();
  }

  _listen() {
    const typed = debounced(() => this._analyze(), TYPING_PAUSE);
    const listeners = {
      text: ["input", () => (this._typed(byId("text").value), typed())],
      run: ["click", () => (this._writer.isWriting ? this._writer.interrupt() : this._continue(this.sampling.max_tokens))],
      step: ["click", () => this._continue(1)],
      undo: ["click", () => this._undo()],
      clear: ["click", () => this._clear()],
      model: ["change", () => this._modelChosen(byId("model").value)],
      "key-form": ["submit", (event) => (event.preventDefault(), this._useKey(byId("key").value))],
    };
    for (const [id, [event, listener]] of Object.entries(listeners)) byId(id).addEventListener(event, listener);
    addEventListener("hashchange", () => (this._readAddress(), this._load()));
  }

  _useKey(key) {
    this.backend.useKey(key);
    byId("key-form").hidden = true;
    this._load();
  }

  _readAddress() {
    const address = readAddress();
    this._typed(address.get("text") ?? FIRST_TEXT);
    byId("text").value = this.text;
    this._sampling.restore(address);
    this._tabs.choose(address.get("tab"));
  }

  _keepAddress() {
    if (!this.model) return;
    writeAddress([["model", this.model.id], ["text", this.text], ...this._sampling.settings(), ["tab", this._tabs.panel.id]]);
  }

  async _load() {
    const wanted = readAddress().get("model");
    const models = await this.questions.ask((signal) => this.backend.models(signal), "models");
    if (!models) return;
    this.models = models;
    byId("model").replaceChildren(...models.map(({ id }) => element("option", { value: id }, id)));
    this._tabs.allow("tokenizers", Boolean(this.backend.tokenizations));
    this._tabs.allow("memorized", this.backend.hasTrainingText);
    this._tabs.allow("compare", models.length > 1);
    await this._modelChosen(models.some(({ id }) => id === wanted) ? wanted : models[0].id);
  }

  _modelChosen(id) {
    this._changing();
    this.model = this.models.find((model) => model.id === id);
    byId("model").value = id;
    const { parameters, vocab_size, context_length } = this.model;
    byId("facts").textContent = `${count(parameters)} parameters, ${count(vocab_size)} tokens in the vocabulary, context ${count(context_length)}`;
    document.title = `${id} · makegpt`;
    this._tabs.allow("chat", Boolean(this.backend.chat && this.model.chat));
    this._draft.forgetTokens();
    return this._analyze();
  }

  /** The text changes now: what is being computed is about another one, and so is what is shown. */
  _changing() {
    this._writer.drop();
    this.questions.stop();
    this._hovered = this._focused = null;
    byId("status").textContent = "";
    byId("main").classList.add("stale");
    this._showButtons();
  }

  _typed(text) {
    this._changing();
    this._draft.type(text);
    this._showButtons();
  }

  async _analyze() {
    if (!this.model) return;
    this._keepAddress();
    const { isEmpty, version } = this._draft;
    const prompt = this._draft.prompt(this.model.context_length);
    const { hasTrainingText } = this.backend;
    const fields = { alternatives: 20, counts: hasTrainingText, memorized: hasTrainingText, full: this._tabs.panel === this._sampling };
    const question = (signal) => this.backend.analyze(this.model.id, { prompt, ...fields, signal });
    const analysis = isEmpty ? EMPTY : await this.questions.ask(question, "text");
    if (analysis === undefined || this._draft.version !== version) return; // another one is asked
    if (analysis) this._draft.analyzed(analysis);
    if (this.analysis) this._showAnalysis(this.analysis);
    else this._showNothing();
    this._showButtons();
  }

  /** Let the model write up to `most` tokens. */
  async _continue(most) {
    if (this._writer.isWriting || !this.model || this._draft.isEmpty) return;
    if (!this.analysis) await this._analyze();
    if (!this.analysis || this._writer.isWriting) return;
    const draft = this._draft;
    draft.remember();
    draft.beginWriting();
    this._hovered = this._focused = null;
    const before = draft.ids.length;
    const sampling = { ...this.sampling, max_tokens: most };
    sampling.seed += before - draft.begins; // other random numbers than those of the tokens before
    byId("status").textContent = "Generating …";
    const writing = this._writer.write(this.model.id, draft.prompt(this.model.context_length), sampling, (token) => this._write(token));
    this._showButtons();
    const outcome = await writing;
    if (!outcome) return; // the reader did something else meanwhile
    const number = draft.ids.length - before;
    byId("status").textContent = `${count(number)} ${number === 1 ? "token" : "tokens"}${outcome.words}: ${decodedText(draft.analysis.tokens.slice(before))}`;
    this._showText();
    this._showButtons();
    if (outcome.failed) this._showToken();
    else await this._analyze();
  }

  _write(token) {
    this._list.add(token, this._draft.ids.length === this._draft.begins);
    this._draft.write(token);
    this._frame ??= requestAnimationFrame(() => {
      this._frame = null;
      this._list.scrollToEnd();
      this._showText();
      this._showToken();
    });
  }

  /** The text with `token` in the place `index`; `andContinue`: the model writes from there. */
  async _choose(index, token, andContinue) {
    if (!this.analysis) return; // what is shown is not the text
    this._changing();
    this._draft.choose(index, token);
    this._showText();
    byId("status").textContent = `Added: ${token.text}`;
    await this._analyze();
    if (andContinue) await this._continue(this.sampling.max_tokens);
  }

  _undo() {
    this._changing();
    this._draft.undo();
    this._showText();
    this._analyze();
  }

  _clear() {
    this._typed("");
    byId("text").value = "";
    byId("text").focus();
    this._analyze();
  }

  _point(index, isFocus) {
    if (isFocus) [this._focused, this._hovered] = [index, null];
    else if (index !== null) this._hovered = index;
    else if (this._focused !== null) this._hovered = null; // back to the token that was clicked
    this._showToken();
  }

  _showText() {
    byId("text").value = this.text;
    byId("text").scrollTop = byId("text").scrollHeight;
  }

  _showAnalysis({ tokens, memorized, start }) {
    byId("main").classList.remove("stale");
    this._list.show(tokens, { start: this._draft.begins ?? Infinity, underlined: memorized ?? [] });
    const seen = start > 0 ? `; the model sees the last ${count(tokens.length - start)}` : "";
    byId("summary").textContent = surprisalSummary(tokens) + seen;
    this._showToken();
    this._showPanel();
  }

  /** The text could not be analyzed; the alert says why. */
  _showNothing() {
    this._list.show([]);
    this._card.show(EMPTY, 0, 0);
    byId("summary").textContent = "";
  }

  _showToken() {
    if (!this.analysis) return;
    this._list.mark(this.current);
    this._card.show(this.analysis, this.current, this.model.vocab_size);
    if (this._shownVersion === this._draft.version) this._tabs.panel.point();
  }

  _showButtons() {
    const { isWriting } = this._writer;
    byId("run").textContent = isWriting ? "Stop" : "Continue";
    byId("run").disabled = !isWriting && this._draft.isEmpty;
    byId("step").disabled = isWriting || this._draft.isEmpty;
    byId("undo").disabled = !this._draft.canUndo;
  }

  _panelChosen(panel) {
    if (this._panel !== panel) this._panel?.hide?.();
    this._panel = panel;
    if (panel === this._sampling && this.analysis?.next && !this.analysis.next.logits) this._analyze();
    else this._showPanel();
    this._keepAddress();
  }

  _showPanel() {
    if (!this.analysis || this._writer.isWriting) return;
    this._shownVersion = this._draft.version;
    this._tabs.panel.show(this);
  }
}
