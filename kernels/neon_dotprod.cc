#if defined(__aarch64__)
#include "cpu.h"
#include "neon.h"

namespace voxrill {
namespace {

struct Dotprod : Neon {
  using Tiles = TileSizes<8, 6, 4, 3, 2, 1>;
};

}  // namespace

const Kernels neon_dotprod = {"neon_dotprod", has_neon_dotprod, round_rows, multiply<Dotprod>, begin, attend<AttendNeon>,
                              finish};

}  // namespace voxrill
#endif
