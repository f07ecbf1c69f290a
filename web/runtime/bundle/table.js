/** An embedding table of a bundle: rows of float32, or of int8 with a factor for each. */

export class Table {
  /**
   * @param {import("./manifest.js").TableSpec} spec
   * @param {Uint8Array} file the bytes of the file that it lies in
   */
  constructor(spec, file) {
    this.rows = spec.shape[0];
    this.width = spec.shape[1];
    this.transposed = spec.transposed;
    const count = this.rows * this.width;
    // Copied, because a view of float32 must begin at a multiple of 4 bytes.
    const bytes = (/** @type {number} */ from, /** @type {number} */ length) => file.slice(from, from + length).buffer;
    this.values =
      spec.dtype === "int8" ? new Int8Array(bytes(spec.offset, count)) : new Float32Array(bytes(spec.offset, 4 * count));
    this.scales = spec.scales === null ? null : new Float32Array(bytes(spec.scales, 4 * this.rows));
  }

  /**
   * Add a row to `sum` (width,).
   *
   * @param {number} row @param {Float32Array} sum
   */
  addTo(row, sum) {
    const scale = this.scales ? this.scales[row] : 1;
    const [start, step] = this.transposed ? [row, this.rows] : [row * this.width, 1];
    for (let i = 0; i < this.width; i++) sum[i] += Math.fround(this.values[start + i * step] * scale);
  }
}
