// The weights in an exported page: numbers of 32, 16 or 8 bits, in base64 (lib/page/weights.py writes them).

/** The bytes of a text in base64. */
export function bytesOfBase64(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let at = 0; at < bytes.length; at++) bytes[at] = binary.charCodeAt(at);
  return bytes;
}

/** The tensors that `entries` describe, [{name, shape, format}], one after another in `bytes`: {data: Float32Array, shape} by name. */
export function readTensors(entries, bytes) {
  const tensors = {};
  let at = 0;
  const take = (length) => bytes.slice(at, (at += length)).buffer;
  for (const { name, shape, format } of entries) {
    const size = shape.reduce((product, length) => product * length, 1);
    tensors[name] = { shape, data: READERS[format](take, size, shape) };
  }
  return tensors;
}

const READERS = {
  float32: (take, size) => new Float32Array(take(4 * size)),
  float16: (take, size) => {
    const halves = new Uint16Array(take(2 * size));
    const data = new Float32Array(size);
    for (let at = 0; at < size; at++) data[at] = halfToFloat(halves[at]);
    return data;
  },
  int8: (take, size, shape) => {
    // a scale for each row, then the rows
    const scales = new Float32Array(take(4 * shape[0]));
    const integers = new Int8Array(take(size));
    const data = new Float32Array(size);
    const columns = size / shape[0];
    for (let row = 0, at = 0; row < shape[0]; row++) {
      for (let end = at + columns; at < end; at++) data[at] = integers[at] * scales[row];
    }
    return data;
  },
};

/** The number of 16 bits: a sign, an exponent of 5 bits, a fraction of 10 (IEEE 754 binary16). */
function halfToFloat(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = (bits & 1023) / 1024;
  return exponent === 0 ? sign * fraction * 2 ** -14 : sign * (1 + fraction) * 2 ** (exponent - 15);
}
