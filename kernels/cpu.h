// What this processor and its system can run. Asked of the processor itself: the compiler's own function for it
// (`__builtin_cpu_supports`) says no to everything where the library is linked without the compiler's runtime.
#pragma once

namespace voxrill {

bool has_nothing_special();  // always
#if defined(__x86_64__)
bool has_avx2();
bool has_avx_vnni();
bool has_avx512_vnni();
#elif defined(__aarch64__)
bool has_neon_dotprod();
bool has_neon_i8mm();
#endif

}  // namespace voxrill
