// Text to token ids and back: the tokenizers of lib/tokenizer that a page can hold, read from the content of tokenizer.json.
//
// Each has encode(text), which throws an Error that names a character without a token, tokenBytes(id) and
// bytesAfter(previous, id), the bytes that a token adds to a text; and `endoftext`, the id that ends a text, or null.

const BLANK = String.raw`\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000`; // Python's \s
const ENDOFTEXT = "<|endoftext|>";
const utf8 = new TextEncoder();

/** The tokenizer of the content of a tokenizer.json. */
export function readTokenizer(saved) {
  return new TOKENIZERS[saved.kind](saved);
}

class Tokenizer {
  endoftext = null;

  bytesAfter(previous, id) {
    return this.tokenBytes(id);
  }
}

/** The 256 values of a byte. */
class BytesTokenizer extends Tokenizer {
  size = 256;

  encode(text) {
    return [...utf8.encode(text)];
  }

  tokenBytes(id) {
    return Uint8Array.of(id);
  }
}

/** A list of texts, one for each id; a subclass splits a text into them. */
class ListTokenizer extends Tokenizer {
  constructor(tokens) {
    super();
    this.size = tokens.length;
    this.tokens = tokens;
    this.ids = new Map(tokens.map((token, id) => [token, id]));
  }

  encode(text) {
    return this.split(text).map((token, n, all) => {
      const id = this.ids.get(token) ?? this.unknown;
      if (id !== undefined) return id;
      const place = [...all.slice(0, n).join("")].length;
      throw new Error(`${JSON.stringify(token)} at position ${place} is not among the ${this.size} tokens of this model; leave it out`);
    });
  }

  tokenBytes(id) {
    return utf8.encode(this.tokens[id]);
  }
}

/** The characters of the training text. */
class CharTokenizer extends ListTokenizer {
  constructor({ characters }) {
    super([...characters]);
  }

  split(text) {
    return [...text];
  }
}

/** A space with what comes after it, or a single character. */
class SymbolsTokenizer extends ListTokenizer {
  constructor({ symbols }) {
    super(symbols);
  }

  split(text) {
    return text.match(SYMBOL) ?? [];
  }
}

const SYMBOL = new RegExp(` [^${BLANK}]+|.`, "gsu");

/** Words and marks without the blanks between them; a word that is not in the vocabulary becomes <unk>. */
class WordTokenizer extends ListTokenizer {
  constructor({ words }) {
    super(words);
    [this.endoftext, this.unknown] = [words.indexOf(ENDOFTEXT), words.indexOf("<unk>")];
    this.ids.delete(ENDOFTEXT);
    this.ids.delete("<unk>");
  }

  split(text) {
    return text.split(WORD_BORDER).filter((part) => part && !ALL_BLANK.test(part));
  }

  bytesAfter(previous, id) {
    if (previous === null) return this.tokenBytes(id);
    const before = this.tokens[previous];
    return utf8.encode(`${before} ${this.tokens[id]}`.replace(BLANK_BEFORE_MARK, "$1").slice(before.length));
  }
}

const WORD_BORDER = new RegExp(`([,.:;?_!"()']|--|[${BLANK}])`, "u");
const ALL_BLANK = new RegExp(`^[${BLANK}]*$`, "u");
const BLANK_BEFORE_MARK = new RegExp(`[${BLANK}]+([,.:;?!"()'])`, "gu");

/** Byte-pair encoding: a pattern cuts a text into words; within each, the pair of lowest rank is merged, again and again. */
class BytePairTokenizer extends Tokenizer {
  /** `tokens`: the bytes of each id, in base64, in the order of their ranks; `pattern`: in JavaScript's syntax. */
  constructor({ tokens, pattern, special, endoftext, nfc }) {
    super();
    this.tokens = tokens.map(atob); // a character for each byte
    this.size = tokens.length;
    this.special = new Set(special);
    this.endoftext = endoftext;
    this.nfc = nfc;
    this.words = new RegExp(pattern, "gu");
    this.ranks = new Map();
    this.tokens.forEach((token, id) => this.special.has(id) || this.ranks.set(token, id));
  }

  encode(text) {
    const words = (this.nfc ? text.normalize("NFC") : text).match(this.words) ?? [];
    return words.flatMap((word) => this.merge(word));
  }

  /** The ids of one word. */
  merge(word) {
    const parts = Array.from(utf8.encode(word), (byte) => String.fromCharCode(byte));
    const whole = this.ranks.get(parts.join(""));
    if (whole !== undefined) return [whole];
    const rankAt = (n) => (n + 1 < parts.length ? (this.ranks.get(parts[n] + parts[n + 1]) ?? Infinity) : Infinity);
    const ranks = parts.map((_, n) => rankAt(n)); // of each part with the next one
    for (;;) {
      let place = 0;
      for (let n = 1; n < ranks.length; n++) if (ranks[n] < ranks[place]) place = n;
      if (!(ranks[place] < Infinity)) break;
      parts.splice(place, 2, parts[place] + parts[place + 1]);
      ranks.splice(place + 1, 1);
      for (const n of [place - 1, place]) if (n >= 0) ranks[n] = rankAt(n);
    }
    return parts.map((part) => {
      if (this.ranks.has(part)) return this.ranks.get(part);
      throw new Error(`the vocabulary has no token for a byte of ${JSON.stringify(word)}; leave it out`);
    });
  }

  tokenBytes(id) {
    return Uint8Array.from(this.tokens[id], (byte) => byte.charCodeAt(0));
  }
}

/** A tokenizer and special tokens after its own, to which no text is encoded. */
class ExtendedTokenizer extends Tokenizer {
  constructor({ base, names }) {
    super();
    this.base = readTokenizer(base);
    this.names = names;
    this.size = this.base.size + names.length;
    this.endoftext = names.includes(ENDOFTEXT) ? this.base.size + names.indexOf(ENDOFTEXT) : this.base.endoftext;
  }

  encode(text) {
    return this.base.encode(text);
  }

  tokenBytes(id) {
    return id < this.base.size ? this.base.tokenBytes(id) : utf8.encode(this.names[id - this.base.size]);
  }

  bytesAfter(previous, id) {
    if (id >= this.base.size) return this.tokenBytes(id);
    return this.base.bytesAfter(previous !== null && previous < this.base.size ? previous : null, id);
  }
}

const TOKENIZERS = {
  bytes: BytesTokenizer,
  char: CharTokenizer,
  symbols: SymbolsTokenizer,
  word: WordTokenizer,
  byte_pair: BytePairTokenizer,
  extended: ExtendedTokenizer,
};

/** The text of bytes; those that are not a whole character are escaped in hexadecimal, as \xNN. */
export function visibleText(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; ) {
    const length = [1, 2, 3, 4].find((n) => at + n <= bytes.length && isCharacter(bytes.slice(at, at + n)));
    text += length ? strictly.decode(bytes.slice(at, at + length)) : `\\x${bytes[at].toString(16).padStart(2, "0")}`;
    at += length ?? 1;
  }
  return text;
}

const strictly = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function isCharacter(bytes) {
  try {
    return strictly.decode(bytes) !== "";
  } catch {
    return false;
  }
}
