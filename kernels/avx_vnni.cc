#if defined(__x86_64__)
#include "avx256.h"
#include "cpu.h"

namespace voxrill {
namespace {

struct AvxVnni : Avx256 {
  static constexpr int kBias = 0;
  using Tiles = TileSizes<6, 4, 3, 2, 1>;

  template <int, int Tile, int Chains, int Quartets>
  static VOXRILL_INLINE void dots(Ints (&sums)[Tile][Chains], const Bytes* f, const int8_t* x, int64_t stride) {
    VOXRILL_UNROLL
    for (int m = 0; m < Tile; m++) {
      VOXRILL_UNROLL
      for (int i = 0; i < Quartets; i++)
        sums[m][i % Chains] = _mm256_dpbusd_avx_epi32(sums[m][i % Chains], f[i], quartet(x + m * stride + 4 * i));
    }
  }
};

}  // namespace

const Kernels avx_vnni = {"avx_vnni", has_avx_vnni, round_rows, multiply<AvxVnni>, begin, attend<Attend256>, finish};

}  // namespace voxrill
#endif
