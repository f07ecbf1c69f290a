// The attention's arithmetic, written once for all instruction sets. A set `V` gives two sums of integers:
//
//   kWidth   head widths must be a multiple of it for the set's own code; plain loops do the rest
//   scores   of `count` keys (a multiple of 4) for each row of queries: [rows][kTile]
//   mix<Rows>   the values of `count` positions (even), weighted, for some rows
//
// A query times the keys' scales becomes integers of 16 bits; so do the weights, of which the largest of a tile's row is
// 32767 at most. All sums are exact in 32 bits: 256 * 32767 * 128 and 128 * 32767 * 128 are less than 2^31. The rest is
// plain loops without fused operations, which compilers vectorise. So every instruction set gives the same bits.
//
// Every file compiles this for itself: all lies in an unnamed namespace, because the linker must not mix the copies.
#pragma once
#include <cmath>
#include <type_traits>

#include "attention.h"
#include "round.h"

namespace voxrill {
namespace {

constexpr int kRowsTogether = 16;       // rows of queries for which a tile is read once
constexpr float kLargest = 32767;   // of 16 bits
constexpr float kMagic = 0x1.8p23f;  // added to a small float it moves the nearest integer into the lowest bits

inline int32_t nearest(float x) { return static_cast<int32_t>(bits_of(x + kMagic)) - 0x4b400000; }

// 2^x for x <= 0; below -30 the same as there, which rounds to a weight of 0.
inline float power(float x) {
  x = x < -30 ? -30 : x;
  const float whole = x + kMagic, f = x - (whole - kMagic);  // f from -0.5 to 0.5
  float y = 1.5403530e-4f;                                   // ln(2)^k / k!, k from 6 to 0
  y = y * f + 1.3333558e-3f;
  y = y * f + 9.6181291e-3f;
  y = y * f + 5.5504109e-2f;
  y = y * f + 2.4022651e-1f;
  y = y * f + 6.9314718e-1f;
  y = y * f + 1.0f;
  return float_of(bits_of(y) + (bits_of(whole) << 23));
}

// Round a row of queries; what 1 of its scores stands for. NaN or infinity makes that NaN, and with it the row's result.
inline float round_query(const float* query, const float* scales, float factor, int64_t width, int16_t* out) {
  float scaled[kLargestWidth];
  for (int64_t i = 0; i < width; i++) scaled[i] = query[i] * scales[i];
  const auto bits = static_cast<uint32_t>(largest_bits(scaled, static_cast<int>(width)));
  if (bits < kTiny || bits >= kInfinity) {
    for (int64_t i = 0; i < width; i++) out[i] = 0;
    return bits < kTiny ? 0 : float_of(kNan);
  }
  const float largest = float_of(bits), down = kLargest / largest;
  for (int64_t i = 0; i < width; i++) out[i] = static_cast<int16_t>(nearest(scaled[i] * down));
  return largest / kLargest * factor;
}

// To the nearest integer, ties to even, as onnxruntime writes its cache.
inline void round_cache(const float* x, const float* scales, int64_t width, int8_t* out) {
  for (int64_t i = 0; i < width; i++) {
    float y = x[i] / scales[i];
    y = y > -128 ? y : -128;  // NaN becomes -128
    y = y < 127 ? y : 127;
    out[i] = static_cast<int8_t>(nearest(y));
  }
}

// Write the new keys and values into the cache, and round the queries.
inline void begin(const Attention& work, int64_t head) {
  const int64_t width = work.width, wide = work.kv_heads * width;
  const float *key_scales = work.key_scales + head * width, *value_scales = work.value_scales + head * width;
  const float factor = 1.44269504f / std::sqrt(static_cast<float>(width));  // to a power of two
  for (int64_t i = 0; i < work.positions; i++) {
    const int64_t from = i * wide + head * width, to = (head * work.capacity + work.known() + i) * width;
    round_cache(work.key + from, key_scales, width, work.keys + to);
    round_cache(work.value + from, value_scales, width, work.values + to);
    for (int64_t member = 0; member < work.group; member++) {
      const int64_t row = head * work.rows() + i * work.group + member;
      const float* query = work.query + (i * work.kv_heads + head) * work.group * width + member * width;
      work.units[row] = round_query(query, key_scales, factor, width, work.rounded + row * width);
    }
  }
}

inline int32_t dot(const int16_t* a, const int8_t* b, int64_t width) {
  int32_t sum = 0;
  for (int64_t i = 0; i < width; i++) sum += a[i] * b[i];
  return sum;
}

struct Plain {
  static constexpr int kWidth = 1;

  static void scores(const int16_t* queries, int rows, const int8_t* keys, int count, int64_t width, int32_t* out) {
    for (int t = 0; t < count; t++)
      for (int row = 0; row < rows; row++) out[row * kTile + t] = dot(queries + row * width, keys + t * width, width);
  }

  template <int Rows>
  static void mix(const int16_t* weights, const int8_t* values, int count, int64_t width, int32_t* out) {
    std::memset(out, 0, Rows * width * sizeof *out);
    for (int t = 0; t < count; t++)
      for (int row = 0; row < Rows; row++)
        for (int64_t i = 0; i < width; i++) out[row * width + i] += weights[row * kTile + t] * values[t * width + i];
  }
};

// What a stretch knows of a row so far.
struct Row {
  int32_t top;  // the highest score
  float sum;    // of the weights, relative to the highest score
};

// How a tile joins what was mixed before: both count by the highest score.
struct Join {
  float before, tile;
};

// Scores of a tile to weights, relative to the tile's highest score: so that a long tail of low scores keeps its weight.
// `count`: the keys that this row sees.
inline Join weigh(const int32_t* scores, int count, float unit, Row* row, int16_t* weights) {
  std::memset(weights, 0, kTile * sizeof *weights);
  if (count <= 0) return {1, 0};
  int32_t highest = scores[0], sum = 0;
  for (int t = 0; t < count; t++) highest = scores[t] > highest ? scores[t] : highest;
  for (int t = 0; t < count; t++) {
    const auto weight = static_cast<int16_t>(nearest(power(static_cast<float>(scores[t] - highest) * unit) * kLargest));
    weights[t] = weight;
    sum += weight;
  }
  const bool first = row->sum == 0;
  const int32_t top = first || highest > row->top ? highest : row->top;
  const Join join = {first ? 0 : power(static_cast<float>(row->top - top) * unit),
                     power(static_cast<float>(highest - top) * unit)};
  *row = {top, row->sum * join.before + static_cast<float>(sum) * join.tile};
  return join;
}

template <class V, int Rows>
void mix_rows(const int16_t* weights, const int8_t* values, int count, int64_t width, const Join* joins, float* out) {
  int32_t sums[Rows * kLargestWidth];
  V::template mix<Rows>(weights, values, count, width, sums);
  for (int row = 0; row < Rows; row++)
    for (int64_t i = 0; i < width; i++)
      out[row * width + i] =
          out[row * width + i] * joins[row].before + static_cast<float>(sums[row * width + i]) * joins[row].tile;
}

// One stretch for `rows` rows from `first` on.
template <class V>
void attend_rows(const Attention& work, int64_t head, int64_t stretch, int64_t first, int rows) {
  const int64_t width = work.width, row = head * work.rows() + first;
  const int64_t part = (head * work.stretches + stretch) * work.rows() + first;
  const int64_t begin = stretch * work.stretch * kTile, whole = begin + work.stretch * kTile;
  const int64_t seen = work.known() + (first + rows - 1) / work.group + 1, end = whole < seen ? whole : seen;
  const int16_t* queries = work.rounded + row * width;
  float* mixed = work.mixed + part * width;
  std::memset(mixed, 0, rows * width * sizeof *mixed);
  Row state[kRowsTogether] = {};
  for (int64_t key = begin; key < end; key += kTile) {
    const int count = static_cast<int>(end - key < kTile ? end - key : kTile), fours = count & ~3;
    const int8_t *keys = work.keys + (head * work.capacity + key) * width;
    const int8_t *values = work.values + (head * work.capacity + key) * width;
    alignas(64) int32_t scores[kRowsTogether * kTile];
    alignas(64) int16_t weights[kRowsTogether * kTile];
    Join joins[kRowsTogether];
    V::scores(queries, rows, keys, fours, width, scores);
    Plain::scores(queries, rows, keys + fours * width, count - fours, width, scores + fours);
    for (int r = 0; r < rows; r++) {
      const int64_t visible = work.known() + (first + r) / work.group + 1 - key;
      joins[r] = weigh(scores + r * kTile, static_cast<int>(visible < count ? visible : count), work.units[row + r],
                         state + r, weights + r * kTile);
    }
    int r = 0;
    const auto mix = [&](auto size) {
      for (; r + size.value <= rows; r += size.value)
        mix_rows<V, size.value>(weights + r * kTile, values, count, width, joins + r, mixed + r * width);
    };
    mix(std::integral_constant<int, 4>{});
    mix(std::integral_constant<int, 2>{});
    mix(std::integral_constant<int, 1>{});
  }
  for (int r = 0; r < rows; r++) work.tops[part + r] = state[r].top, work.sums[part + r] = state[r].sum;
}

template <class V>
void attend(const Attention& work, int64_t head, int64_t stretch) {
  const int64_t rows = work.rows();
  for (int64_t first = 0; first < rows; first += kRowsTogether) {
    const int count = static_cast<int>(rows - first < kRowsTogether ? rows - first : kRowsTogether);
    if (work.width % V::kWidth) attend_rows<Plain>(work, head, stretch, first, count);
    else attend_rows<V>(work, head, stretch, first, count);
  }
}

// Put the stretches of a head together: each counts by its highest score.
inline void finish(const Attention& work, int64_t head) {
  const int64_t width = work.width, rows = work.rows();
  for (int64_t row = 0; row < rows; row++) {
    const float unit = work.units[head * rows + row], *scales = work.value_scales + head * width;
    float* out = work.out + (row / work.group * work.kv_heads + head) * work.group * width + row % work.group * width;
    const auto at = [&](int64_t stretch) { return (head * work.stretches + stretch) * rows + row; };
    int32_t top = work.tops[at(0)];  // each row sees the first key
    for (int64_t s = 1; s < work.stretches; s++)
      if (work.sums[at(s)] > 0 && work.tops[at(s)] > top) top = work.tops[at(s)];
    float sum = 0, mixed[kLargestWidth] = {};
    for (int64_t s = 0; s < work.stretches; s++) {
      const int64_t part = at(s);
      if (!(work.sums[part] > 0)) continue;
      const float factor = power(static_cast<float>(work.tops[part] - top) * unit);
      sum += work.sums[part] * factor;
      for (int64_t i = 0; i < width; i++) mixed[i] += work.mixed[part * width + i] * factor;
    }
    const float share = unit == unit ? 1 / sum : unit;  // a query that is not finite
    for (int64_t i = 0; i < width; i++) out[i] = mixed[i] * share * scales[i];
  }
}

}  // namespace
}  // namespace voxrill
