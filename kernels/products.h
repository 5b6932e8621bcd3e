// Matrix products in tiles that stay in registers; sums in fp32, whatever lies in memory.
//
// A cell is 32 bits: one fp32 number, or two bf16 numbers that follow each other along the sum; a
// step is a cell further along it. The right side is packed in panels of P columns, a step's cells
// side by side, with zeros where there is nothing. A row's sums are added in one fixed order,
// whatever stands beside it. No threads and no blocking along the sum: for some thousand steps.
// bf16 goes through the processor's own tiles where it has them and the thread holds `Tiles`.

#pragma once

#include <algorithm>
#include <vector>

#include "tiles.h"
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

// Blocks of S numbers change places across the diagonal of each block of 2 * S.
template <int S>
inline void swap_blocks(vu (&x)[P]) {
#define HALVES(...) __builtin_shufflevector(a, b, __VA_ARGS__)
#pragma GCC unroll 16
  for (int i = 0; i < P; ++i) {
    if (i & S) continue;
    vu a = x[i], b = x[i + S];
    if constexpr (S == 8) {
      x[i] = HALVES(0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
      x[i + S] = HALVES(8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    } else if constexpr (S == 4) {
      x[i] = HALVES(0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27);
      x[i + S] = HALVES(4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
    } else if constexpr (S == 2) {
      x[i] = HALVES(0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
      x[i + S] = HALVES(2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    } else {
      x[i] = HALVES(0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30);
      x[i + S] = HALVES(1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
    }
  }
#undef HALVES
}

// Rows become columns.
inline void transpose(vu (&x)[P]) {
  swap_blocks<8>(x), swap_blocks<4>(x), swap_blocks<2>(x), swap_blocks<1>(x);
}

template <class W>
inline bool has_tiles() { return sizeof(W) == 2 && Tiles::usable(); }
// Whether products of packed numbers are faster than those of single ones.
template <class W>
inline bool has_pairs() {
#ifdef __AVX512BF16__
  return sizeof(W) == 2;
#else
  return has_tiles<W>();
#endif
}

template <class W>
struct Packed {
  std::vector<uint32_t> cells;
  int64_t columns = 0, steps = 0, apart = 0;  // steps from one panel to the next

  uint32_t* panel(int64_t at) { return &cells[at * apart * P]; }

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

  // Panel p has number k of its P columns at row(p, k).
  template <class F>
  void from_panels(int64_t length, int64_t panels, F row) {
    fit(length, panels * P);
    for (int64_t p = 0; p < panels; ++p)
      for (int64_t k = 0; k < steps; ++k) {
        int count = int(std::min(CELL<W>, length - k * CELL<W>));
        const W* rows[2] = {row(p, k * CELL<W>), count > 1 ? row(p, k * CELL<W> + 1) : nullptr};
        *reinterpret_cast<vu*>(panel(p) + k * P) = cells_of(rows, count, 0, P);
      }
  }

  // Column c lies in one piece at x + c * apart.
  void from_columns(const W* x, int64_t apart, int64_t length, int64_t width) {
    fit(length, width);
    for (int64_t c = 0; c < columns; c += P)
      for (int64_t k = 0; k < steps; k += P) {
        const W* from = x + c * apart + k * CELL<W>;
        vu* to = reinterpret_cast<vu*>(panel(c / P) + k * P);
        int64_t left = length - k * CELL<W>;
        if (columns - c >= P && left >= P * CELL<W>) {
          vu block[P];
          for (int j = 0; j < P; ++j) __builtin_prefetch(from + (P + j) * apart);
          for (int j = 0; j < P; ++j) std::memcpy(&block[j], from + j * apart, sizeof(vu));
          transpose(block);
          for (int j = 0; j < P; ++j) to[j] = block[j];
        } else {
          vu block[P] = {};
          left = std::min(P * CELL<W>, left);
          for (int64_t j = 0; j < std::min<int64_t>(P, columns - c); ++j)
            std::memcpy(&block[j], from + j * apart, left * sizeof(W));
          transpose(block);
          std::memcpy(to, block, std::min<int64_t>(P, steps - k) * sizeof(vu));
        }
      }
  }

 private:
  void fit(int64_t length, int64_t width) {
    int64_t panels = (width + P - 1) / P;
    columns = width, apart = steps = (length + CELL<W> - 1) / CELL<W>;
    if (has_tiles<W>()) apart = (steps + P - 1) / P * P;  // with zeros up to there
    cells.resize(panels * apart * P);
    for (int64_t at = 0; at < panels && steps < apart; ++at)
      std::fill(panel(at) + steps * P, panel(at) + apart * P, 0);
  }
};

inline uint32_t cell_at(const void* p, int64_t bytes = 4) {
  uint32_t out = 0;
  std::memcpy(&out, p, bytes);
  return out;
}

// Where rows of cells lie for tiles, with zeros behind them, and how many bytes apart.
struct Laid {
  const void* at;
  int64_t bytes;
};

// The left side of a tile as rows of memory, `length` numbers each, wherever they lie.
template <class W>
struct RowsOnLeft {
  const W* row[P];
  int64_t length;
  int64_t whole() const { return length / CELL<W>; }
  uint32_t last(int r) const { return cell_at(row[r] + whole() * CELL<W>, sizeof(W)); }
  // `size` rows of `steps` cells, for which there is room at `to`.
  Laid laid(uint32_t* to, int64_t steps, int size) const {
    for (int r = 0; r < size; ++r) {
      char* cells = (char*)(to + r * steps);
      std::memcpy(cells, row[r], length * sizeof(W));
      std::memset(cells + length * sizeof(W), 0, steps * 4 - length * sizeof(W));
    }
    return {to, steps * 4};
  }
  struct Walk {
    const RowsOnLeft& rows;
    int64_t at;
    uint32_t cell(int r) const { return cell_at(rows.row[r] + at); }
    void on() { at += CELL<W>; }
  };
  Walk walk() const { return {*this, 0}; }
};

// The same `apart` from each other, which takes fewer registers.
template <class W>
struct EvenOnLeft {
  const W* first;
  int64_t apart, length;
  int64_t whole() const { return length / CELL<W>; }
  uint32_t last(int r) const { return cell_at(first + r * apart + whole() * CELL<W>, sizeof(W)); }
  Laid laid(uint32_t* to, int64_t steps, int size) const {
    if (size == P && length == steps * CELL<W>) return {first, apart * int64_t(sizeof(W))};
    RowsOnLeft<W> rows = {{}, length};
    for (int r = 0; r < size; ++r) rows.row[r] = first + r * apart;
    return rows.laid(to, steps, size);
  }
  struct Walk {
    const W* first;
    int64_t apart, step;
    uint32_t cell(int r) const { return cell_at(first + r * apart + step * CELL<W>); }
    void on() { ++step; }
  };
  Walk walk() const { return {first, apart, 0}; }
};

// The left side of a tile as columns of a panel.
template <class W>
struct PanelOnLeft {
  const uint32_t* at;
  int64_t steps;
  int64_t whole() const { return steps; }
  uint32_t last(int) const { return 0; }
  Laid laid(uint32_t* to, int64_t apart, int) const {  // the panel has zeros up to there
    for (int64_t k = 0; k < apart; k += P) {
      vu block[P];
      std::memcpy(block, at + k * P, sizeof block);
      transpose(block);
      for (int r = 0; r < P; ++r) *reinterpret_cast<vu*>(to + r * apart + k) = block[r];
    }
    return {to, apart * 4};
  }
  struct Walk {
    const uint32_t* at;
    uint32_t cell(int r) const { return at[r]; }
    void on() { at += P; }
  };
  Walk walk() const { return {at}; }
};

// R rows of the left side, from `row` on, times C panels from `right` on, whose first column is `column`
// of `columns`. Not inlined, and all by value: in a large function, or with variables that what it
// stores could change, neither its sums nor its pointers would stay in registers.
template <class W, int R, int C, class Left, class F>
__attribute__((noinline)) void tile(const Left left, const uint32_t* right, int64_t steps,
                                    int64_t apart, int64_t row, int64_t column, int64_t columns,
                                    const F emit) {
  vf acc[R][C] = {};
  auto add = [&](auto cell) {
    vu panel[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) panel[c] = *reinterpret_cast<const vu*>(right + c * apart * P);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c)
        acc[r][c] = add_cells((const W*)nullptr, acc[r][c], (vu){} + cell(r), panel[c]);
  };
  auto walk = left.walk();
  int64_t whole = left.whole();
  for (int64_t k = whole; k > 0; --k, walk.on(), right += P)
    add([&](int r) { return walk.cell(r); });
  if (whole < steps) add([&](int r) { return left.last(r); });
#pragma GCC unroll 8
  for (int c = 0; c < C; ++c) {
    int lanes = int(std::min<int64_t>(P, columns - column - c * P));
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) emit(row + r, column + c * P, lanes, acc[r][c]);
  }
}

// An `emit` that writes the sums to rows of floats `apart` from each other, or adds them there.
// Whole tiles go there without a detour.
template <bool ADD>
struct Onto {
  float* first;
  int64_t apart;
  float* at(int64_t row, int64_t column) const { return first + row * apart + column; }
  void operator()(int64_t row, int64_t column, int lanes, vf sums) const {
    float* place = at(row, column);
    store(place, ADD ? load(place, lanes) + sums : sums, lanes);
  }
};

#ifdef TILES
// How a tile of sums begins and ends: at `place` if it has one, else with zeros and in `sums`.
template <class F>
struct Sums {
  static float* place(const F&, int64_t, int64_t) { return nullptr; }
  template <int T>
  static void begin(const F&, float*) { Tiles::zero<T>(); }
  template <int T>
  static void end(const F&, float*, float* sums, int64_t bytes) { Tiles::store<T>(sums, bytes); }
};
template <bool ADD>
struct Sums<Onto<ADD>> {
  static float* place(const Onto<ADD>& to, int64_t row, int64_t column) { return to.at(row, column); }
  template <int T>
  static void begin(const Onto<ADD>& to, float* place) {
    ADD && place ? Tiles::load<T>(place, 4 * to.apart) : Tiles::zero<T>();
  }
  template <int T>
  static void end(const Onto<ADD>& to, float* place, float* sums, int64_t bytes) {
    place ? Tiles::store<T>(place, 4 * to.apart) : Tiles::store<T>(sums, bytes);
  }
};

// Two tiles of rows times two of columns at a time.
template <class W, class L, class F>
inline void multiply_in_tiles(int64_t rows, L left, Packed<W>& right, F emit) {
  static thread_local std::vector<uint32_t> cells;  // of the rows, [2 * P, right.apart]
  alignas(64) float sums[2 * P][2 * P];
  int64_t steps = right.apart, panels = (right.columns + P - 1) / P;
  cells.resize(2 * P * steps);
  Laid half[2];
  for (int64_t row = 0; row < rows; row += 2 * P) {
    int high = int(std::min<int64_t>(2 * P, rows - row));
    bool lower = high > P;
    for (int h = 0; h <= lower; ++h) {
      int size = std::min(P, high - h * P);
      half[h] = left(row + h * P, size).laid(&cells[h * P * steps], steps, size);
    }
    for (int64_t panel = 0; panel < panels; panel += 2) {
      bool further = panel + 1 < panels;
      float* place[2][2] = {};
      for (int h = 0; h <= lower && high >= (h + 1) * P; ++h)
        for (int c = 0; c <= further && right.columns >= (panel + c + 1) * P; ++c)
          place[h][c] = Sums<F>::place(emit, row + h * P, (panel + c) * P);
      Sums<F>::template begin<0>(emit, place[0][0]), Sums<F>::template begin<1>(emit, place[0][1]);
      Sums<F>::template begin<2>(emit, place[1][0]), Sums<F>::template begin<3>(emit, place[1][1]);
      for (int64_t k = 0; k < steps; k += P) {
        Tiles::load<4>((const uint32_t*)half[0].at + k, half[0].bytes);
        Tiles::load<6>(right.panel(panel) + k * P, 4 * P), Tiles::add<0, 4, 6>();
        if (further) Tiles::load<7>(right.panel(panel + 1) + k * P, 4 * P), Tiles::add<1, 4, 7>();
        if (!lower) continue;
        Tiles::load<5>((const uint32_t*)half[1].at + k, half[1].bytes), Tiles::add<2, 5, 6>();
        if (further) Tiles::add<3, 5, 7>();
      }
      auto end = [&](auto number, int h, int c) {
        constexpr int T = decltype(number)::value;
        Sums<F>::template end<T>(emit, place[h][c], &sums[h * P][c * P], sizeof sums[0]);
        if (place[h][c]) return;
        int64_t column = (panel + c) * P;
        int lanes = int(std::min<int64_t>(P, right.columns - column));
        for (int r = h * P; r < std::min(high, (h + 1) * P); ++r)
          emit(row + r, column, lanes, load(&sums[r][c * P]));
      };
      end(std::integral_constant<int, 0>{}, 0, 0);
      if (further) end(std::integral_constant<int, 1>{}, 0, 1);
      if (lower) end(std::integral_constant<int, 2>{}, 1, 0);
      if (lower && further) end(std::integral_constant<int, 3>{}, 1, 1);
    }
  }
}
#endif

// emit(row, column, lanes, sums) for all rows times right; left(first, size) gives so many rows. Let
// `emit` hold what it needs by value, see `tile`.
template <class W, class L, class F>
inline void multiply(int64_t rows, L left, Packed<W>& right, F emit) {
#ifdef TILES
  if (has_tiles<W>()) return multiply_in_tiles(rows, left, right, emit);
#endif
  auto all_rows = [&](auto width, int64_t panel) {
    int64_t row = 0;
    auto take = [&](auto height) {
      constexpr int R = decltype(height)::value, C = decltype(width)::value;
      for (; row + R <= rows; row += R)
        tile<W, R, C>(left(row, R), right.panel(panel), right.steps, right.apart, row, panel * P,
                      right.columns, emit);
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
