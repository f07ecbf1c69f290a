// The product, written once for all vector instruction sets. A set `V` is a struct of small functions over its vectors:
//
//   kLanes    rows of a vector: 4, 8 or 16, so that 4, 2 or 1 vectors make a group of 16
//   Tiles     how many rows of activations may be multiplied together, largest first: what the registers suffice for
//   kBias     what `dots` takes off every 8-bit weight: 128 where the instructions multiply signed bytes, else 0
//   Bytes, Ints   its vectors
//   load, keep (and with a byte), right (shift; bits of a neighbour may come in, `keep` follows), either (or)
//   zero, every, subtract, multiply, points (16-bit-free: bytes to integers)
//   PairTiles, kPairsFrom, side_by_side   with 16 lanes: Tiles for two groups, from so many rows on; in place of `dots`,
//             the same for one group or two
//   dots<Bits, Tile, Chains>   adds the products of some quartets to the accumulators of some rows of activations
//   settle<Tile>   brings accumulators into order: one row of activations each
//   add       out += total * scale * activation_scale, with one rounding after the last product
//
// Every file compiles this for itself: all lies in an unnamed namespace, because the linker must not mix the copies.
#pragma once
#include "products.h"
#include "round.h"

namespace voxrill {
namespace {

#define VOXRILL_INLINE inline __attribute__((always_inline))

// Before a loop over a few accumulators: they are in registers only if nothing of the loop is left. clang gives up on its
// own at twelve rows, and is then twice as slow.
#if defined(__clang__)
#define VOXRILL_UNROLL _Pragma("clang loop unroll(full)")
#else
#define VOXRILL_UNROLL _Pragma("GCC unroll 16")
#endif

// How weights of some bits come out of vectors. A step is `kVectors` vectors, which hold `kQuartets` quartets.
template <int Bits>
struct Format;

template <>
struct Format<8> {
  static constexpr int kVectors = 4, kQuartets = 4;
  template <class V>
  static VOXRILL_INLINE void unpack(const uint8_t* w, typename V::Bytes* f) {
    for (int i = 0; i < 4; i++) f[i] = V::load(w + i * kVector);
  }
};

template <>
struct Format<4> {
  static constexpr int kVectors = 2, kQuartets = 4;
  template <class V>
  static VOXRILL_INLINE void unpack(const uint8_t* w, typename V::Bytes* f) {
    for (int i = 0; i < 2; i++) {
      const auto v = V::load(w + i * kVector);
      f[2 * i] = V::keep(v, 15);
      f[2 * i + 1] = V::keep(V::template right<4>(v), 15);
    }
  }
};

template <>
struct Format<3> {
  static constexpr int kVectors = 3, kQuartets = 8;
  template <class V>
  static VOXRILL_INLINE void unpack(const uint8_t* w, typename V::Bytes* f) {
    const auto a = V::load(w), b = V::load(w + kVector), c = V::load(w + 2 * kVector);
    f[0] = V::keep(a, 7);
    f[1] = V::keep(b, 7);
    f[2] = V::keep(c, 7);
    f[3] = V::keep(V::template right<3>(a), 7);
    f[4] = V::keep(V::template right<3>(b), 7);
    f[5] = V::keep(V::template right<3>(c), 7);
    f[6] = V::either(V::keep(V::template right<6>(a), 3), V::keep(V::template right<4>(b), 4));
    f[7] = V::either(V::keep(V::template right<6>(c), 3), V::keep(V::template right<5>(b), 4));
  }
};

template <>
struct Format<2> {
  static constexpr int kVectors = 1, kQuartets = 4;
  template <class V>
  static VOXRILL_INLINE void unpack(const uint8_t* w, typename V::Bytes* f) {
    const auto v = V::load(w);
    f[0] = V::keep(v, 3);
    f[1] = V::keep(V::template right<2>(v), 3);
    f[2] = V::keep(V::template right<4>(v), 3);
    f[3] = V::keep(V::template right<6>(v), 3);
  }
};

constexpr int kAhead = 4096;  // bytes that the first tile fetches ahead

// `Tile` rows of activations from `row` on, times `Groups` groups of 16 weight rows. For two groups the activations are
// loaded once. That is faster: AVX-512 processors load only as often as they multiply.
template <class V, int Bits, int Tile, int Groups>
void multiply_tile(const Product& product, int64_t group, int row) {
  using F = Format<Bits>;
  constexpr int kParts = kRows / V::kLanes;  // of a vector of 64 bytes
  static_assert(Groups == 1 || kParts == 1, "several groups need vectors of whole groups");
  // What is multiplied side by side: parts of one group, or groups.
  constexpr int kTogether = Groups > 1 ? Groups : Tile == 1 ? kParts : 1;
  // Accumulators of one sum: an instruction takes four or five cycles, and two begin in each.
  constexpr int kWanted = 8 / (Tile * kTogether), kChains = kWanted > 4 ? 4 : kWanted > 0 ? kWanted : 1;
  constexpr int kBias = Bits == 8 ? V::kBias : 0;
  const Packed& weight = *product.weight;
  const Activations& x = product.activations;
  const int block = weight.shape.block;
  const int64_t first = group * x.blocks, rows = weight.shape.rows, bytes = weight.shape.block_bytes();
  // From one of them to the next: in the weights, in their scales, and in `out`.
  const int64_t to_weights = Groups > 1 ? x.blocks * bytes : 4 * V::kLanes;
  const int64_t to_scales = Groups > 1 ? x.blocks * kRows : V::kLanes;
  constexpr int kToOut = Groups > 1 ? Tile * kRows : V::kLanes;
  const uint8_t* w = weight.values + first * bytes;
  const int8_t* values = x.values + row * x.stride;
  // On small pages fetching ahead costs more than it gains, and later tiles find the weights in the cache: then the
  // address is one that is read anyway.
  const int ahead = weight.huge && row == 0 ? kAhead : 0;
  alignas(64) float out[Groups * Tile * kRows];
  // Cleared and copied in pieces of 64 bytes: for other sizes compilers take instructions that are slow to begin.
  VOXRILL_UNROLL
  for (int i = 0; i < Groups * Tile; i++) std::memset(out + i * kRows, 0, kRows * sizeof(float));
  for (int64_t b = 0; b < x.blocks; b++, values += block, w += bytes) {
    for (int part = 0; part < kParts; part += kTogether) {
      typename V::Ints sums[kTogether][Tile][kChains];
      VOXRILL_UNROLL
      for (int p = 0; p < kTogether; p++) {
        VOXRILL_UNROLL
        for (int m = 0; m < Tile; m++) {
          VOXRILL_UNROLL
          for (int c = 0; c < kChains; c++) sums[p][m][c] = V::zero();
        }
      }
      const uint8_t* at = w + part * 4 * V::kLanes;
      for (int k = 0; k < block; k += 4 * F::kQuartets, at += F::kVectors * kVector) {
        if (ahead) {
          VOXRILL_UNROLL
          for (int g = 0; g < Groups; g++) {
            VOXRILL_UNROLL
            for (int i = 0; i < F::kVectors; i++) __builtin_prefetch(at + g * to_weights + ahead + i * kVector);
          }
        }
        if constexpr (kParts == 1) {
          typename V::Bytes f[Groups][F::kQuartets];
          VOXRILL_UNROLL
          for (int g = 0; g < Groups; g++) F::template unpack<V>(at + g * to_weights, f[g]);
          V::side_by_side(sums, f, values + k, x.stride);
        } else {
          VOXRILL_UNROLL
          for (int p = 0; p < kTogether; p++) {
            typename V::Bytes f[F::kQuartets];
            F::template unpack<V>(at + p * to_weights, f);
            V::template dots<Bits, Tile, kChains, F::kQuartets>(sums[p], f, values + k, x.stride);
          }
        }
      }
      VOXRILL_UNROLL
      for (int p = 0; p < kTogether; p++) {
        typename V::Ints totals[Tile];
        VOXRILL_UNROLL
        for (int m = 0; m < Tile; m++) {
          totals[m] = sums[p][m][0];
          VOXRILL_UNROLL
          for (int c = 1; c < kChains; c++) totals[m] = V::plus(totals[m], sums[p][m][c]);
        }
        V::template settle<Tile>(totals);
        const int64_t side = (first + b) * kRows + part * V::kLanes + p * to_scales;
        VOXRILL_UNROLL
        for (int m = 0; m < Tile; m++) {
          const int64_t of_row = (row + m) * x.blocks + b;
          const auto offset = weight.points ? V::times(V::points(weight.points + side, kBias), x.sums[of_row])
                                            : V::every(((1 << (Bits - 1)) - kBias) * x.sums[of_row]);
          float* sum = out + m * kRows + part * V::kLanes + p * kToOut;
          V::add(sum, V::minus(totals[m], offset), weight.scales + side, x.scales[of_row]);
        }
      }
    }
  }
  for (int g = 0; g < Groups; g++) {
    const int64_t done = (group + g) * kRows, left = rows - done;
    for (int m = 0; m < Tile; m++) {
      float* to = product.out + (row + m) * rows + done;
      const float* from = out + (g * Tile + m) * kRows;
      if (left >= kRows) std::memcpy(to, from, kRows * sizeof(float));
      else std::memcpy(to, from, left * sizeof(float));
    }
  }
}

// Sizes of tiles. `run` takes as many of the first as fit, then of the next; the last is 1.
template <int... Sizes>
struct TileSizes {
  template <class V, int Bits, int Groups = 1>
  static void run(const Product& product, int64_t group) {
    int row = 0;
    (..., [&] {
      for (; row + Sizes <= product.rows; row += Sizes) multiply_tile<V, Bits, Sizes, Groups>(product, group, row);
    }());
  }
};

template <class V, int Bits>
void multiply_groups(const Product& product, int64_t first, int64_t last) {
  int64_t group = first;
  if constexpr (V::kLanes == kRows)
    if (product.rows >= V::kPairsFrom)
      for (; group + 2 <= last; group += 2) V::PairTiles::template run<V, Bits, 2>(product, group);
  for (; group < last; group++) V::Tiles::template run<V, Bits>(product, group);
}

template <class V>
void multiply(const Product& product, int64_t first, int64_t last) {
  switch (product.weight->shape.bits) {
    case 8: return multiply_groups<V, 8>(product, first, last);
    case 4: return multiply_groups<V, 4>(product, first, last);
    case 3: return multiply_groups<V, 3>(product, first, last);
    case 2: return multiply_groups<V, 2>(product, first, last);
  }
}

}  // namespace
}  // namespace voxrill
