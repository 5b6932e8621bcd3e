// A few vectors times weights that are read once, as they lie: what a step of decoding consists of.
//
// `product` streams rows of weights [*, K] past n vectors of K numbers and asks memory for the next
// ones on the way. What a vector gets depends on that vector alone, in one fixed order: in vectors of
// P lanes, or in the processor's tiles where it has them.

#pragma once

#include <algorithm>
#include <vector>

#include "products.h"

namespace {

#ifdef TILES
// n vectors as right sides of tiles, PAIRS a panel: each as the sum of two bf16 vectors, as below,
// of which the second stands PAIRS columns after the first.
constexpr int PAIRS = P / 2;
inline Packed<bf16>* in_tiles(const float* const* x, int n, int K) {
  static thread_local Packed<bf16> packed;
  static thread_local std::vector<bf16> numbers;  // [panels * P, K]; what nobody set is not read
  int panels = (n + PAIRS - 1) / PAIRS;
  numbers.resize(std::max(numbers.size(), size_t(panels) * P * K));
  for (int t = 0; t < n; ++t)
    over(K, [&](int64_t k, int lanes) {
      bf16* high = &numbers[(int64_t(t / PAIRS) * P + t % PAIRS) * K + k];
      vf value = load(x[t] + k, lanes);
      store(high, value, lanes);
      store(high + PAIRS * K, value - load(high, lanes), lanes);
    });
  packed.from_columns(numbers.data(), K, K, panels * P);
  return &packed;
}
#endif

// What weights of type W are multiplied with: n vectors of K numbers, as `dots` reads them. A
// thread makes the next when it is done with one.
template <class W>
struct Inputs {
#ifdef __AVX512F__
  static constexpr int AT_ONCE = 6;  // so many vectors meet four rows of weights
#else
  static constexpr int AT_ONCE = 4;
#endif
  const float* const* x;
  Packed<W>* tiles = nullptr;
  Inputs(const float* const* x, int n, int K) : x(x) {
#ifdef TILES
    if constexpr (sizeof(W) == 2)
      if (has_tiles<W>()) tiles = in_tiles(x, n, K);
#endif
  }
};

// R rows of weights times T vectors from `t0` on, lane by lane; asks memory for `ahead` on the way.
template <int R, int T, class W>
inline void dots(const W* w, int K, const Inputs<W>& in, int t0, const W* ahead, vf (*out)[T]) {
  const float* const* x = in.x + t0;
  vf acc[R][T] = {};  // `out` could be what is read, so it would not stay in registers
  int k = 0;
  for (; k + P <= K; k += P) {
    vf row[R];
    for (int r = 0; r < R; ++r) row[r] = load(w + int64_t(r) * K + k);
    if (ahead && k * sizeof(W) % 64 == 0)  // once a line
      for (int r = 0; r < R; ++r) __builtin_prefetch(ahead + int64_t(r) * K + k, 0, 2);
    for (int t = 0; t < T; ++t) {
      vf column = load(x[t] + k);
      for (int r = 0; r < R; ++r) acc[r][t] += row[r] * column;
    }
  }
  if (k < K) {  // the rest, with zeros after it
    vf row[R];
    for (int r = 0; r < R; ++r) row[r] = load_start(w + int64_t(r) * K + k, K - k);
    for (int t = 0; t < T; ++t) {
      vf column = load_start(x[t] + k, K - k);
      for (int r = 0; r < R; ++r) acc[r][t] += row[r] * column;
    }
  }
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) out[r][t] = acc[r][t];
}

#ifdef __AVX512BF16__
// Each as the sum of two bf16 vectors, which keeps 16 of 24 bits: so the processor multiplies bf16
// weights as they are, and nothing more is lost than the last bits of a sum.
template <>
struct Inputs<bf16> {
  static constexpr int AT_ONCE = 3;
  Packed<bf16>* tiles = nullptr;
  int width;                   // K in whole vectors of 2 * P
  std::vector<bf16>& numbers;  // [n, 2, width]

  Inputs(const float* const* x, int n, int K)
      : width((K + 2 * P - 1) / (2 * P) * 2 * P), numbers(kept()) {
#ifdef TILES
    if (has_tiles<bf16>()) {
      tiles = in_tiles(x, n, K);
      return;
    }
#endif
    numbers.assign(size_t(n) * 2 * width, bf16{0});
    for (int t = 0; t < n; ++t)
      over(K, [&](int64_t k, int lanes) {
        bf16 *high = &numbers[size_t(t) * 2 * width + k], *low = high + width;
        vf value = load(x[t] + k, lanes);
        store(high, value, lanes);
        store(low, value - load(high, lanes), lanes);
      });
  }
  static std::vector<bf16>& kept() {
    static thread_local std::vector<bf16> memory;
    return memory;
  }
  const bf16* at(int t) const { return &numbers[size_t(t) * 2 * width]; }
};

inline __m512bh pairs(const bf16* p) { return (__m512bh)_mm512_loadu_si512(p); }

template <int R, int T>
inline void dots(const bf16* w, int K, const Inputs<bf16>& in, int t0, const bf16* ahead,
                 vf (*out)[T]) {
  __m512 high[R][T] = {}, low[R][T] = {};
  auto add = [&](int k, const bf16* rows, int apart) {
    __m512bh row[R];
    for (int r = 0; r < R; ++r) row[r] = pairs(rows + int64_t(r) * apart);
    for (int t = 0; t < T; ++t) {
      const bf16* x = in.at(t0 + t) + k;
      __m512bh above = pairs(x), below = pairs(x + in.width);
      for (int r = 0; r < R; ++r) {
        high[r][t] = _mm512_dpbf16_ps(high[r][t], row[r], above);
        low[r][t] = _mm512_dpbf16_ps(low[r][t], row[r], below);
      }
    }
  };
  int k = 0;
  for (; k + 2 * P <= K; k += 2 * P) {
    if (ahead)
      for (int r = 0; r < R; ++r) __builtin_prefetch(ahead + int64_t(r) * K + k, 0, 2);
    add(k, w + k, K);
  }
  if (k < K) {  // the rest, with zeros after it
    bf16 rest[R][2 * P] = {};
    for (int r = 0; r < R; ++r)
      std::memcpy(rest[r], w + int64_t(r) * K + k, (K - k) * sizeof(bf16));
    add(k, rest[0], 2 * P);
  }
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) out[r][t] = (vf)high[r][t] + (vf)low[r][t];
}
#endif

// emit(row, vector, values, count) for the P rows of w [*, K] from `row` on, or as many as `count`,
// and T vectors from `t` on. `ahead`: what memory is asked for on the way; null = nothing.
template <int T, class W, class F>
inline void emit_rows(const W* w, int K, int row, int count, int t, const Inputs<W>& in,
                      const W* ahead, F emit) {
  vf acc[P][T];
  for (int r = count; r < P; ++r)
    for (int t = 0; t < T; ++t) acc[r][t] = vf{};
  for (int r = 0; r < count;) {
    const W* here = w + int64_t(row + r) * K;
    const W* there = ahead ? ahead + int64_t(r) * K : nullptr;
    if (r + 4 <= count)
      dots<4, T>(here, K, in, t, there, acc + r), r += 4;
    else
      dots<1, T>(here, K, in, t, there, acc + r), r += 1;
  }
  for (int c = 0; c < T; ++c) {
    vf column[P];
    for (int r = 0; r < P; ++r) column[r] = acc[r][c];
    emit(row, t + c, sums(column), count);
  }
}

#ifdef TILES
// P rows of weights from `here` on, of which `count` are there, and 2 * P numbers of each.
template <int T>
inline void load_weights(const bf16* here, int K, int count, int left) {
  if (count >= P && left >= 2 * P) return Tiles::load<T>(here, K * sizeof(bf16));
  bf16 rest[P][2 * P] = {};
  for (int r = 0; r < std::min(P, count); ++r)
    std::memcpy(rest[r], here + int64_t(r) * K, std::min(2 * P, left) * sizeof(bf16));
  Tiles::load<T>(rest, sizeof rest[0]);
}

// `product` in tiles: twice P rows of weights as they lie, times twice PAIRS vectors.
template <class F>
inline void product_in_tiles(const bf16* w, int K, int from, int to, const Inputs<bf16>& in, int n,
                             const bf16* next, F emit) {
  alignas(64) float sums[2][2][P][P];  // [rows, vectors]
  for (int t = 0; t < n; t += 2 * PAIRS) {
    bool further = t + PAIRS < n;
    const uint32_t *left = in.tiles->panel(t / PAIRS), *right = left + in.tiles->apart * P;
    for (int row = from; row < to; row += 2 * P) {
      bool lower = row + P < to;
      const bf16* ahead = t ? nullptr : row + 2 * P < to ? w + int64_t(row + 2 * P) * K : next;
      Tiles::zero<0>(), Tiles::zero<1>(), Tiles::zero<2>(), Tiles::zero<3>();
      for (int k = 0; k < K; k += 2 * P) {
        const bf16* here = w + int64_t(row) * K + k;
        for (int r = 0; ahead && r < 2 * P; ++r)
          __builtin_prefetch(ahead + int64_t(r) * K + k, 0, 2);
        load_weights<4>(here, K, to - row, K - k);
        Tiles::load<6>(left + k / 2 * P, 4 * P), Tiles::add<0, 4, 6>();
        if (further) Tiles::load<7>(right + k / 2 * P, 4 * P), Tiles::add<1, 4, 7>();
        if (!lower) continue;
        load_weights<5>(here + int64_t(P) * K, K, to - row - P, K - k);
        Tiles::add<2, 5, 6>();
        if (further) Tiles::add<3, 5, 7>();
      }
      Tiles::store<0>(sums[0][0], 4 * P);
      if (further) Tiles::store<1>(sums[0][1], 4 * P);
      if (lower) Tiles::store<2>(sums[1][0], 4 * P);
      if (lower && further) Tiles::store<3>(sums[1][1], 4 * P);
      for (int half = 0; half <= lower; ++half)
        for (int group = 0; group <= further; ++group) {
          vu column[P];
          std::memcpy(column, sums[half][group], sizeof column);
          transpose(column);
          int first = t + group * PAIRS, at = row + half * P;
          for (int c = 0; c < std::min(PAIRS, n - first); ++c)
            emit(at, first + c, (vf)column[c] + (vf)column[c + PAIRS], std::min(P, to - at));
        }
    }
  }
}
#endif

// The same for rows [from, to) and n vectors; `next` = where the weights lie that come after them.
template <class W, class F>
inline void product(const W* w, int K, int from, int to, const Inputs<W>& in, int n, const W* next,
                    F emit) {
#ifdef TILES
  if constexpr (sizeof(W) == 2)
    if (has_tiles<W>()) return product_in_tiles(w, K, from, to, in, n, next, emit);
#endif
  constexpr int T = Inputs<W>::AT_ONCE;
  for (int row = from; row < to; row += P) {
    int count = std::min(P, to - row), t = 0;
    const W* ahead = row + P < to ? w + int64_t(row + P) * K : next;
    for (; t + T <= n; t += T) emit_rows<T>(w, K, row, count, t, in, t ? nullptr : ahead, emit);
    if (n - t == 5) emit_rows<5>(w, K, row, count, t, in, t ? nullptr : ahead, emit);
    if (n - t == 4) emit_rows<4>(w, K, row, count, t, in, t ? nullptr : ahead, emit);
    if (n - t == 3) emit_rows<3>(w, K, row, count, t, in, t ? nullptr : ahead, emit);
    if (n - t == 2) emit_rows<2>(w, K, row, count, t, in, t ? nullptr : ahead, emit);
    if (n - t == 1) emit_rows<1>(w, K, row, count, t, in, t ? nullptr : ahead, emit);
  }
}

}  // namespace
