// Activations to 8 bits. Each instruction set's file compiles this for itself; plain loops, which compilers vectorise.
#pragma once
#include <cstring>

#include "half.h"
#include "products.h"

namespace voxrill {
namespace {

// A block whose largest magnitude is below 2^-100 counts as zero: 127 divided by it could overflow.
constexpr uint32_t kTiny = (127u - 100) << 23, kInfinity = 0x7f800000, kNan = 0x7fc00000;

// Compared as integers, so that NaN is greater than all: magnitudes of floats order as their bits do.
int32_t largest_bits(const float* x, int block) {
  int32_t largest = 0;
  for (int i = 0; i < block; i++) {
    int32_t bits;
    std::memcpy(&bits, x + i, 4);
    bits &= 0x7fffffff;
    largest = bits > largest ? bits : largest;
  }
  return largest;
}

// To the nearest integer, ties to even, for magnitudes to 127: the addition moves the integer to the lowest bits.
int32_t round_values(const float* x, int block, float factor, int8_t* out) {
  int32_t sum = 0;
  for (int i = 0; i < block; i++) {
    const float moved = x[i] * factor + 0x1.8p23f;
    int32_t bits;
    std::memcpy(&bits, &moved, 4);
    const int32_t value = bits - 0x4b400000;
    out[i] = static_cast<int8_t>(value);
    sum += value;
  }
  return sum;
}

// NaN or infinity in a block makes the block's scale NaN, and so all that is computed with this row, and nothing else.
void round_block(const float* x, int block, float unit, int8_t* values, float* scale, int32_t* sum) {
  const auto bits = static_cast<uint32_t>(largest_bits(x, block));
  if (bits < kTiny || bits >= kInfinity) {
    std::memset(values, 0, static_cast<size_t>(block));
    *scale = bits < kTiny ? 0 : float_of(kNan);
    *sum = 0;
    return;
  }
  const float largest = float_of(bits);
  *scale = largest / 127.0f * unit;
  *sum = round_values(x, block, 127.0f / largest, values);
}

void round_rows(const float* x, const Packed& weight, const Activations& out, int first, int last) {
  const Shape& shape = weight.shape;
  const int block = shape.block;
  for (int row = first; row < last; row++)
    for (int64_t b = 0; b < out.blocks; b++) {
      const float* from = x + row * shape.columns + b * block;
      float padded[kLargestBlock];
      if ((b + 1) * block > shape.columns) {  // the last block may be longer than what is left of the row
        const int64_t left = shape.columns - b * block;
        std::memcpy(padded, from, left * sizeof(float));
        std::memset(padded + left, 0, (block - left) * sizeof(float));
        from = padded;
      }
      const int64_t at = row * out.blocks + b;
      round_block(from, block, weight.unit, out.values + row * out.stride + b * block, out.scales + at, out.sums + at);
    }
}

}  // namespace
}  // namespace voxrill
