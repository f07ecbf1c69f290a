#include "cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__aarch64__) && defined(_WIN32)
#include <windows.h>
#endif

namespace voxrill {

bool has_nothing_special() { return true; }

#if defined(__x86_64__)
namespace {

struct Registers {
  unsigned a = 0, b = 0, c = 0, d = 0;
};

Registers ask(unsigned leaf, unsigned part = 0) {
  Registers r;
  if (!__get_cpuid_count(leaf, part, &r.a, &r.b, &r.c, &r.d)) return {};
  return r;
}

bool bit(unsigned word, int index) { return word >> index & 1; }

// Whether the system saves these registers when threads change: 2 and 4 for AVX, also 0xe0 for AVX-512.
bool system_saves(unsigned mask) {
  if (!bit(ask(1).c, 27)) return false;  // without OSXSAVE the next instruction is not there
  unsigned low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & mask) == mask;
}

}  // namespace

bool has_avx2() {
  const unsigned c = ask(1).c;
  const bool fma = bit(c, 12), f16c = bit(c, 29);
  return system_saves(6) && fma && f16c && bit(ask(7).b, 5);
}

bool has_avx_vnni() { return has_avx2() && bit(ask(7, 1).a, 4); }

bool has_avx512_vnni() {
  const Registers r = ask(7);
  const bool f = bit(r.b, 16), dq = bit(r.b, 17), bw = bit(r.b, 30), vl = bit(r.b, 31), vnni = bit(r.c, 11);
  return has_avx2() && system_saves(0xe6) && f && dq && bw && vl && vnni;
}

#elif defined(__aarch64__)
#if defined(__linux__)
bool has_neon_dotprod() { return getauxval(16) >> 20 & 1; }                         // AT_HWCAP: ASIMDDP
bool has_neon_i8mm() { return has_neon_dotprod() && getauxval(26) >> 13 & 1; }  // AT_HWCAP2: I8MM
#elif defined(__APPLE__)
namespace {
bool system_names(const char* feature) {
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname(feature, &value, &size, nullptr, 0) == 0 && value;
}
}  // namespace
bool has_neon_dotprod() { return system_names("hw.optional.arm.FEAT_DotProd"); }
bool has_neon_i8mm() { return has_neon_dotprod() && system_names("hw.optional.arm.FEAT_I8MM"); }
#elif defined(_WIN32)
bool has_neon_dotprod() { return IsProcessorFeaturePresent(43); }  // PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE
bool has_neon_i8mm() { return false; }                             // Windows does not say
#else
bool has_neon_dotprod() { return false; }
bool has_neon_i8mm() { return false; }
#endif
#endif

}  // namespace voxrill
