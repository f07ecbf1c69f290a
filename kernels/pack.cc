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

uint32_t word(const uint8_t* bytes) {
  return bytes[0] | bytes[1] << 8 | bytes[2] << 16 | static_cast<uint32_t>(bytes[3]) << 24;
}

// 32 numbers of a row to one word of each vector. A word has four columns in its bytes, several quartets in its bits.
template <int Bits>
void pack_unit(const uint8_t* source, uint32_t* out);

template <>
void pack_unit<8>(const uint8_t* source, uint32_t* out) {
  for (int i = 0; i < 8; i++) out[i] = word(source + 4 * i);
}

template <>
void pack_unit<4>(const uint8_t* source, uint32_t* out) {
  for (int i = 0; i < 4; i++) {
    const uint32_t x = word(source + 4 * i);
    out[i] = spread4(x & 0xffff) | spread4(x >> 16) << 4;
  }
}

template <>
void pack_unit<3>(const uint8_t* source, uint32_t* out) {
  uint32_t f[8];
  for (int i = 0; i < 8; i++) {
    const uint8_t* bytes = source + 3 * (i / 2);  // 24 bits hold two quartets
    f[i] = spread3((bytes[0] | bytes[1] << 8 | bytes[2] << 16) >> 12 * (i % 2) & 0xfff);
  }
  const uint32_t low = 0x03030303, high = 0x04040404;  // quartets 6 and 7 fill the two bits that are left in each byte
  out[0] = f[0] | f[3] << 3 | (f[6] & low) << 6;
  out[1] = f[1] | f[4] << 3 | (f[6] & high) << 4 | (f[7] & high) << 5;
  out[2] = f[2] | f[5] << 3 | (f[7] & low) << 6;
}

template <>
void pack_unit<2>(const uint8_t* source, uint32_t* out) {
  for (int i = 0; i < 2; i++, source += 4)
    out[i] = spread2(source[0]) | spread2(source[1]) << 2 | spread2(source[2]) << 4 | spread2(source[3]) << 6;
}

template <int Bits>
void pack_values(const Shape& shape, const uint8_t* source, uint8_t* out) {
  const int64_t row_bytes = shape.blocks() * shape.block / 8 * Bits, units = shape.blocks() * shape.block / kUnit;
  for (int64_t group = 0; group < shape.groups(); group++)
    for (int64_t unit = 0; unit < units; unit++, out += Bits * kVector)
      for (int r = 0; r < kRows; r++) {
        const int64_t row = group * kRows + r;
        uint32_t words[Bits] = {};
        if (row < shape.rows) pack_unit<Bits>(source + row * row_bytes + unit * 4 * Bits, words);
        for (int i = 0; i < Bits; i++) std::memcpy(out + i * kVector + 4 * r, words + i, 4);
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
  const std::shared_ptr<uint8_t> memory = allocate(values + sides * (source.points ? 3 : 2));
  uint8_t* out = memory.get();
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
  packed.huge = on_huge_pages(out, values);
  packed.memory = memory;
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
