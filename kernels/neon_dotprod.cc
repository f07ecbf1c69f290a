#if defined(__aarch64__)
#include "cpu.h"
#include "neon.h"

namespace voxrill {
namespace {

struct Dotprod : Neon {
  static constexpr int kTile = 8;
};

}  // namespace

const Kernels neon_dotprod = {"neon_dotprod", has_neon_dotprod, round_rows, multiply<Dotprod>};

}  // namespace voxrill
#endif
