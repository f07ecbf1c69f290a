// A weight as the kernels read it: one contiguous stream for each thread. docs/kernels.md draws the layout.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

namespace voxrill {

constexpr int kRows = 16;      // rows of a group: they lie side by side
constexpr int kVector = 64;    // bytes: 16 rows of 4 successive columns (a "quartet" each)
constexpr int kUnit = 32;      // columns that are packed together: as many vectors as a weight has bits
constexpr int kLargestBlock = 256;

// What a product is, and how its weight comes: the inputs and attributes of onnxruntime's MatMulNBits.
struct Shape {
  int64_t columns;  // K
  int64_t rows;     // N
  int bits;         // 2, 3, 4 or 8
  int block;        // columns that share a scale: 32, 64, 128 or 256

  int64_t blocks() const { return (columns + block - 1) / block; }
  int64_t groups() const { return (rows + kRows - 1) / kRows; }
  int64_t bytes() const { return rows * blocks() * block / 8 * bits; }                    // of `values`
  int64_t points_row() const { return bits == 3 ? blocks() : (blocks() * bits + 7) / 8; }  // bytes of `points` a row
  int64_t block_bytes() const { return int64_t{2} * block * bits; }  // packed, of a group
};

struct Source {
  const uint8_t* values;  // [rows, blocks, block * bits / 8]
  const void* scales;     // [rows, blocks], float32 or float16
  bool half;              // the scales are float16
  const uint8_t* points;  // [rows, points_row] or null: 2^(bits - 1)
};

struct Packed {
  Shape shape;
  const uint8_t* values;   // [groups, blocks, block / 32, bits, 64]
  const uint16_t* scales;  // [groups, blocks, 16], float16, divided by `unit`
  const uint8_t* points;   // [groups, blocks, 16] or null
  float unit;              // a power of two, so that small scales keep all bits of a float16
  bool huge;               // the stream lies on huge pages
  std::shared_ptr<void> memory;
};

// Pack a weight, or find it packed already: two graphs that use the same numbers share them. Throws std::bad_alloc.
std::shared_ptr<const Packed> pack(const Shape& shape, const Source& source);

struct Statistics {
  int64_t weights, shared, bytes, huge_bytes;
};
Statistics statistics();

}  // namespace voxrill
