/**
 * The discrete Fourier transform of a length whose prime factors are small, such as 512 or 1280 (= 2^8 * 5).
 *
 * Mixed radix, decimation in time: a transform of length p * m is p transforms of length m, combined.
 */

export class Fourier {
  /** @param {number} length */
  constructor(length) {
    this.length = length;
    this.factors = factorsOf(length);
    this.cos = Float64Array.from({ length }, (_, i) => Math.cos((2 * Math.PI * i) / length));
    this.sin = Float64Array.from({ length }, (_, i) => Math.sin((2 * Math.PI * i) / length));
    this.re = new Float64Array(length);
    this.im = new Float64Array(length);
    this.part = { re: new Float64Array(Math.max(...this.factors)), im: new Float64Array(Math.max(...this.factors)) };
  }

  /**
   * The transform of a signal, into `re` and `im`, which the next call overwrites.
   *
   * @param {Float64Array} re (length,)
   * @param {Float64Array} im (length,)
   */
  transform(re, im) {
    this.combine(re, im, 0, 1, 0, 0);
  }

  /**
   * @param {Float64Array} re
   * @param {Float64Array} im
   * @param {number} from where this part of the input begins, and its stride
   * @param {number} stride
   * @param {number} to where its transform goes
   * @param {number} level how many factors were taken out
   */
  combine(re, im, from, stride, to, level) {
    if (level === this.factors.length) {
      this.re[to] = re[from];
      this.im[to] = im[from];
      return;
    }
    const radix = this.factors[level];
    const size = this.length / stride / radix;
    for (let k = 0; k < radix; k++) this.combine(re, im, from + k * stride, stride * radix, to + k * size, level + 1);
    for (let j = 0; j < size; j++) this.butterfly(radix, size, stride, to + j, j);
  }

  /**
   * One output of each of the `radix` parts becomes `radix` outputs of the whole.
   *
   * @param {number} radix @param {number} size @param {number} stride @param {number} at @param {number} j
   */
  butterfly(radix, size, stride, at, j) {
    const { part, cos, sin, length } = this;
    for (let k = 0; k < radix; k++) {
      const turn = (k * j * stride) % length;
      const place = at + k * size;
      part.re[k] = this.re[place] * cos[turn] + this.im[place] * sin[turn];
      part.im[k] = this.im[place] * cos[turn] - this.re[place] * sin[turn];
    }
    for (let q = 0; q < radix; q++) {
      let sumRe = 0;
      let sumIm = 0;
      for (let k = 0; k < radix; k++) {
        const turn = ((k * q * length) / radix) % length;
        sumRe += part.re[k] * cos[turn] + part.im[k] * sin[turn];
        sumIm += part.im[k] * cos[turn] - part.re[k] * sin[turn];
      }
      this.re[at + q * size] = sumRe;
      this.im[at + q * size] = sumIm;
    }
  }
}

/** @param {number} number */
function factorsOf(number) {
  const factors = [];
  for (let factor = 2, left = number; left > 1; ) {
    if (left % factor === 0) {
      factors.push(factor);
      left /= factor;
    } else {
      factor += 1;
    }
  }
  return factors;
}
