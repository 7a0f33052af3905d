// The page: a text, the model that reads and continues it, and the panels that look at both.
import { AttentionPanel } from "./attention_panel.js";
import { ChatPanel } from "./chat_panel.js";
import { ComparePanel } from "./compare_panel.js";
import { byId, count, debounced, element, meanSurprisal, natsAndBits } from "./dom.js";
import { Draft, decodedText } from "./draft.js";
import { LensPanel } from "./lens_panel.js";
import { MemorizedPanel } from "./memorized_panel.js";
import { Questions } from "./questions.js";
import { SamplingPanel } from "./sampling_panel.js";
import { chooseTheme, readAddress, writeAddress } from "./settings.js";
import { surprisalLegend } from "./surprisal.js";
import { Tabs } from "./tabs.js";
import { TokenCard } from "./token_card.js";
import { TokenList } from "./token_list.js";
import { TokenizersPanel } from "./tokenizers_panel.js";

const FIRST_TEXT = "The verdict was";
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
    this._hovered = this._focused = null; // the token that is pointed at
    this._writing = null; // stops the text that is being written
    this._list = new TokenList("Tokens of the text", (index, isFocus) => this._point(index, isFocus), {
      onEnter: () => this._card.focus(),
      withNext: true,
    });
    byId("tokens").append(this._list.element);
    this._card = new TokenCard(byId("token"), byId("token-title"), (index, token) => this._choose(index, token, true));
    this._sampling = new SamplingPanel({
      greedy: byId("greedy"),
      onChange: debounced(() => this._keepAddress(), TYPING_PAUSE),
      onPick: (token) => this._choose(this._draft.ids.length, token, false),
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

  /** How the model draws, and how many tokens. */
  get sampling() {
    return { ...this._sampling.sampling, max_tokens: Math.max(1, Math.floor(Number(byId("max-tokens").value)) || 1) };
  }

  /** The index of the token that is looked at; the number of tokens means the next one. */
  get current() {
    const length = this.analysis?.tokens.length ?? 0;
    return Math.min(this._hovered ?? this._focused ?? (this._writing ? length - 1 : length), length);
  }

  /** The analysis, with `fields`, of the first `limit` tokens of the text; see `Questions`. */
  part(limit, fields) {
    return this.questions.part(this.model.id, this._draft.ids, limit, fields);
  }

  async start() {
    byId("legend").append(surprisalLegend());
    byId("note").textContent = this.backend.note ?? "";
    chooseTheme(byId("theme"), () => this._showPanel());
    this._listen();
    const address = readAddress();
    this._draft.type(address.get("text") ?? FIRST_TEXT);
    byId("text").value = this.text;
    byId("max-tokens").value = address.get("max_tokens") ?? byId("max-tokens").value;
    this._sampling.restore(address);
    this._tabs.choose(address.get("tab"));
    await this._load(address.get("model"));
    return this;
  }

  _listen() {
    const typed = debounced(() => this._analyze(), TYPING_PAUSE);
    const listeners = {
      text: ["input", () => (this._typed(byId("text").value), typed())],
      run: ["click", () => (this._writing ? this._writing.abort() : this._continue(this.sampling.max_tokens))],
      step: ["click", () => this._continue(1)],
      undo: ["click", () => this._undo()],
      clear: ["click", () => this._clear()],
      "max-tokens": ["change", () => this._keepAddress()],
      model: ["change", () => this._modelChosen(byId("model").value)],
      "key-form": ["submit", (event) => (event.preventDefault(), this._useKey(byId("key").value))],
    };
    for (const [id, [event, listener]] of Object.entries(listeners)) byId(id).addEventListener(event, listener);
  }

  _useKey(key) {
    this.backend.useKey(key);
    byId("key-form").hidden = true;
    this._load(null);
  }

  async _load(wanted) {
    const models = await this.questions.ask((signal) => this.backend.models(signal));
    if (!models) return;
    this.models = models;
    byId("model").replaceChildren(...models.map(({ id }) => element("option", { value: id }, id)));
    this._tabs.allow("tokenizers", Boolean(this.backend.tokenizations));
    this._tabs.allow("compare", models.length > 1);
    await this._modelChosen(models.some(({ id }) => id === wanted) ? wanted : models[0].id);
  }

  _modelChosen(id) {
    this._stopWriting();
    this.model = this.models.find((model) => model.id === id);
    byId("model").value = id;
    const { parameters, vocab_size, context_length } = this.model;
    byId("facts").textContent = `${count(parameters)} parameters, ${count(vocab_size)} tokens in the vocabulary, context ${count(context_length)}`;
    document.title = `${id} · makegpt`;
    this._tabs.allow("chat", Boolean(this.backend.chat && this.model.chat));
    this._draft.forgetTokens();
    return this._analyze();
  }

  /** Look at the end of the text, until a token is pointed at. */
  _lookAtEnd() {
    this._hovered = this._focused = null;
  }

  _typed(text) {
    this._stopWriting();
    this._lookAtEnd();
    this._draft.type(text);
  }

  _stopWriting() {
    this._writing?.abort();
    this._writing = null;
  }

  async _analyze() {
    if (!this.model) return;
    this._keepAddress();
    const { prompt, isEmpty } = this._draft;
    const fields = { alternatives: 20, counts: true, memorized: true, full: this._tabs.panel === this._sampling };
    const question = (signal) => this.backend.analyze(this.model.id, { prompt, ...fields, signal });
    const analysis = isEmpty ? { tokens: [], next: null } : await this.questions.ask(question);
    if (analysis && !this._writing) {
      this._draft.analyzed(analysis);
      this._list.show(analysis.tokens, { start: this._draft.begins ?? Infinity, underlined: analysis.memorized ?? [] });
      this._showSummary();
      this._showToken();
      this._showPanel();
    }
    this._showButtons();
  }

  /** Let the model write up to `most` tokens. */
  async _continue(most) {
    if (this._writing || !this.model || this._draft.isEmpty) return;
    if (!this.analysis) await this._analyze();
    if (!this.analysis || this._writing) return;
    const draft = this._draft;
    const writing = (this._writing = new AbortController());
    draft.remember();
    draft.beginWriting();
    this._lookAtEnd();
    this._showButtons();
    byId("status").textContent = "The model writes …";
    const before = draft.ids.length;
    const sampling = { ...this.sampling, max_tokens: most };
    sampling.seed += before - draft.begins; // other random numbers than those of the tokens before
    const outcome = await this._written(draft.ids.slice(), sampling, writing);
    if (this._writing !== writing) return; // the reader did something else meanwhile
    this._writing = null;
    byId("status").textContent = `${count(draft.ids.length - before)} tokens${outcome.words}: ${decodedText(draft.analysis.tokens.slice(before))}`;
    this._showText();
    this._showButtons();
    if (outcome.failed) this._showToken();
    else await this._analyze();
  }

  /** Write; how it ended. */
  async _written(prompt, sampling, writing) {
    const onToken = (token) => {
      if (this._writing === writing && !token.end_of_text) this._write(token);
    };
    try {
      const reason = await this.backend.complete(this.model.id, prompt, sampling, { signal: writing.signal, onToken });
      return { words: reason === "length" ? "" : ", and the model ended the text", failed: false };
    } catch (error) {
      this.questions.report(error);
      return { words: ", then stopped", failed: error.name !== "AbortError" };
    }
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

  /** The text with `token` in the place `index`; `andContinue`: the model writes on from there. */
  async _choose(index, token, andContinue) {
    this._stopWriting();
    this._draft.choose(index, token);
    this._lookAtEnd();
    this._showText();
    byId("status").textContent = `Added: ${token.text}`;
    await this._analyze();
    if (andContinue) await this._continue(this.sampling.max_tokens);
  }

  _undo() {
    this._stopWriting();
    this._draft.undo();
    this._lookAtEnd();
    byId("status").textContent = "";
    this._showText();
    this._analyze();
  }

  _clear() {
    this._typed("");
    byId("status").textContent = "";
    this._showText();
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

  _showToken() {
    if (!this.analysis) return;
    this._list.mark(this.current);
    this._card.show(this.analysis, this.current, this.model.vocab_size);
    this._tabs.panel.point();
  }

  _showSummary() {
    const mean = meanSurprisal(this.analysis.tokens);
    const perplexity = mean && count(Number(Math.exp(mean.nats).toPrecision(3)));
    byId("summary").textContent = mean
      ? `${count(this.analysis.tokens.length)} tokens; on average ${natsAndBits(mean.nats)} per token, ${mean.bits.toFixed(2)} bits/byte, perplexity ${perplexity}`
      : "";
  }

  _showButtons() {
    byId("run").textContent = this._writing ? "Stop" : "Continue";
    byId("run").disabled = !this._writing && this._draft.isEmpty;
    byId("step").disabled = Boolean(this._writing) || this._draft.isEmpty;
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
    if (this.analysis && !this._writing) this._tabs.panel.show(this);
  }

  _keepAddress() {
    if (!this.model) return;
    const entries = [["model", this.model.id], ["text", this.text], ...this._sampling.settings(), ["tab", this._tabs.panel.id]];
    const most = byId("max-tokens");
    writeAddress(most.value === most.defaultValue ? entries : [...entries, ["max_tokens", most.value]]);
  }
}
