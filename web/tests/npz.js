/** numpy's .npz files: a zip of arrays. In Node and in browsers. */

const KINDS = {
  "<f4": Float32Array,
  "<f8": Float64Array,
  "<i8": BigInt64Array,
  "<i4": Int32Array,
  "<i2": Int16Array,
  "|i1": Int8Array,
  "|u1": Uint8Array,
};

const latin = new TextDecoder("latin1");

/** The arrays of a file's bytes by name: { data, shape }. */
export async function readNpz(file) {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const [short, long] = [(at) => view.getUint16(at, true), (at) => view.getUint32(at, true)];
  let end = file.length - 22; // the end's record, before a comment that may follow it
  while (long(end) !== 0x06054b50) end -= 1;
  const arrays = {};
  for (let at = long(end + 16), left = short(end + 10); left > 0; left--) {
    const [method, size, nameLength, local] = [short(at + 10), long(at + 20), short(at + 28), long(at + 42)];
    const name = latin.decode(file.subarray(at + 46, at + 46 + nameLength));
    const begin = local + 30 + short(local + 26) + short(local + 28);
    const content = file.slice(begin, begin + size);
    arrays[name.replace(/\.npy$/, "")] = readArray(method === 8 ? await inflated(content) : content);
    at += 46 + nameLength + short(at + 30) + short(at + 32);
  }
  return arrays;
}

async function inflated(content) {
  const stream = new Blob([content]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function readArray(bytes) {
  const begin = bytes[6] === 1 ? 10 : 12;
  const length = new DataView(bytes.buffer).getUint16(8, true);
  const header = latin.decode(bytes.subarray(begin, begin + length));
  const shape = [...header.match(/'shape': \(([^)]*)\)/)[1].matchAll(/\d+/g)].map(([size]) => Number(size));
  const Kind = KINDS[header.match(/'descr': '([^']+)'/)[1]];
  return { shape, data: new Kind(bytes.slice(begin + length).buffer) };
}
