// What every instruction set offers: activations rounded to 8 bits, and products of them with packed weights.
#pragma once
#include <cstdint>

#include "weights.h"

namespace voxrill {

// Rows of activations in 8 bits. A block of a row has one scale.
struct Activations {
  int64_t stride;   // bytes from one row of `values` to the next: whole blocks, and what keeps rows apart in the cache
  int64_t blocks;
  int8_t* values;   // [rows, stride]
  float* scales;    // [rows, blocks], times the weight's unit
  int32_t* sums;    // [rows, blocks], of the values
};

struct Product {
  const Packed* weight;
  Activations activations;
  int rows;         // of activations
  float* out;       // [rows, weight rows]
};

struct Kernels {
  const char* name;
  bool (*runs_here)();
  // Round rows from `first` to before `last`. x: [rows, shape.columns].
  void (*round)(const float* x, const Packed& weight, const Activations& out, int first, int last);
  // Compute groups of weight rows from `first` to before `last`.
  void (*multiply)(const Product& product, int64_t first, int64_t last);
};

extern const Kernels portable;
#if defined(__x86_64__)
extern const Kernels avx2, avx_vnni, avx512_vnni;
#elif defined(__aarch64__)
extern const Kernels neon_dotprod, neon_i8mm;
#endif

}  // namespace voxrill
