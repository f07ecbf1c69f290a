#if defined(__x86_64__)
#include <immintrin.h>

#include "attend.h"
#include "cpu.h"
#include "tile.h"

namespace voxrill {
namespace {

struct Avx512 {
  static constexpr int kLanes = 16, kBias = 0;
  static constexpr int kPairsFrom = 12;  // fewer wait for the memory, which is read faster as one stream
  using Tiles = TileSizes<12, 8, 6, 4, 3, 2, 1>;
  using PairTiles = TileSizes<8, 6, 4, 2, 1>;
  using Bytes = __m512i;
  using Ints = __m512i;

  static VOXRILL_INLINE Bytes load(const uint8_t* p) { return _mm512_loadu_si512(p); }
  static VOXRILL_INLINE Bytes keep(Bytes v, int mask) { return _mm512_and_si512(v, _mm512_set1_epi8(mask)); }
  template <int Count>
  static VOXRILL_INLINE Bytes right(Bytes v) { return _mm512_srli_epi16(v, Count); }
  static VOXRILL_INLINE Bytes either(Bytes a, Bytes b) { return _mm512_or_si512(a, b); }
  static VOXRILL_INLINE Ints zero() { return _mm512_setzero_si512(); }
  static VOXRILL_INLINE Ints every(int32_t x) { return _mm512_set1_epi32(x); }
  static VOXRILL_INLINE Ints plus(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
  static VOXRILL_INLINE Ints minus(Ints a, Ints b) { return _mm512_sub_epi32(a, b); }
  static VOXRILL_INLINE Ints times(Ints a, int32_t b) { return _mm512_mullo_epi32(a, every(b)); }
  static VOXRILL_INLINE Ints points(const uint8_t* p, int) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }

  template <int Groups, int Tile, int Chains, int Quartets>
  static VOXRILL_INLINE void side_by_side(Ints (&sums)[Groups][Tile][Chains], const Bytes (&f)[Groups][Quartets],
                                          const int8_t* x, int64_t stride) {
    VOXRILL_UNROLL
    for (int m = 0; m < Tile; m++) {
      VOXRILL_UNROLL
      for (int i = 0; i < Quartets; i++) {
        int32_t quartet;
        std::memcpy(&quartet, x + m * stride + 4 * i, 4);
        const Ints all = every(quartet);
        VOXRILL_UNROLL
        for (int g = 0; g < Groups; g++)
          sums[g][m][i % Chains] = _mm512_dpbusd_epi32(sums[g][m][i % Chains], f[g][i], all);
      }
    }
  }

  template <int Tile>
  static VOXRILL_INLINE void settle(Ints (&)[Tile]) {}

  static VOXRILL_INLINE void add(float* out, Ints total, const uint16_t* scales, float activation) {
    const __m512 scale = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales)));
    const __m512 factor = _mm512_mul_ps(scale, _mm512_set1_ps(activation));
    _mm512_store_ps(out, _mm512_fmadd_ps(_mm512_cvtepi32_ps(total), factor, _mm512_load_ps(out)));
  }
};

struct Attend512 {
  static constexpr int kWidth = 32;

  static VOXRILL_INLINE __m512i wide(const int8_t* p) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }

  static void scores(const int16_t* queries, int rows, const int8_t* keys, int count, int64_t width, int32_t* out) {
    alignas(64) int16_t four[4 * kLargestWidth];  // keys, made wide once for all rows
    for (int t = 0; t < count; t += 4) {
      for (int64_t i = 0; i < 4 * width; i += 32) _mm512_store_si512(four + i, wide(keys + t * width + i));
      for (int row = 0; row < rows; row++) {
        __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
        for (int64_t i = 0; i < width; i += 32) {
          const __m512i query = _mm512_loadu_si512(queries + row * width + i);
          a = _mm512_dpwssd_epi32(a, query, _mm512_load_si512(four + i));
          b = _mm512_dpwssd_epi32(b, query, _mm512_load_si512(four + width + i));
          c = _mm512_dpwssd_epi32(c, query, _mm512_load_si512(four + 2 * width + i));
          d = _mm512_dpwssd_epi32(d, query, _mm512_load_si512(four + 3 * width + i));
        }
        const __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        const __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        const __m512i all = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
        const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
        const __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + row * kTile + t), sum);
      }
    }
  }

  // The bytes of two positions are zipped, so that an instruction adds up both. `count` is rounded up to a pair: the
  // second weight of the last pair is 0 then, and its values those of the first.
  template <int Rows>
  static void mix(const int16_t* weights, const int8_t* values, int count, int64_t width, int32_t* out) {
    for (int64_t i = 0; i < width; i += 32) {
      __m512i low[Rows], high[Rows];  // channels 0 to 7 and 16 to 23; 8 to 15 and 24 to 31
      VOXRILL_UNROLL
      for (int row = 0; row < Rows; row++) low[row] = high[row] = _mm512_setzero_si512();
      for (int t = 0; t < count; t += 2) {
        const int8_t *one = values + t * width + i, *two = t + 1 < count ? one + width : one;
        const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(one));
        const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(two));
        const __m512i x = _mm512_cvtepi8_epi16(_mm256_unpacklo_epi8(a, b));
        const __m512i y = _mm512_cvtepi8_epi16(_mm256_unpackhi_epi8(a, b));
        VOXRILL_UNROLL
        for (int row = 0; row < Rows; row++) {
          int32_t pair;
          std::memcpy(&pair, weights + row * kTile + t, 4);
          low[row] = _mm512_dpwssd_epi32(low[row], x, _mm512_set1_epi32(pair));
          high[row] = _mm512_dpwssd_epi32(high[row], y, _mm512_set1_epi32(pair));
        }
      }
      VOXRILL_UNROLL
      for (int row = 0; row < Rows; row++) {
        __m256i* to = reinterpret_cast<__m256i*>(out + row * width + i);
        _mm256_storeu_si256(to, _mm512_castsi512_si256(low[row]));
        _mm256_storeu_si256(to + 1, _mm512_castsi512_si256(high[row]));
        _mm256_storeu_si256(to + 2, _mm512_extracti64x4_epi64(low[row], 1));
        _mm256_storeu_si256(to + 3, _mm512_extracti64x4_epi64(high[row], 1));
      }
    }
  }
};

}  // namespace

const Kernels avx512_vnni = {"avx512_vnni", has_avx512_vnni, round_rows, multiply<Avx512>,
                             begin, attend<Attend512>, finish};

}  // namespace voxrill
#endif
