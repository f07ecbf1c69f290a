// An attention with an 8-bit KV cache, cut into parts that threads take.
#pragma once
#include <cstdint>

#include "ort_abi.h"

namespace voxrill {

constexpr int64_t kLargestWidth = 256;  // of a head: more could overflow a 32-bit sum

// One run. A head of keys and values serves `group` heads of queries. Its rows are its queries: row = position * group +
// member. The sequence is cut into stretches of whole tiles, which threads take; `finish` puts them together.
struct Attention {
  int64_t group, kv_heads, width, positions, total, capacity;  // `positions` new ones end the `total`
  int64_t stretch, stretches;                                  // tiles of a stretch, and how many stretches there are
  const float *query, *key, *value;                            // [positions, heads * width], new
  const float *key_scales, *value_scales;                      // [kv_heads, width]
  int8_t *keys, *values;                                       // [kv_heads, capacity, width]
  float* out;                                                  // [positions, heads * width]

  int16_t* rounded;  // [kv_heads, rows, width]: queries times the keys' scales, as integers
  float* units;      // [kv_heads, rows]: what 1 of a score stands for, as a power of two
  // Of each stretch, [kv_heads, stretches, rows]: the highest score, the sum of the weights, and the weighted values.
  int32_t* tops;
  float* sums;
  float* mixed;  // [.., width]

  int64_t rows() const { return positions * group; }
  int64_t known() const { return total - positions; }
};

constexpr int kTile = 128;  // keys whose weights are made together: they and their values stay in the first cache

ort::CustomOp attention();  // the operator

}  // namespace voxrill
