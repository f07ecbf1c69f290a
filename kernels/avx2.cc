#if defined(__x86_64__)
#include "avx256.h"
#include "cpu.h"

namespace voxrill {
namespace {

// Products of bytes are added up in 16 bits first, which saturate. A step's sum stays below 2^15:
// 2 * 127 * 15 * 4 quartets of 4 bits = 15240, 2 * 127 * 7 * 8 of 3 bits = 14224, 2 * 127 * 3 * 4 of 2 bits = 3048.
// 8 bits: 2 * 127 * 128 = 32512 with |w| <= 128 and the weight's sign given to the activation, one quartet at a time.
struct Avx2 : Avx256 {
  static constexpr int kBias = 128;
  using Tiles = TileSizes<4, 3, 2, 1>;

  template <int Bits, int Tile, int Chains, int Quartets>
  static VOXRILL_INLINE void dots(Ints (&sums)[Tile][Chains], const Bytes* f, const int8_t* x, int64_t stride) {
    const Ints ones = _mm256_set1_epi16(1);
    if (Bits == 8) {
      VOXRILL_UNROLL
      for (int i = 0; i < Quartets; i++) {
        const Bytes weight = _mm256_xor_si256(f[i], _mm256_set1_epi8(-128)), magnitude = _mm256_abs_epi8(weight);
        VOXRILL_UNROLL
        for (int m = 0; m < Tile; m++) {
          const Bytes turned = _mm256_sign_epi8(quartet(x + m * stride + 4 * i), weight);
          const Ints sum = _mm256_madd_epi16(_mm256_maddubs_epi16(magnitude, turned), ones);
          sums[m][i % Chains] = plus(sums[m][i % Chains], sum);
        }
      }
      return;
    }
    VOXRILL_UNROLL
    for (int m = 0; m < Tile; m++) {
      const int8_t* row = x + m * stride;
      Ints sum = _mm256_maddubs_epi16(f[0], quartet(row));
      VOXRILL_UNROLL
      for (int i = 1; i < Quartets; i++) sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(f[i], quartet(row + 4 * i)));
      sums[m][0] = plus(sums[m][0], _mm256_madd_epi16(sum, ones));
    }
  }
};

}  // namespace

const Kernels avx2 = {"avx2", has_avx2, round_rows, multiply<Avx2>, begin, attend<Attend256>, finish};

}  // namespace voxrill
#endif
