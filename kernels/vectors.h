// Vectors of 16 floats in GCC's own terms, for the compiled kernels; any processor runs them, the
// wider the faster. fp32 and bf16 in memory, fp32 in registers. No alignment is asked for.

#pragma once

#include <cstdint>
#include <cstring>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

constexpr int P = 16;  // lanes
typedef float vf __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t vu __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t vh __attribute__((vector_size(32), aligned(2), may_alias));

struct bf16 { uint16_t bits; };

inline float wide(float x) { return x; }
inline float wide(bf16 x) {
  uint32_t bits = uint32_t(x.bits) << 16;
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}
inline void narrow(float x, float* out) { *out = x; }
inline void narrow(float x, bf16* out) {  // to nearest, ties to even; NaN stays NaN
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  out->bits = x != x ? 0x7fc0 : uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
inline vf load(const float* p) { return *reinterpret_cast<const vf*>(p); }
inline vf load(const bf16* p) {
#ifdef __AVX512F__  // one instruction, for which GCC's own conversion takes five
  vu halves = (vu)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
#else
  vu halves = __builtin_convertvector(*reinterpret_cast<const vh*>(p), vu);
#endif
  return (vf)(halves << 16);
}
template <class W>
inline vf load_start(const W* p, int count) {
  W lanes[P] = {};
  std::memcpy(lanes, p, count * sizeof(W));
  return load(lanes);
}
inline void store(float* p, vf x) { *reinterpret_cast<vf*>(p) = x; }
inline void store(bf16* p, vf x) {  // as `narrow`, but that hardware makes denormals zero
#ifdef __AVX512BF16__
  __m256bh rounded = _mm512_cvtneps_pbh((__m512)x);
  std::memcpy(p, &rounded, sizeof rounded);
#else
  vu bits = (vu)x;
  vu rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  rounded = x == x ? rounded : 0x7fc0u + (vu){};
  *reinterpret_cast<vh*>(p) = __builtin_convertvector(rounded, vh);
#endif
}
template <class W>
inline void store_start(W* p, vf x, int count) {
  W lanes[P];
  store(lanes, x);
  std::memcpy(p, lanes, count * sizeof(W));
}

typedef float vf8 __attribute__((vector_size(32)));
typedef float vf4 __attribute__((vector_size(16)));

// The larger of each two; where the first is no number, the second.
inline vf larger(vf a, vf b) {
#ifdef __AVX512F__
  return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#else
  return a > b ? a : b;
#endif
}

// Halves folded onto each other by `f` until one lane is left.
template <class F>
inline float folded(vf x, F f) {
  vf8 eight = f(__builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7),
                __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15));
  vf4 four = f(__builtin_shufflevector(eight, eight, 0, 1, 2, 3),
               __builtin_shufflevector(eight, eight, 4, 5, 6, 7));
  four = f(four, __builtin_shufflevector(four, four, 2, 3, 0, 1));
  four = f(four, __builtin_shufflevector(four, four, 1, 0, 3, 2));
  return four[0];
}
inline float sum(vf x) {
  return folded(x, [](auto a, auto b) { return a + b; });
}
// Vectors folded in the order of `folded`, pairs of them into one: four into four lanes each, and four
// of such into one with the result of each of their sixteen.
#define HALVED(x, y, f, first, second) \
  f(__builtin_shufflevector(x, y, first), __builtin_shufflevector(x, y, second))
#define LANES(...) __VA_ARGS__
template <class F>
inline vf four_folded(const vf* x, F f) {
  auto half = [f](vf a, vf b) {
    return HALVED(a, b, f, LANES(0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),
                  LANES(8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31));
  };
  vf a = half(x[0], x[1]), b = half(x[2], x[3]);
  return HALVED(a, b, f, LANES(0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27),
                LANES(4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31));
}
template <class F>
inline vf fours_folded(const vf* x, F f) {
  auto half = [f](vf a, vf b) {
    return HALVED(a, b, f, LANES(0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29),
                  LANES(2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31));
  };
  vf a = half(x[0], x[1]), b = half(x[2], x[3]);
  return HALVED(a, b, f, LANES(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30),
                LANES(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31));
}
#undef LANES
#undef HALVED
template <class F>
inline vf all_folded(const vf* x, F f) {
  vf fours[4];
  for (int i = 0; i < 4; ++i) fours[i] = four_folded(x + 4 * i, f);
  return fours_folded(fours, f);
}
inline vf added(vf a, vf b) { return a + b; }
inline float largest(vf x) {
  return folded(x, [](auto a, auto b) { return a < b ? b : a; });
}

inline bool any_above(vf x, float limit) {
#ifdef __AVX512F__
  return _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(limit), _CMP_GT_OQ);
#else
  return largest(x) > limit;
#endif
}

constexpr float LOG2_E = 1.44269504f;

inline vf exp_of(vf x) {  // relative error below 2e-7 within [-87, 88], which bound x
  vf zero = {}, low = zero - 87.0f, high = zero + 88.0f;
#ifdef __AVX512F__  // which takes the second operand where one is no number
  x = (vf)_mm512_min_ps((__m512)high, _mm512_max_ps((__m512)low, (__m512)x));
  vf whole = (vf)_mm512_roundscale_ps((__m512)(x * LOG2_E), 0);
#else
  x = x < low ? low : x;
  x = x > high ? high : x;
  vf whole = (x * LOG2_E + 12582912.0f) - 12582912.0f;
#endif
  vf r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
  vf p = zero + 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
#ifdef __AVX512F__
  return (vf)_mm512_scalef_ps((__m512)p, (__m512)whole);
#else
  vi bits = (__builtin_convertvector(whole, vi) + 127) << 23;
  return p * (vf)bits;
#endif
}

// 2^x, where no more than 24 bits of x count; relative error below 2e-7 within [-126, 127], which
// bound x. 1 for 0. Half the work of `exp_of`.
inline vf exp2_of(vf x) {
  vf zero = {}, low = zero - 126.0f, high = zero + 127.0f;
#ifdef __AVX512F__
  x = (vf)_mm512_min_ps((__m512)high, _mm512_max_ps((__m512)low, (__m512)x));
  vf whole = (vf)_mm512_roundscale_ps((__m512)x, 0);
#else
  x = x < low ? low : x;
  x = x > high ? high : x;
  vf whole = (x + 12582912.0f) - 12582912.0f;
#endif
  vf r = x - whole, p = zero + 1.3264727313e-3f;
  p = p * r + 9.6715129912e-3f;
  p = p * r + 5.5507335812e-2f;
  p = p * r + 2.4022242427e-1f;
  p = p * r + 6.9314700365e-1f;
  p = p * r + 1.0f;
#ifdef __AVX512F__
  return (vf)_mm512_scalef_ps((__m512)p, (__m512)whole);
#else
  vi bits = (__builtin_convertvector(whole, vi) + 127) << 23;
  return p * (vf)bits;
#endif
}

// f(start, lanes) for each vector of a row of `size`; the last one may have fewer than P lanes.
template <class F>
inline void over(int64_t size, F f) {
  int64_t i = 0;
  for (; i + P <= size; i += P) f(i, P);
  if (i < size) f(i, int(size - i));
}
template <class W>
inline vf load(const W* p, int lanes) { return lanes == P ? load(p) : load_start(p, lanes); }
template <class W>
inline void store(W* p, vf x, int lanes) { lanes == P ? store(p, x) : store_start(p, x, lanes); }

}  // namespace

// A pointer from Python; the function that takes it knows its type.
struct Pointer {
  void* at;
  template <class T>
  operator T*() const { return static_cast<T*>(at); }
};

// Makes `name_f32` and `name_bf16` of the template `name`; `parameters` in brackets, then their names.
#define FOR_BOTH_TYPES(name, parameters, ...)                             \
  extern "C" void name##_f32 parameters { name<float>(__VA_ARGS__); }     \
  extern "C" void name##_bf16 parameters { name<bf16>(__VA_ARGS__); }
