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

struct Attention;  // attention.h

struct Kernels {
  const char* name;
  bool (*runs_here)();
  // Round rows from `first` to before `last`. x: [rows, shape.columns].
  void (*round)(const float* x, const Packed& weight, const Activations& out, int first, int last);
  // Compute groups of weight rows from `first` to before `last`.
  void (*multiply)(const Product& product, int64_t first, int64_t last);
  // The three parts of an attention, each for one head of keys and values; see attention.h.
  void (*begin)(const Attention& work, int64_t head);
  void (*attend)(const Attention& work, int64_t head, int64_t stretch);
  void (*finish)(const Attention& work, int64_t head);
};

const Kernels& kernels();  // those in use

extern const Kernels portable;
#if defined(__x86_64__)
extern const Kernels avx2, avx_vnni, avx512_vnni;
#elif defined(__aarch64__)
extern const Kernels neon_dotprod, neon_i8mm;
#endif

}  // namespace voxrill
