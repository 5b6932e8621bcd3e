// The experts: their matrix products, one expert a thread at a time, and what stands between them.
//
// N tokens, K experts a token, M = N * K rows sorted by expert, E experts of inner width I, H hidden.
// order [M]: which slot (token * K + k) a row is; place [M]: which row a slot is; ends [E]: where
// each expert's rows end. fp32 inside, rounded once; a row's result depends on that row alone.

#include <vector>

#include "products.h"

namespace {

// Row m of those sorted by expert, out of rows that lie by token; without an order they lie sorted.
template <class W>
struct Sorted {
  const W* rows;
  const int64_t* order;
  int64_t K, width;
  const W* operator()(int64_t m) const { return rows + (order ? order[m] / K : m) * width; }
};

// f(expert, its first row, how many) for each expert.
template <class F>
void each_expert(const int64_t* ends, int64_t E, int64_t threads, F f) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
  for (int64_t e = 0; e < E; ++e) {
    Tiles held;
    int64_t start = e ? ends[e - 1] : 0;
    f(e, start, ends[e] - start);
  }
}

// out [M, B] = x [M, A] times the weight [B, A] of each row's expert, or with `turned` [A, B].
template <class W>
void products(const W* x, const int64_t* order, const W* weights, const int64_t* ends, W* out,
              int64_t K, int64_t E, int64_t B, int64_t A, int64_t turned, int64_t threads) {
  Sorted<W> sorted = {x, order, K, A};
  each_expert(ends, E, threads, [&](int64_t e, int64_t start, int64_t count) {
    static thread_local Packed<W> right;
    if (!count) return;
    const W* weight = weights + e * B * A;
    if (turned)
      right.from_rows(A, B, [&](int64_t k) { return weight + k * B; });
    else
      right.from_columns(weight, A, A, B);
    auto emit = [=](int64_t row, int64_t column, int lanes, vf sums) {
      store(out + (start + row) * B + column, sums, lanes);
    };
    auto anywhere = [&](int64_t first, int size) {
      RowsOnLeft<W> rows = {{}, A};
      for (int r = 0; r < size; ++r) rows.row[r] = sorted(start + first + r);
      return rows;
    };
    auto in_order = [&](int64_t first, int) {
      return EvenOnLeft<W>{sorted(start + first), A, A};
    };
    if (order)
      multiply(count, anywhere, right, emit);
    else
      multiply(count, in_order, right, emit);
  });
}

// out [E, B, A]: the sum over each expert's rows of left [B] times right [A].
template <class W>
void outer(const W* left, const int64_t* left_order, const W* right, const int64_t* right_order,
           const int64_t* ends, W* out, int64_t K, int64_t E, int64_t B, int64_t A,
           int64_t threads) {
  Sorted<W> on_left = {left, left_order, K, B}, on_right = {right, right_order, K, A};
  each_expert(ends, E, threads, [&](int64_t e, int64_t start, int64_t count) {
    static thread_local Packed<W> rows, columns;
    rows.from_rows(count, B, [&](int64_t m) { return on_left(start + m); });
    columns.from_rows(count, A, [&](int64_t m) { return on_right(start + m); });
    // What is taken at once stays within a panel of the left side, or is two of them.
    int64_t at_once = has_tiles<W>() ? 2 * P : P;
    for (int64_t b = 0; b < B; b += at_once) {
      auto panel = [&](int64_t first, int) {
        return PanelOnLeft<W>{rows.panel((b + first) / P) + first % P, rows.steps};
      };
      multiply(std::min(at_once, B - b), panel, columns,
               [=](int64_t row, int64_t column, int lanes, vf sums) {
                 store(out + (e * B + b + row) * A + column, sums, lanes);
               });
    }
  });
}

// silu of the gates and its derivative
inline vf sigmoid(vf x) { return 1.0f / (1.0f + exp_of(-x)); }

// active = silu(gate) * up * weight; hidden [M, 2I] has the gates before the ups.
template <class W>
void activate(const W* hidden, const float* weights, const int64_t* order, W* active, int64_t M,
              int64_t I, int64_t threads) {
#pragma omp parallel for num_threads(threads) if (M > 64)
  for (int64_t m = 0; m < M; ++m) {
    const W *gate = hidden + m * 2 * I, *up = gate + I;
    float weight = weights[order[m]];
    over(I, [&](int64_t i, int lanes) {
      vf g = load(gate + i, lanes);
      store(active + m * I + i, g * sigmoid(g) * load(up + i, lanes) * weight, lanes);
    });
  }
}

// From the gradient of `active`, which is overwritten with `active` itself, those of hidden, weights.
template <class W>
void activate_backward(const W* hidden, const float* weights, const int64_t* order, W* active,
                       W* d_hidden, float* d_weights, int64_t M, int64_t I, int64_t threads) {
#pragma omp parallel for num_threads(threads) if (M > 64)
  for (int64_t m = 0; m < M; ++m) {
    const W *gate = hidden + m * 2 * I, *up = gate + I;
    W *row = active + m * I, *d_gate = d_hidden + m * 2 * I, *d_up = d_gate + I;
    float weight = weights[order[m]];
    vf along = {};
    over(I, [&](int64_t i, int lanes) {
      vf g = load(gate + i, lanes), u = load(up + i, lanes), d = load(row + i, lanes);
      vf s = sigmoid(g), a = g * s;
      along += d * a * u;
      d *= weight;
      store(d_up + i, d * a, lanes);
      store(d_gate + i, d * u * s * (1.0f + g - a), lanes);
      store(row + i, a * u * weight, lanes);
    });
    d_weights[order[m]] = sum(along);
  }
}

// Add up the K rows of each token.
template <class W>
void gather_sum(const W* rows, const int64_t* place, W* out, int64_t N, int64_t K, int64_t H,
                int64_t threads) {
#pragma omp parallel for num_threads(threads) if (N > 64)
  for (int64_t n = 0; n < N; ++n)
    over(H, [&](int64_t i, int lanes) {
      vf total = load(rows + place[n * K] * H + i, lanes);
      for (int64_t k = 1; k < K; ++k) total += load(rows + place[n * K + k] * H + i, lanes);
      store(out + n * H + i, total, lanes);
    });
}

// Counting sort of the slots by expert, stable; ends [E] is where each expert's rows end.
template <class W>
void sort(const int64_t* experts, int64_t* order, int64_t* place, int64_t* ends, int64_t M,
          int64_t E, int64_t) {
  std::vector<int64_t> next(E + 1, 0);
  for (int64_t slot = 0; slot < M; ++slot) ++next[experts[slot] + 1];
  for (int64_t e = 0; e < E; ++e) ends[e] = next[e + 1] += next[e];
  for (int64_t slot = 0; slot < M; ++slot) {
    int64_t at = next[experts[slot]]++;
    order[at] = slot;
    place[slot] = at;
  }
}

}  // namespace

FOR_BOTH_TYPES(products,
               (Pointer x, Pointer order, Pointer weights, Pointer ends, Pointer out, int64_t K,
                int64_t E, int64_t B, int64_t A, int64_t turned, int64_t threads),
               x, order, weights, ends, out, K, E, B, A, turned, threads)
FOR_BOTH_TYPES(outer,
               (Pointer left, Pointer left_order, Pointer right, Pointer right_order, Pointer ends,
                Pointer out, int64_t K, int64_t E, int64_t B, int64_t A, int64_t threads),
               left, left_order, right, right_order, ends, out, K, E, B, A, threads)
FOR_BOTH_TYPES(activate,
               (Pointer hidden, Pointer weights, Pointer order, Pointer active, int64_t M,
                int64_t I, int64_t threads),
               hidden, weights, order, active, M, I, threads)
FOR_BOTH_TYPES(activate_backward,
               (Pointer hidden, Pointer weights, Pointer order, Pointer active, Pointer d_hidden,
                Pointer d_weights, int64_t M, int64_t I, int64_t threads),
               hidden, weights, order, active, d_hidden, d_weights, M, I, threads)
FOR_BOTH_TYPES(gather_sum,
               (Pointer rows, Pointer place, Pointer out, int64_t N, int64_t K, int64_t H,
                int64_t threads),
               rows, place, out, N, K, H, threads)
FOR_BOTH_TYPES(sort,
               (Pointer experts, Pointer order, Pointer place, Pointer ends, int64_t M, int64_t E,
                int64_t threads),
               experts, order, place, ends, M, E, threads)
