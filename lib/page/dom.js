// Elements of the page. They are made of nodes, never of HTML text, so a text is shown as text, whatever it contains.

/** A new element. Properties that begin with "on" are listeners, the others attributes; null and false leave one out. */
export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** The element of index.html called `id`. */
export function byId(id) {
  return document.getElementById(id);
}

/** A function that calls `work` once, `milliseconds` after its last call. */
export function debounced(work, milliseconds) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, milliseconds);
  };
}

/** Let the arrow keys, Home and End move the focus between the `items()` of a container, of which one is in the tab order. */
export function arrowKeys(container, items, onFocus, perRow = () => 1) {
  container.addEventListener("keydown", (event) => {
    const list = items();
    const at = list.indexOf(document.activeElement);
    const rows = perRow();
    const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: rows, ArrowUp: -rows, Home: -at, End: list.length - 1 - at };
    if (at < 0 || !(event.key in moves) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const next = Math.max(0, Math.min(list.length - 1, at + moves[event.key]));
    list[next].focus();
    onFocus(next);
  });
}

/** A text whose hidden characters are codes, such as U+200B; of line breaks and tabs see `textNodes`. */
function withCodes(text) {
  return text.replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu, (c) => (c === "\n" || c === "\t" ? c : code(c)));
}

function code(character) {
  return `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
}

/** Nodes that show a text: line breaks, tabs and hidden characters are marked. */
export function textNodes(text) {
  return withCodes(text)
    .split(/(\n|\t)/)
    .filter((part) => part !== "")
    .flatMap((part) => {
      if (part === "\n") return [element("i", {}, "⏎"), "\n"];
      return part === "\t" ? [element("i", {}, "⇥"), "\t"] : [part];
    });
}

/**
 * Nodes that show a token of `bytes`, after those that `decoder`, a `utf8Decoder`, has seen: its characters, or its bytes if it
 * completes none.
 */
export function tokenNodes(bytes, decoder) {
  const text = decoder.decode(Uint8Array.from(bytes), { stream: true }).replaceAll("\ufffd", "");
  return text ? textNodes(text) : [element("i", {}, hexadecimal(bytes) || "∅")];
}

/** A text in one line, spaces as ␣, for a label or a button. */
export function lineText(text) {
  return withCodes(text).replaceAll("\n", "⏎").replaceAll("\t", "⇥").replaceAll(" ", "␣");
}

const LN2 = Math.log(2);

/** 0.1234 as "12.3 %", and what is less than a thousandth as "1 in 12,000". */
export function percent(probability) {
  if (probability === 0) return "0 %";
  if (probability < 0.001) return `1 in ${Number((1 / probability).toPrecision(2)).toLocaleString("en-US")}`;
  return `${(100 * probability).toPrecision(3)} %`;
}

/** Nats as "2.08 nats (3.00 bits)". */
export function natsAndBits(value) {
  const nats = Math.max(0, value); // rounding may leave a bit less than 0
  return `${nats.toFixed(2)} nats (${(nats / LN2).toFixed(2)} bits)`;
}

/** A decoder of UTF-8 that keeps every character, a byte-order mark too. */
export function utf8Decoder(options = {}) {
  return new TextDecoder("utf-8", { ignoreBOM: true, ...options });
}

/** A token in one line: its text, or its bytes if they are not whole characters. */
export function tokenText({ text, bytes }) {
  if (!bytes?.length) return lineText(text);
  try {
    return lineText(utf8Decoder({ fatal: true }).decode(Uint8Array.from(bytes)));
  } catch {
    return hexadecimal(bytes);
  }
}

/** Bytes as "20 64 6F 67". */
export function hexadecimal(bytes) {
  return bytes.map((byte) => byte.toString(16).toUpperCase().padStart(2, "0")).join(" ");
}

/** A whole number with commas. */
export function count(number) {
  return number.toLocaleString("en-US");
}

/** The mean surprisal of `tokens` that have one, in nats/token, and in bits/byte; null if none has. */
export function meanSurprisal(tokens) {
  const scored = tokens.filter((token) => typeof token.surprisal === "number");
  if (scored.length === 0) return null;
  const nats = scored.reduce((sum, token) => sum + token.surprisal, 0);
  const bytes = scored.reduce((sum, token) => sum + token.bytes.length, 0);
  return { nats: nats / scored.length, bits: bytes ? nats / LN2 / bytes : NaN, tokens: scored.length };
}
