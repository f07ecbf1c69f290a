// What the NEON instruction sets share: four vectors of 4 rows make a group.
#pragma once
#include <arm_neon.h>

#include "attend.h"
#include "tile.h"

namespace voxrill {
namespace {

struct Neon {
  static constexpr int kLanes = 4, kBias = 128;
  using Bytes = uint8x16_t;
  using Ints = int32x4_t;

  static VOXRILL_INLINE Bytes load(const uint8_t* p) { return vld1q_u8(p); }
  static VOXRILL_INLINE Bytes keep(Bytes v, int mask) { return vandq_u8(v, vdupq_n_u8(mask)); }
  template <int Count>
  static VOXRILL_INLINE Bytes right(Bytes v) { return vshrq_n_u8(v, Count); }
  static VOXRILL_INLINE Bytes either(Bytes a, Bytes b) { return vorrq_u8(a, b); }
  static VOXRILL_INLINE Ints zero() { return vdupq_n_s32(0); }
  static VOXRILL_INLINE Ints every(int32_t x) { return vdupq_n_s32(x); }
  static VOXRILL_INLINE Ints plus(Ints a, Ints b) { return vaddq_s32(a, b); }
  static VOXRILL_INLINE Ints minus(Ints a, Ints b) { return vsubq_s32(a, b); }
  static VOXRILL_INLINE Ints times(Ints a, int32_t b) { return vmulq_n_s32(a, b); }
  static VOXRILL_INLINE Ints points(const uint8_t* p, int bias) {
    uint32_t four;
    std::memcpy(&four, p, 4);
    const uint16x8_t wide = vmovl_u8(vcreate_u8(four));
    return minus(vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(wide))), every(bias));
  }

  // Weights as signed bytes: those of 8 bits less 128, `kBias`.
  template <int Bits>
  static VOXRILL_INLINE int8x16_t signs(Bytes f) {
    return vreinterpretq_s8_u8(Bits == 8 ? veorq_u8(f, vdupq_n_u8(128)) : f);
  }

  template <int Bits, int Tile, int Chains, int Quartets>
  static VOXRILL_INLINE void dots(Ints (&sums)[Tile][Chains], const Bytes* f, const int8_t* x, int64_t stride) {
    VOXRILL_UNROLL
    for (int m = 0; m < Tile; m++) {
      VOXRILL_UNROLL
      for (int i = 0; i < Quartets; i += 4) {  // a vector of activations has 4 quartets
        const int8x16_t four = vld1q_s8(x + m * stride + 4 * i);
        sums[m][0] = vdotq_laneq_s32(sums[m][0], signs<Bits>(f[i]), four, 0);
        sums[m][1 % Chains] = vdotq_laneq_s32(sums[m][1 % Chains], signs<Bits>(f[i + 1]), four, 1);
        sums[m][2 % Chains] = vdotq_laneq_s32(sums[m][2 % Chains], signs<Bits>(f[i + 2]), four, 2);
        sums[m][3 % Chains] = vdotq_laneq_s32(sums[m][3 % Chains], signs<Bits>(f[i + 3]), four, 3);
      }
    }
  }

  template <int Tile>
  static VOXRILL_INLINE void settle(Ints (&)[Tile]) {}

  static VOXRILL_INLINE void add(float* out, Ints total, const uint16_t* scales, float activation) {
    const float32x4_t scale = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(scales)));
    vst1q_f32(out, vfmaq_f32(vld1q_f32(out), vcvtq_f32_s32(total), vmulq_n_f32(scale, activation)));
  }
};

struct AttendNeon {
  static constexpr int kWidth = 16;

  static void scores(const int16_t* queries, int rows, const int8_t* keys, int count, int64_t width, int32_t* out) {
    int16_t four[4 * kLargestWidth];  // keys, made wide once for all rows
    for (int t = 0; t < count; t += 4) {
      for (int64_t i = 0; i < 4 * width; i += 8) vst1q_s16(four + i, vmovl_s8(vld1_s8(keys + t * width + i)));
      for (int row = 0; row < rows; row++) {
        int32x4_t sums[4] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};
        for (int64_t i = 0; i < width; i += 8) {
          const int16x8_t query = vld1q_s16(queries + row * width + i);
          VOXRILL_UNROLL
          for (int k = 0; k < 4; k++) {
            const int16x8_t key = vld1q_s16(four + k * width + i);
            sums[k] = vmlal_s16(sums[k], vget_low_s16(query), vget_low_s16(key));
            sums[k] = vmlal_high_s16(sums[k], query, key);
          }
        }
        vst1q_s32(out + row * kTile + t, vpaddq_s32(vpaddq_s32(sums[0], sums[1]), vpaddq_s32(sums[2], sums[3])));
      }
    }
  }

  template <int Rows>
  static void mix(const int16_t* weights, const int8_t* values, int count, int64_t width, int32_t* out) {
    for (int64_t i = 0; i < width; i += 16) {
      int32x4_t sums[Rows][4];
      VOXRILL_UNROLL
      for (int row = 0; row < Rows; row++) {
        VOXRILL_UNROLL
        for (int part = 0; part < 4; part++) sums[row][part] = vdupq_n_s32(0);
      }
      for (int t = 0; t < count; t++) {
        const int8x16_t bytes = vld1q_s8(values + t * width + i);
        const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_high_s8(bytes);
        VOXRILL_UNROLL
        for (int row = 0; row < Rows; row++) {
          const int16_t weight = weights[row * kTile + t];
          sums[row][0] = vmlal_n_s16(sums[row][0], vget_low_s16(low), weight);
          sums[row][1] = vmlal_high_n_s16(sums[row][1], low, weight);
          sums[row][2] = vmlal_n_s16(sums[row][2], vget_low_s16(high), weight);
          sums[row][3] = vmlal_high_n_s16(sums[row][3], high, weight);
        }
      }
      VOXRILL_UNROLL
      for (int row = 0; row < Rows; row++) {
        VOXRILL_UNROLL
        for (int part = 0; part < 4; part++) vst1q_s32(out + row * width + i + 4 * part, sums[row][part]);
      }
    }
  }
};

}  // namespace
}  // namespace voxrill
