// What AVX2 and AVX-VNNI share: two vectors of 8 rows make a group.
#pragma once
#include <immintrin.h>

#include "attend.h"
#include "tile.h"

namespace voxrill {
namespace {

struct Avx256 {
  static constexpr int kLanes = 8;
  using Bytes = __m256i;
  using Ints = __m256i;

  static VOXRILL_INLINE Bytes load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const Bytes*>(p)); }
  static VOXRILL_INLINE Bytes keep(Bytes v, int mask) { return _mm256_and_si256(v, _mm256_set1_epi8(mask)); }
  template <int Count>
  static VOXRILL_INLINE Bytes right(Bytes v) { return _mm256_srli_epi16(v, Count); }
  static VOXRILL_INLINE Bytes either(Bytes a, Bytes b) { return _mm256_or_si256(a, b); }
  static VOXRILL_INLINE Ints zero() { return _mm256_setzero_si256(); }
  static VOXRILL_INLINE Ints every(int32_t x) { return _mm256_set1_epi32(x); }
  static VOXRILL_INLINE Ints plus(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
  static VOXRILL_INLINE Ints minus(Ints a, Ints b) { return _mm256_sub_epi32(a, b); }
  static VOXRILL_INLINE Ints times(Ints a, int32_t b) { return _mm256_mullo_epi32(a, every(b)); }
  static VOXRILL_INLINE Ints points(const uint8_t* p, int bias) {
    return minus(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))), every(bias));
  }
  static VOXRILL_INLINE Ints quartet(const int8_t* x) {
    int32_t four;
    std::memcpy(&four, x, 4);
    return every(four);
  }

  template <int Tile>
  static VOXRILL_INLINE void settle(Ints (&)[Tile]) {}

  static VOXRILL_INLINE void add(float* out, Ints total, const uint16_t* scales, float activation) {
    const __m256 scale = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(scales)));
    const __m256 factor = _mm256_mul_ps(scale, _mm256_set1_ps(activation));
    _mm256_store_ps(out, _mm256_fmadd_ps(_mm256_cvtepi32_ps(total), factor, _mm256_load_ps(out)));
  }
};

struct Attend256 {
  static constexpr int kWidth = 16;

  static VOXRILL_INLINE __m128i sixteen(const int8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }

  static void scores(const int16_t* queries, int rows, const int8_t* keys, int count, int64_t width, int32_t* out) {
    alignas(32) int16_t four[4 * kLargestWidth];  // keys, made wide once for all rows
    for (int t = 0; t < count; t += 4) {
      for (int64_t i = 0; i < 4 * width; i += 16)
        _mm256_store_si256(reinterpret_cast<__m256i*>(four + i), _mm256_cvtepi8_epi16(sixteen(keys + t * width + i)));
      for (int row = 0; row < rows; row++) {
        __m256i sums[4] = {};
        for (int64_t i = 0; i < width; i += 16) {
          const __m256i query = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(queries + row * width + i));
          VOXRILL_UNROLL
          for (int k = 0; k < 4; k++) {
            const __m256i key = _mm256_load_si256(reinterpret_cast<const __m256i*>(four + k * width + i));
            sums[k] = _mm256_add_epi32(sums[k], _mm256_madd_epi16(query, key));
          }
        }
        const __m256i all = _mm256_hadd_epi32(_mm256_hadd_epi32(sums[0], sums[1]), _mm256_hadd_epi32(sums[2], sums[3]));
        const __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + row * kTile + t), sum);
      }
    }
  }

  // The bytes of two positions are zipped, so that an instruction adds up both. `count` is rounded up to a pair: the
  // second weight of the last pair is 0 then, and its values those of the first.
  template <int Rows>
  static void mix(const int16_t* weights, const int8_t* values, int count, int64_t width, int32_t* out) {
    for (int64_t i = 0; i < width; i += 16) {
      __m256i low[Rows], high[Rows];  // channels 0 to 7, 8 to 15
      VOXRILL_UNROLL
      for (int row = 0; row < Rows; row++) low[row] = high[row] = _mm256_setzero_si256();
      for (int t = 0; t < count; t += 2) {
        const int8_t* one = values + t * width + i;
        const __m128i a = sixteen(one), b = sixteen(t + 1 < count ? one + width : one);
        const __m256i x = _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(a, b)), y = _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(a, b));
        VOXRILL_UNROLL
        for (int row = 0; row < Rows; row++) {
          int32_t both;
          std::memcpy(&both, weights + row * kTile + t, 4);
          const __m256i pair = _mm256_set1_epi32(both);
          low[row] = _mm256_add_epi32(low[row], _mm256_madd_epi16(x, pair));
          high[row] = _mm256_add_epi32(high[row], _mm256_madd_epi16(y, pair));
        }
      }
      VOXRILL_UNROLL
      for (int row = 0; row < Rows; row++) {
        __m256i* to = reinterpret_cast<__m256i*>(out + row * width + i);
        _mm256_storeu_si256(to, low[row]);
        _mm256_storeu_si256(to + 1, high[row]);
      }
    }
  }
};

}  // namespace
}  // namespace voxrill
