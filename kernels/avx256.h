// What AVX2 and AVX-VNNI share: two vectors of 8 rows make a group.
#pragma once
#include <immintrin.h>

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

}  // namespace
}  // namespace voxrill
