#if defined(__aarch64__)
#include "cpu.h"
#include "neon.h"

namespace voxrill {
namespace {

// The instruction multiplies 2 weight rows of 8 columns by 2 rows of activations. Two successive quartets of 4 rows are
// zipped to two vectors of 2 rows of 8 columns. Of each pair of rows of activations m and m + 1, sums[m] holds weight
// rows 0 and 1, sums[m + 1] rows 2 and 3: (row 0, m), (row 0, m + 1), (row 1, m), (row 1, m + 1).
struct I8mm : Neon {
  using Tiles = TileSizes<8, 4, 2, 1>;  // pairs, and one

  template <int Bits, int Tile, int Chains, int Quartets>
  static VOXRILL_INLINE void dots(Ints (&sums)[Tile][Chains], const Bytes* f, const int8_t* x, int64_t stride) {
    if (Tile == 1) return Neon::dots<Bits, Tile, Chains, Quartets>(sums, f, x, stride);
    VOXRILL_UNROLL
    for (int i = 0; i < Quartets; i += 2) {
      const int32x4_t even = vreinterpretq_s32_s8(signs<Bits>(f[i])), odd = vreinterpretq_s32_s8(signs<Bits>(f[i + 1]));
      const int8x16_t first = vreinterpretq_s8_s32(vzip1q_s32(even, odd));
      const int8x16_t second = vreinterpretq_s8_s32(vzip2q_s32(even, odd));
      VOXRILL_UNROLL
      for (int m = 0; m + 1 < Tile; m += 2) {
        const int8_t* at = x + m * stride + 4 * i;
        const int8x16_t pair = vcombine_s8(vld1_s8(at), vld1_s8(at + stride));
        sums[m][0] = vmmlaq_s32(sums[m][0], first, pair);
        sums[m + 1][0] = vmmlaq_s32(sums[m + 1][0], second, pair);
      }
    }
  }

  template <int Tile>
  static VOXRILL_INLINE void settle(Ints (&totals)[Tile]) {
    VOXRILL_UNROLL
    for (int m = 0; m + 1 < Tile; m += 2) {
      const Ints low = totals[m], high = totals[m + 1];
      totals[m] = vuzp1q_s32(low, high);
      totals[m + 1] = vuzp2q_s32(low, high);
    }
  }
};

}  // namespace

const Kernels neon_i8mm = {"neon_i8mm", has_neon_i8mm, round_rows, multiply<I8mm>, begin, attend<AttendNeon>,
                              finish};

}  // namespace voxrill
#endif
