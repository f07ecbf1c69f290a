/** numpy's .npz files: a zip of arrays. */

import { readFileSync } from "node:fs";
import { inflateRawSync } from "node:zlib";

const KINDS = {
  "<f4": Float32Array,
  "<f8": Float64Array,
  "<i8": BigInt64Array,
  "<i4": Int32Array,
  "<i2": Int16Array,
  "|i1": Int8Array,
  "|u1": Uint8Array,
};

/** The arrays of a file by name: { data, shape }. */
export function readNpz(path) {
  const file = readFileSync(path);
  const end = file.lastIndexOf(Buffer.from("PK\x05\x06", "latin1"));
  const arrays = {};
  for (let at = file.readUInt32LE(end + 16), left = file.readUInt16LE(end + 10); left > 0; left--) {
    const [method, size, nameLength] = [file.readUInt16LE(at + 10), file.readUInt32LE(at + 20), file.readUInt16LE(at + 28)];
    const name = file.toString("latin1", at + 46, at + 46 + nameLength);
    const local = file.readUInt32LE(at + 42);
    const begin = local + 30 + file.readUInt16LE(local + 26) + file.readUInt16LE(local + 28);
    const content = file.subarray(begin, begin + size);
    arrays[name.replace(/\.npy$/, "")] = readArray(method === 8 ? inflateRawSync(content) : content);
    at += 46 + nameLength + file.readUInt16LE(at + 30) + file.readUInt16LE(at + 32);
  }
  return arrays;
}

function readArray(bytes) {
  const length = bytes[6] === 1 ? bytes.readUInt16LE(8) : bytes.readUInt32LE(8);
  const begin = (bytes[6] === 1 ? 10 : 12) + length;
  const header = bytes.toString("latin1", begin - length, begin);
  const shape = [...header.match(/'shape': \(([^)]*)\)/)[1].matchAll(/\d+/g)].map(([size]) => Number(size));
  const Kind = KINDS[header.match(/'descr': '([^']+)'/)[1]];
  return { shape, data: new Kind(new Uint8Array(bytes.subarray(begin)).buffer) };
}
