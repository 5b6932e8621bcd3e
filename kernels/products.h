// Matrix products in tiles that stay in registers; sums in fp32, whatever lies in memory.
//
// A cell is 32 bits: one fp32 number, or two bf16 numbers that follow each other along the sum; a
// step is a cell further along it. The right side is packed in panels of P columns, a step's cells
// side by side, with zeros where there is nothing. A row's sums are added in one fixed order,
// whatever stands beside it. No threads and no blocking along the sum: for some thousand steps.

#pragma once

#include <algorithm>
#include <vector>

#include "vectors.h"

namespace {

template <class W>
constexpr int64_t CELL = 4 / sizeof(W);  // numbers of a cell
#ifdef __AVX512F__
constexpr int ROWS = 8, PANELS = 2;  // of a tile
#else
constexpr int ROWS = 6, PANELS = 1;
#endif

// sum + left * right, number by number of each cell.
inline vf add_cells(const float*, vf sum, vu left, vu right) { return sum + (vf)left * (vf)right; }
inline vf add_cells(const bf16*, vf sum, vu left, vu right) {
#ifdef __AVX512BF16__
  return (vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)left, (__m512bh)right);
#else
  vu high = (vu){} + 0xffff0000u;
  return sum + (vf)(left << 16) * (vf)(right << 16) + (vf)(left & high) * (vf)(right & high);
#endif
}

// Cells of a step of up to P columns, from rows of memory that each hold a number of every column.
inline vu cells_of(const float* const* rows, int, int64_t column, int lanes) {
  return (vu)load(rows[0] + column, lanes);
}
inline vu cells_of(const bf16* const* rows, int count, int64_t column, int lanes) {
  vu first = (vu)load(rows[0] + column, lanes);
  return first >> 16 | (count > 1 ? (vu)load(rows[1] + column, lanes) : (vu){});
}

// Rows become columns.
inline void transpose(vu (&x)[P]) {
  for (int s = P / 2; s; s /= 2) {
    vi above, below;
    for (int j = 0; j < P; ++j) {
      above[j] = j & s ? P + j - s : j;
      below[j] = j & s ? P + j : j + s;
    }
    for (int i = 0; i < P; ++i)
      if (!(i & s)) {
        vu a = x[i], b = x[i + s];
        x[i] = __builtin_shuffle(a, b, above), x[i + s] = __builtin_shuffle(a, b, below);
      }
  }
}

template <class W>
struct Packed {
  std::vector<uint32_t> cells;
  int64_t columns = 0, steps = 0;

  uint32_t* panel(int64_t at) { return &cells[at * steps * P]; }

  // row(k) is where number k of every column lies.
  template <class F>
  void from_rows(int64_t length, int64_t width, F row) {
    fit(length, width);
    for (int64_t k = 0; k < steps; ++k) {
      int count = int(std::min(CELL<W>, length - k * CELL<W>));
      const W* rows[2] = {row(k * CELL<W>), count > 1 ? row(k * CELL<W> + 1) : nullptr};
      over(columns, [&](int64_t c, int lanes) {
        *reinterpret_cast<vu*>(panel(c / P) + k * P) = cells_of(rows, count, c, lanes);
      });
    }
  }

  // Column c lies in one piece at x + c * apart.
  void from_columns(const W* x, int64_t apart, int64_t length, int64_t width) {
    fit(length, width);
    for (int64_t c = 0; c < columns; c += P)
      for (int64_t k = 0; k < steps; k += P) {
        vu block[P] = {};
        int64_t first = k * CELL<W>, left = std::min(P * CELL<W>, length - first);
        for (int64_t j = 0; j < std::min<int64_t>(P, columns - c); ++j)
          std::memcpy(&block[j], x + (c + j) * apart + first, left * sizeof(W));
        transpose(block);
        std::memcpy(panel(c / P) + k * P, block, std::min<int64_t>(P, steps - k) * sizeof(vu));
      }
  }

 private:
  void fit(int64_t length, int64_t width) {
    columns = width, steps = (length + CELL<W> - 1) / CELL<W>;
    cells.resize((columns + P - 1) / P * P * steps);
  }
};

// The left side of a tile as rows of memory, `length` numbers each.
template <class W>
struct RowsOnLeft {
  const W* row[ROWS];
  int64_t length;
  uint32_t cell(int r, int64_t k, int64_t bytes = 4) const {
    uint32_t out = 0;
    std::memcpy(&out, row[r] + k * CELL<W>, bytes);
    return out;
  }
  int64_t whole() const { return length / CELL<W>; }
  uint32_t last(int r) const { return cell(r, whole(), sizeof(W)); }
};

// The left side of a tile as columns of a panel.
template <class W>
struct PanelOnLeft {
  const uint32_t* at;
  int64_t steps;
  uint32_t cell(int r, int64_t k) const { return at[k * P + r]; }
  int64_t whole() const { return steps; }
  uint32_t last(int) const { return 0; }
};

// R rows of the left side times C panels, each `steps` steps.
template <class W, int R, int C, class Left>
inline void tile(const Left& left, const uint32_t* right, int64_t steps, vf (*out)[C]) {
  vf acc[R][C] = {};
  auto add = [&](int64_t k, auto cell) {
    vu column[C];
    for (int c = 0; c < C; ++c)
      column[c] = *reinterpret_cast<const vu*>(right + (c * steps + k) * P);
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c)
        acc[r][c] = add_cells((const W*)nullptr, acc[r][c], (vu){} + cell(r), column[c]);
  };
  int64_t whole = left.whole();
  for (int64_t k = 0; k < whole; ++k) add(k, [&](int r) { return left.cell(r, k); });
  if (whole < steps) add(whole, [&](int r) { return left.last(r); });
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) out[r][c] = acc[r][c];
}

// emit(row, column, lanes, sums) for all rows times right; left(first, size) gives so many rows.
template <class W, class L, class F>
inline void multiply(int64_t rows, L left, Packed<W>& right, F emit) {
  auto some = [&](auto height, auto width, int64_t row, int64_t panel) {
    constexpr int R = decltype(height)::value, C = decltype(width)::value;
    vf sums[R][C];
    tile<W, R, C>(left(row, R), right.panel(panel), right.steps, sums);
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) {
      int64_t column = (panel + c) * P;
      int lanes = int(std::min<int64_t>(P, right.columns - column));
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) emit(row + r, column, lanes, sums[r][c]);
    }
  };
  auto all_rows = [&](auto width, int64_t panel) {
    int64_t row = 0;
    auto take = [&](auto height) {
      for (constexpr int R = decltype(height)::value; row + R <= rows; row += R)
        some(height, width, row, panel);
    };
    take(std::integral_constant<int, ROWS>{}), take(std::integral_constant<int, 4>{});
    take(std::integral_constant<int, 2>{}), take(std::integral_constant<int, 1>{});
  };
  int64_t panel = 0, panels = (right.columns + P - 1) / P;
  for (; panel + PANELS <= panels; panel += PANELS)
    all_rows(std::integral_constant<int, PANELS>{}, panel);
  for (; panel < panels; ++panel) all_rows(std::integral_constant<int, 1>{}, panel);
}

}  // namespace
