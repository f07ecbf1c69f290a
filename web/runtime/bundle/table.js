/** An embedding table of a bundle: rows of float32, of int8 with a factor for each, or of blocks of 2 to 4 bits. */

/** @typedef {{ rows: number, width: number, addTo(row: number, sum: Float32Array): void }} Rows */

/**
 * The table in a file.
 *
 * @param {import("./manifest.js").TableSpec} spec
 * @param {Uint8Array} file the bytes of the file that it lies in
 * @returns {Rows} `addTo` adds a row to `sum` (width,)
 */
export function openTable(spec, file) {
  return spec.blocks ? new BlockTable(spec, spec.blocks, file) : new Table(spec, file);
}

class Table {
  /** @param {import("./manifest.js").TableSpec} spec @param {Uint8Array} file */
  constructor(spec, file) {
    this.rows = spec.shape[0];
    this.width = spec.shape[1];
    const count = this.rows * this.width;
    const Kind = spec.dtype === "int8" ? Int8Array : Float32Array;
    this.values = new Kind(copied(file, spec.offset, count * Kind.BYTES_PER_ELEMENT));
    this.scales = spec.scales === null ? null : new Float32Array(copied(file, spec.scales, 4 * this.rows));
    this.transposed = spec.transposed;
  }

  /** @param {number} row @param {Float32Array} sum */
  addTo(row, sum) {
    const scale = this.scales ? this.scales[row] : 1;
    const [start, step] = this.transposed ? [row, this.rows] : [row * this.width, 1];
    for (let i = 0; i < this.width; i++) sum[i] += Math.fround(this.values[start + i * step] * scale);
  }
}

class BlockTable {
  /**
   * @param {import("./manifest.js").TableSpec} spec
   * @param {NonNullable<import("./manifest.js").TableSpec["blocks"]>} blocks
   * @param {Uint8Array} file
   */
  constructor(spec, { bits, size, factors, zero_points: zeros }, file) {
    this.rows = spec.shape[0];
    this.width = spec.shape[1];
    this.size = size;
    this.bits = bits;
    this.blocks = Math.ceil(this.width / size);
    const rowBytes = (this.blocks * size * bits) / 8;
    // Zero points have the numbers' bits, but those of 3 bits have a byte each.
    this.zeroBits = bits === 3 ? 8 : bits;
    const zeroBytes = Math.ceil((this.blocks * this.zeroBits) / 8);
    const half = factors === "float16";
    const scales = /** @type {number} */ (spec.scales);
    const factorBytes = copied(file, scales, this.rows * this.blocks * (half ? 2 : 4));
    this.factors = half ? Float32Array.from(new Uint16Array(factorBytes), fromHalf) : new Float32Array(factorBytes);
    this.numbers = (/** @type {number} */ row) => file.subarray(spec.offset + row * rowBytes, spec.offset + (row + 1) * rowBytes);
    this.zeros = (/** @type {number} */ row) => file.subarray(zeros + row * zeroBytes, zeros + (row + 1) * zeroBytes);
  }

  /** @param {number} row @param {Float32Array} sum */
  addTo(row, sum) {
    const [numbers, zeros] = [this.numbers(row), this.zeros(row)];
    for (let i = 0; i < this.width; i++) {
      const block = Math.floor(i / this.size);
      const number = numberAt(numbers, i, this.bits) - numberAt(zeros, block, this.zeroBits);
      sum[i] += Math.fround(number * this.factors[row * this.blocks + block]);
    }
  }
}

/** Copied, because a view of float32 must begin at a multiple of 4 bytes. @param {Uint8Array} file @param {number} from @param {number} length */
function copied(file, from, length) {
  return file.slice(from, from + length).buffer;
}

/** The number of `bits` bits at a place of a stream, whose lowest bit comes first. @param {Uint8Array} stream @param {number} place @param {number} bits */
function numberAt(stream, place, bits) {
  const at = place * bits;
  const two = stream[at >> 3] | ((stream[(at >> 3) + 1] ?? 0) << 8); // a number may lie in two bytes
  return (two >> (at & 7)) & ((1 << bits) - 1);
}

/** @param {number} bits of a float16 */
function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
}
