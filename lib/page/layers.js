// The layers of a GPT, for one position of one text: the formulas of lib/model in plain JavaScript.
//
// A tensor is {data: Float32Array, shape}. Sums are made in float64, as JavaScript's numbers are, and stored in float32.

/** y = W x + b: every output is a weighted sum of all inputs. The weight is (out, in), the bias (out,) or null. */
export function linear(x, weight, bias = null) {
  const outputs = weight.shape[0];
  const y = new Float32Array(outputs);
  for (let o = 0; o < outputs; o++) y[o] = dot(x, 0, weight.data, o * x.length, x.length) + (bias ? bias.data[o] : 0);
  return y;
}

/** Row `index` of a table: the embedding of an id. It is a view, not a copy. */
export function rowOf(table, index) {
  const width = table.shape[1];
  return table.data.subarray(index * width, (index + 1) * width);
}

/** x + y. */
export function add(x, y) {
  return x.map((value, i) => value + y[i]);
}

/** The sum of the products of `length` numbers of x and of y, from `xStart` and `yStart` on. */
export function dot(x, xStart, y, yStart, length) {
  let a = 0; // four sums, which do not wait for each other: nearly half the time of one
  let b = 0;
  let c = 0;
  let d = 0;
  const whole = length - (length % 4);
  for (let i = 0; i < whole; i += 4) {
    a += x[xStart + i] * y[yStart + i];
    b += x[xStart + i + 1] * y[yStart + i + 1];
    c += x[xStart + i + 2] * y[yStart + i + 2];
    d += x[xStart + i + 3] * y[yStart + i + 3];
  }
  for (let i = whole; i < length; i++) a += x[xStart + i] * y[yStart + i];
  return a + b + c + d;
}

/** To mean 0 and variance 1, then scaled and shifted (Ba et al. 2016). */
export function layerNorm(x, scale, shift, eps) {
  let mean = 0;
  for (const value of x) mean += value / x.length;
  let variance = 0;
  for (const value of x) variance += (value - mean) ** 2 / x.length;
  const size = Math.sqrt(variance + eps);
  return x.map((value, i) => (scale[i] * (value - mean)) / size + shift[i]);
}

/** To a mean square of 1, then scaled (Zhang and Sennrich 2019). */
export function rmsNorm(x, scale, eps) {
  const size = Math.sqrt(dot(x, 0, x, 0, x.length) / x.length + eps);
  return x.map((value, i) => (scale[i] * value) / size);
}

/** max(0, x). */
export function relu(x) {
  return x.map((value) => Math.max(0, value));
}

/** 0.5x(1 + tanh(√(2/π)(x + 0.044715x³))): a smooth ReLU, in GPT-2's form (Hendrycks and Gimpel 2016). */
export function gelu(x) {
  return x.map((value) => 0.5 * value * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (value + 0.044715 * value ** 3))));
}

/** 1/(1 + e⁻ˣ). */
export function sigmoid(x) {
  return 1 / (1 + Math.exp(-x));
}

/** x·σ(x) (Elfwing et al. 2018). */
export function silu(x) {
  return x.map((value) => value * sigmoid(value));
}

/** exp(s)/Σ exp(s), in float64: positive numbers that sum to 1. A score of -∞ gets 0. */
export function softmax(scores) {
  let largest = -Infinity;
  for (const score of scores) if (score > largest) largest = score;
  const e = new Float64Array(scores.length);
  let sum = 0;
  for (let i = 0; i < e.length; i++) sum += e[i] = Math.exp(scores[i] - largest);
  for (let i = 0; i < e.length; i++) e[i] /= sum;
  return e;
}

/** base^(-2i/size), the radians per token of wave i: (size/2,), in float32 as in lib/model/positions.py. */
export function frequencies(size, base) {
  return Float32Array.from({ length: size / 2 }, (_, i) => base ** Math.fround((-2 * i) / size));
}

/** The frequencies of Llama 3.1: slow waves turn `factor` times slower, fast ones as before (`Llama3Scaling`). */
export function scaledFrequencies(speeds, { factor, low, high, context }) {
  return speeds.map((speed) => {
    const turns = (context * speed) / (2 * Math.PI);
    const kept = Math.min(Math.max((turns - low) / (high - low), 0), 1);
    return speed * (kept + (1 - kept) / factor);
  });
}

/** The pairs (x_i, x_{i+D/2}) of a head's vector, rotated by the angles of their position (Su et al. 2021). */
export function rotate(x, position, speeds) {
  const half = speeds.length;
  const y = new Float32Array(2 * half);
  for (let i = 0; i < half; i++) {
    const angle = Math.fround(position * speeds[i]);
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    y[i] = x[i] * cos - x[i + half] * sin;
    y[i + half] = x[i + half] * cos + x[i] * sin;
  }
  return y;
}

/** √C times a token's embedding, plus a sine and a cosine of each wave at its position (Vaswani et al. 2017, 3.4, 3.5). */
export function sinusoidal(x, position, speeds) {
  const scale = Math.sqrt(x.length);
  return x.map((value, i) => {
    const angle = Math.fround(position * speeds[i >> 1]);
    return scale * value + (i % 2 ? Math.cos(angle) : Math.sin(angle));
  });
}
