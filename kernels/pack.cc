// From the layout of onnxruntime's MatMulNBits to the kernels' own.
#include <atomic>
#include <cmath>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "arena.h"
#include "half.h"
#include "weights.h"

namespace voxrill {
namespace {

// Each of these spreads four numbers to the four bytes of a word, in order: of 2, of 3, of 4 bits.
uint32_t spread2(uint32_t x) {
  x = (x | x << 12) & 0x000f000f;
  return (x | x << 6) & 0x03030303;
}
uint32_t spread3(uint32_t x) {
  x = (x | x << 10) & 0x003f003f;
  return (x | x << 5) & 0x07070707;
}
uint32_t spread4(uint32_t x) {
  x = (x | x << 8) & 0x00ff00ff;
  return (x | x << 4) & 0x0f0f0f0f;
}

// 32 columns of a row are as many words as a weight has bits, in the source and in the vectors. A word of a vector has
// four columns in its bytes, several quartets in its bits. Each function turns the words of 16 rows, side by side, so that
// compilers make vector instructions of it. All our processors store the low byte first, as the source does.
template <int Bits>
struct Words {
  uint32_t of[Bits][kRows];
};

void turn(const Words<8>& in, Words<8>& out) { out = in; }

void turn(const Words<4>& in, Words<4>& out) {
  for (int i = 0; i < 4; i++)
    for (int r = 0; r < kRows; r++) out.of[i][r] = spread4(in.of[i][r] & 0xffff) | spread4(in.of[i][r] >> 16) << 4;
}

void turn(const Words<3>& in, Words<3>& out) {
  const uint32_t low = 0x03030303, high = 0x04040404;  // quartets 6 and 7 fill the two bits that are left in each byte
  for (int r = 0; r < kRows; r++) {
    const uint32_t a = in.of[0][r], b = in.of[1][r], c = in.of[2][r];
    const auto quartet = [](uint32_t twelve_bits) { return spread3(twelve_bits & 0xfff); };
    const uint32_t f6 = quartet(c >> 8), f7 = quartet(c >> 20);
    out.of[0][r] = quartet(a) | quartet(b >> 4) << 3 | (f6 & low) << 6;
    out.of[1][r] = quartet(a >> 12) | quartet(b >> 16) << 3 | (f6 & high) << 4 | (f7 & high) << 5;
    out.of[2][r] = quartet(a >> 24 | b << 8) | quartet(b >> 28 | c << 4) << 3 | (f7 & low) << 6;
  }
}

void turn(const Words<2>& in, Words<2>& out) {
  for (int i = 0; i < 2; i++)
    for (int r = 0; r < kRows; r++) {
      const uint32_t x = in.of[i][r];
      out.of[i][r] = spread2(x & 255) | spread2(x >> 8 & 255) << 2 | spread2(x >> 16 & 255) << 4 | spread2(x >> 24) << 6;
    }
}

template <int Bits>
void pack_values(const Shape& shape, const uint8_t* source, uint8_t* out) {
  const int64_t row_bytes = shape.blocks() * shape.block / 8 * Bits, units = shape.blocks() * shape.block / kUnit;
  Words<Bits> in{}, turned;
  for (int64_t group = 0; group < shape.groups(); group++) {
    const int64_t first = group * kRows, left = shape.rows - first;
    const int rows = static_cast<int>(left < kRows ? left : kRows);
    if (rows < kRows) in = {};  // rows that fill up the last group are zero
    for (int64_t unit = 0; unit < units; unit++, out += sizeof turned) {
      for (int r = 0; r < rows; r++) {
        uint32_t words[Bits];
        std::memcpy(words, source + (first + r) * row_bytes + unit * sizeof words, sizeof words);
        for (int i = 0; i < Bits; i++) in.of[i][r] = words[i];
      }
      turn(in, turned);
      std::memcpy(out, &turned, sizeof turned);
    }
  }
}

float scale_of(const Source& source, int64_t index) {
  if (!source.half) {
    float value;
    std::memcpy(&value, static_cast<const char*>(source.scales) + 4 * index, 4);
    return value;
  }
  uint16_t value;
  std::memcpy(&value, static_cast<const char*>(source.scales) + 2 * index, 2);
  return to_float(value);
}

// The power of two that brings the largest finite scale to between 2^14 and 2^15.
float unit_of(const Shape& shape, const Source& source) {
  float largest = 0;
  for (int64_t i = 0; i < shape.rows * shape.blocks(); i++) {
    const float scale = std::fabs(scale_of(source, i));
    if (scale < INFINITY && scale > largest) largest = scale;
  }
  if (largest == 0) return 1;
  const int exponent = std::ilogb(largest) - 14;
  return std::ldexp(1.0f, exponent < -120 ? -120 : exponent);  // 1 / unit stays finite
}

int point_of(const Shape& shape, const Source& source, int64_t row, int64_t block) {
  const uint8_t* points = source.points + row * shape.points_row();
  if (shape.bits == 3) return points[block] & 7;
  const int64_t bit = block * shape.bits;
  return points[bit / 8] >> bit % 8 & ((1 << shape.bits) - 1);
}

// By group, then block, then row: as the values lie.
template <class Value, class Of>
void pack_side(const Shape& shape, Value* out, Of of) {
  for (int64_t group = 0; group < shape.groups(); group++)
    for (int64_t block = 0; block < shape.blocks(); block++)
      for (int r = 0; r < kRows; r++) {
        const int64_t row = group * kRows + r;
        *out++ = row < shape.rows ? of(row, block) : Value{0};
      }
}

void fill(Packed& packed, const Source& source) {
  const Shape& shape = packed.shape;
  const size_t values = shape.groups() * shape.blocks() * shape.block_bytes();
  const size_t sides = shape.groups() * shape.blocks() * kRows;
  const Piece memory = allocate(values + sides * (source.points ? 3 : 2));
  uint8_t* out = memory.start;
  auto* scales = reinterpret_cast<uint16_t*>(out + values);  // `values` is a multiple of 64
  auto* points = out + values + 2 * sides;
  switch (shape.bits) {
    case 8: pack_values<8>(shape, source.values, out); break;
    case 4: pack_values<4>(shape, source.values, out); break;
    case 3: pack_values<3>(shape, source.values, out); break;
    case 2: pack_values<2>(shape, source.values, out); break;
  }
  packed.unit = unit_of(shape, source);
  const float inverse = 1 / packed.unit;
  pack_side(shape, scales, [&](int64_t row, int64_t block) {
    return to_half(scale_of(source, row * shape.blocks() + block) * inverse);
  });
  if (source.points)
    pack_side(shape, points, [&](int64_t row, int64_t block) {
      return static_cast<uint8_t>(point_of(shape, source, row, block));
    });
  packed.values = out;
  packed.scales = scales;
  packed.points = source.points ? points : nullptr;
  packed.huge = on_huge_pages(memory, values);
  packed.memory = memory.chunk;
}

// Two independent 64-bit digests of a stretch of memory: weights are shared if both are equal.
struct Digest {
  uint64_t a = 0x9e3779b97f4a7c15, b = 0xc2b2ae3d27d4eb4f;

  void mix(uint64_t x) {
    a = (a ^ x) * 0x9fb21c651e98df25;
    a ^= a >> 29;
    b = (b + x) * 0xd6e8feb86659fd93;
    b ^= b >> 32;
  }

  void add(const void* data, size_t size) {
    const auto* bytes = static_cast<const uint8_t*>(data);
    for (; size >= 8; size -= 8, bytes += 8) {
      uint64_t x;
      std::memcpy(&x, bytes, 8);
      mix(x);
    }
    uint64_t last = size;
    for (size_t i = 0; i < size; i++) last = last << 8 | bytes[i];
    mix(last);
  }
};

using Key = std::pair<uint64_t, uint64_t>;

Key key_of(const Shape& shape, const Source& source) {
  Digest digest;
  for (int64_t number : {shape.columns, shape.rows, int64_t{shape.bits}, int64_t{shape.block}, int64_t{source.half}})
    digest.mix(number);
  digest.add(source.values, shape.bytes());
  digest.add(source.scales, shape.rows * shape.blocks() * (source.half ? 2 : 4));
  if (source.points) digest.add(source.points, shape.rows * shape.points_row());
  return {digest.a, digest.b};
}

// One weight of the process. Its own lock lets two sessions pack different weights at the same time.
struct Entry {
  std::mutex mutex;
  std::weak_ptr<const Packed> packed;
};

std::mutex entries_mutex;
std::map<Key, Entry>& entries() {
  static auto* all = new std::map<Key, Entry>;  // never destroyed: sessions may outlive static objects
  return *all;
}
std::atomic<int64_t> shared_weights{0};

}  // namespace

std::shared_ptr<const Packed> pack(const Shape& shape, const Source& source) {
  const Key key = key_of(shape, source);
  Entry* entry;
  {
    const std::lock_guard<std::mutex> lock(entries_mutex);
    entry = &entries()[key];  // entries stay: a map's elements never move, and an empty one takes 100 bytes
  }
  const std::lock_guard<std::mutex> lock(entry->mutex);
  if (std::shared_ptr<const Packed> packed = entry->packed.lock()) {
    shared_weights++;
    return packed;
  }
  auto packed = std::make_shared<Packed>();
  packed->shape = shape;
  fill(*packed, source);
  entry->packed = packed;
  return packed;
}

Statistics statistics() {
  const std::lock_guard<std::mutex> lock(entries_mutex);
  Statistics found{0, shared_weights.load(), 0, 0};
  for (auto& [key, entry] : entries()) {
    const std::lock_guard<std::mutex> inner(entry.mutex);
    if (const std::shared_ptr<const Packed> packed = entry.packed.lock()) {
      const int64_t bytes = packed->shape.groups() * packed->shape.blocks() * packed->shape.block_bytes();
      found.weights++;
      found.bytes += bytes;
      found.huge_bytes += packed->huge ? bytes : 0;
    }
  }
  return found;
}

}  // namespace voxrill
