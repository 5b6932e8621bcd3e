// A few vectors times weights that are read once, as they lie: what a step of decoding consists of.
//
// `product` streams rows of weights [*, K] past n vectors of K numbers and asks memory for the next
// ones on the way. What a vector gets depends on that vector alone, in one fixed order: in vectors
// of P lanes, or in the processor's tiles where it has them.

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

// How weights of type W meet vectors: what of a row is loaded at once, beside what of a vector.
template <class W>
struct Cells {
#ifdef __AVX512F__
  static constexpr int AT_ONCE = 6;  // so many vectors meet four rows of weights
#else
  static constexpr int AT_ONCE = 4;
#endif
  static constexpr int STEP = P, WIDTH = P;  // numbers of a row; numbers kept for them
  typedef float Number;
  typedef vf Sum;
  static vf row(const W* w) { return load(w); }
  static vf column(const float* cell) { return load(cell); }
  static void add(Sum& sum, vf row, vf column) { sum += row * column; }
  static vf total(const Sum& sum) { return sum; }
  static void place(const float* x, int lanes, float* cell) { store(cell, load(x, lanes)); }
};

#ifdef __AVX512BF16__
// Each vector as the sum of two of bf16, which keeps 16 of 24 bits: so the processor multiplies bf16
// weights as they are, and nothing more is lost than the last bits of a sum.
template <>
struct Cells<bf16> {
  static constexpr int AT_ONCE = 3, STEP = 2 * P, WIDTH = 4 * P;
  typedef bf16 Number;
  struct Sum { __m512 high = {}, low = {}; };
  struct Column { __m512bh high, low; };
  static __m512bh row(const bf16* w) { return (__m512bh)_mm512_loadu_si512(w); }
  static Column column(const bf16* cell) { return {row(cell), row(cell + STEP)}; }
  static void add(Sum& sum, __m512bh row, Column column) {
    sum.high = _mm512_dpbf16_ps(sum.high, row, column.high);
    sum.low = _mm512_dpbf16_ps(sum.low, row, column.low);
  }
  static vf total(const Sum& sum) { return (vf)sum.high + (vf)sum.low; }
  static void place(const float* x, int lanes, bf16* cell) {
    for (int half = 0; half < 2; ++half, cell += P, x += P, lanes -= P) {
      vf value = lanes <= 0 ? vf{} : load(x, std::min(P, lanes));
      store(cell, value);
      store(cell + STEP, value - load(cell));
    }
  }
};
#endif

// n vectors of K numbers in the order in which `dots` reads them: groups of AT_ONCE vectors and one
// of the rest, each [steps, vectors, WIDTH]. A thread makes the next when it is done with one.
template <class W>
struct Inputs : Cells<W> {
  using typename Cells<W>::Number;
  using Cells<W>::AT_ONCE, Cells<W>::STEP, Cells<W>::WIDTH;
  int steps;
  std::vector<Number>& numbers;
  Packed<W>* tiles = nullptr;

  Inputs(const float* const* x, int n, int K) : steps((K + STEP - 1) / STEP), numbers(kept()) {
#ifdef TILES
    if constexpr (sizeof(W) == 2)
      if (has_tiles<W>()) {
        tiles = in_tiles(x, n, K);
        return;
      }
#endif
    numbers.resize(std::max(numbers.size(), size_t(n) * steps * WIDTH));
    for (int t = 0; t < n; ++t) {
      int first = t / AT_ONCE * AT_ONCE, together = std::min(AT_ONCE, n - first);
      Number* cell = at(first) + (t - first) * WIDTH;
      for (int k = 0; k < K; k += STEP, cell += together * WIDTH)
        Cells<W>::place(x[t] + k, std::min(STEP, K - k), cell);
    }
  }
  static std::vector<Number>& kept() {
    static thread_local std::vector<Number> memory;
    return memory;
  }
  Number* at(int first) const { return &numbers[size_t(first) * steps * WIDTH]; }
};

// R rows of weights, `apart` from each other, times T vectors: out[t] has the rows' sums as
// `four_folded` leaves them. Asks memory for `ahead` on the way. Not inlined: in a large function
// its pointers would not stay in registers.
template <int R, int T, class W>
__attribute__((noinline)) void dots(const W* w, int64_t apart, int64_t steps,
                                    const typename Inputs<W>::Number* x, const W* ahead, vf* out) {
  using C = Cells<W>;
  typename C::Sum sum[R][T] = {};
  for (; steps > 0; --steps, w += C::STEP, ahead += C::STEP) {
    decltype(C::row(w)) row[R];
    for (int r = 0; r < R; ++r) {
      row[r] = C::row(w + r * apart);
      __builtin_prefetch(ahead + r * apart, 0, 2);
    }
    for (int t = 0; t < T; ++t, x += C::WIDTH) {
      auto column = C::column(x);
      for (int r = 0; r < R; ++r) C::add(sum[r][t], row[r], column);
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
    vf totals[4] = {};
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) totals[r] = C::total(sum[r][t]);
    out[t] = four_folded(totals, added);
  }
}

// The same of rows of K numbers, of which the last few may be less than a step.
template <int R, int T, class W>
inline void whole_dots(const W* w, int K, const Inputs<W>& in, int t0, const W* ahead, vf* out) {
  constexpr int STEP = Inputs<W>::STEP;
  const auto* x = in.at(t0);
  int whole = K / STEP, left = K % STEP;
  dots<R, T>(w, K, whole, x, ahead, out);
  if (!left) return;
  W rest[R * STEP] = {};
  for (int r = 0; r < R; ++r)
    std::memcpy(&rest[r * STEP], w + int64_t(r) * K + whole * STEP, left * sizeof(W));
  vf more[T];
  dots<R, T>(rest, STEP, 1, x + int64_t(whole) * T * Inputs<W>::WIDTH, rest, more);
  for (int t = 0; t < T; ++t) out[t] += more[t];
}

// emit(row, vector, values, count) for the P rows of w [*, K] from `row` on, or as many as `count`,
// and T vectors from `t` on. `ahead`: what memory is asked for on the way; null = nothing.
template <int T, class W, class F>
inline void emit_rows(const W* w, int K, int row, int count, int t, const Inputs<W>& in,
                      const W* ahead, F emit) {
  vf fours[4][T] = {};
  for (int r = 0; r < count; r += 4) {
    const W* here = w + int64_t(row + r) * K;
    const W* there = ahead ? ahead + int64_t(r) * K : here;
    switch (count - r) {
      case 1: whole_dots<1, T>(here, K, in, t, there, fours[r / 4]); break;
      case 2: whole_dots<2, T>(here, K, in, t, there, fours[r / 4]); break;
      case 3: whole_dots<3, T>(here, K, in, t, there, fours[r / 4]); break;
      default: whole_dots<4, T>(here, K, in, t, there, fours[r / 4]);
    }
  }
  for (int c = 0; c < T; ++c) {
    vf four[4];
    for (int r = 0; r < 4; ++r) four[r] = fours[r][c];
    emit(row, t + c, fours_folded(four, added), count);
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
  constexpr int T = Cells<W>::AT_ONCE, AHEAD = 2 * P;
  for (int row = from; row < to; row += P) {
    int count = std::min(P, to - row), t = 0, later = row + AHEAD - to;
    const W* ahead = later < 0 ? w + int64_t(row + AHEAD) * K
                     : next    ? next + int64_t(later) * K
                               : nullptr;
    auto take = [&](auto some) {
      emit_rows<decltype(some)::value>(w, K, row, count, t, in, t ? nullptr : ahead, emit);
      t += some;
    };
    while (n - t >= T) take(std::integral_constant<int, T>{});
    if constexpr (T > 5)
      if (n - t == 5) take(std::integral_constant<int, 5>{});
    if constexpr (T > 4)
      if (n - t == 4) take(std::integral_constant<int, 4>{});
    if constexpr (T > 3)
      if (n - t == 3) take(std::integral_constant<int, 3>{});
    if (n - t == 2) take(std::integral_constant<int, 2>{});
    if (n - t == 1) take(std::integral_constant<int, 1>{});
  }
}

}  // namespace
