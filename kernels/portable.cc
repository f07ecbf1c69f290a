// Plain C++ for every processor. The arithmetic is that of the vector instruction sets, to the last bit.
#include <cmath>

#include "attend.h"
#include "cpu.h"
#include "products.h"
#include "round.h"

namespace voxrill {
namespace {

constexpr int kTogether = 16;  // rows of activations for which a block is unpacked once

// Quartet `i` of a unit of 32 columns, 64 bytes of it: what `turn` put there.
void unpack_quartet(const uint8_t* unit, int bits, int i, uint8_t* out) {
  for (int byte = 0; byte < kVector; byte++) {
    const auto vector = [&](int index) { return unit[index * kVector + byte]; };
    switch (bits) {
      case 8: out[byte] = vector(i); break;
      case 4: out[byte] = vector(i / 2) >> 4 * (i % 2) & 15; break;
      case 2: out[byte] = vector(i / 4) >> 2 * (i % 4) & 3; break;
      case 3:
        if (i < 6) out[byte] = vector(i % 3) >> 3 * (i / 3) & 7;
        else out[byte] = vector(i == 6 ? 0 : 2) >> 6 | (vector(1) >> i & 1) << 2;
    }
  }
}

void unpack_block(const uint8_t* w, const Shape& shape, uint8_t* out) {
  for (int k = 0; k < shape.block; k += kUnit, w += shape.bits * kVector)
    for (int i = 0; i < kUnit / 4; i++, out += kVector) unpack_quartet(w, shape.bits, i, out);
}

// A block of a row of activations, times the block of 16 weight rows.
void multiply_block(const uint8_t* weights, const int8_t* x, int block, int32_t* sums) {
  for (int k = 0; k < block; k += 4, weights += kVector)
    for (int r = 0; r < kRows; r++)
      for (int i = 0; i < 4; i++) sums[r] += weights[4 * r + i] * x[k + i];
}

void multiply_rows(const Product& product, int64_t group, int first, int count) {
  const Packed& weight = *product.weight;
  const Activations& x = product.activations;
  const int block = weight.shape.block, usual = 1 << (weight.shape.bits - 1);
  uint8_t unpacked[kLargestBlock * kRows];
  float out[kTogether][kRows] = {};
  for (int64_t b = 0; b < x.blocks; b++) {
    const int64_t at = group * x.blocks + b;
    unpack_block(weight.values + at * weight.shape.block_bytes(), weight.shape, unpacked);
    for (int m = 0; m < count; m++) {
      const int64_t row = first + m, of_row = row * x.blocks + b;
      int32_t sums[kRows] = {};
      multiply_block(unpacked, x.values + row * x.stride + b * block, block, sums);
      for (int r = 0; r < kRows; r++) {
        const int point = weight.points ? weight.points[at * kRows + r] : usual;
        const float factor = to_float(weight.scales[at * kRows + r]) * x.scales[of_row];
        // fma, because the vector instruction sets round once after both operations, too
        out[m][r] = std::fma(static_cast<float>(sums[r] - point * x.sums[of_row]), factor, out[m][r]);
      }
    }
  }
  const int64_t rows = weight.shape.rows, left = rows - group * kRows;
  for (int m = 0; m < count; m++)
    for (int r = 0; r < kRows && r < left; r++) product.out[(first + m) * rows + group * kRows + r] = out[m][r];
}

void multiply_groups(const Product& product, int64_t first, int64_t last) {
  for (int64_t group = first; group < last; group++)
    for (int row = 0; row < product.rows; row += kTogether)
      multiply_rows(product, group, row, product.rows - row < kTogether ? product.rows - row : kTogether);
}

}  // namespace

const Kernels portable = {"portable", has_nothing_special, round_rows, multiply_groups, begin, attend<Plain>, finish};

}  // namespace voxrill
