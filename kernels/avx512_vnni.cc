#if defined(__x86_64__)
#include <immintrin.h>

#include "cpu.h"
#include "tile.h"

namespace voxrill {
namespace {

struct Avx512 {
  static constexpr int kLanes = 16, kBias = 0;
  using Tiles = TileSizes<12, 8, 6, 4, 3, 2, 1>;
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

  template <int, int Tile, int Chains, int Quartets>
  static VOXRILL_INLINE void dots(Ints (&sums)[Tile][Chains], const Bytes* f, const int8_t* x, int64_t stride) {
    VOXRILL_UNROLL
    for (int m = 0; m < Tile; m++) {
      VOXRILL_UNROLL
      for (int i = 0; i < Quartets; i++) {
        int32_t quartet;
        std::memcpy(&quartet, x + m * stride + 4 * i, 4);
        sums[m][i % Chains] = _mm512_dpbusd_epi32(sums[m][i % Chains], f[i], every(quartet));
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

}  // namespace

const Kernels avx512_vnni = {"avx512_vnni", has_avx512_vnni, round_rows, multiply<Avx512>};

}  // namespace voxrill
#endif
