// What stands between the matrix products of the experts; the products themselves are PyTorch's.
//
// N tokens, K experts a token, M = N * K rows sorted by expert, E experts of inner width I, H hidden.
// order [M]: which slot (token * K + k) a row is; place [M]: which row a slot is.
// fp32 inside, rounded once; a row's result depends on that row alone.

#include <vector>

#include "vectors.h"

namespace {

// silu of the gates and its derivative
inline vf sigmoid(vf x) { return 1.0f / (1.0f + exp_of(-x)); }

template <class W>
void gather(const W* x, const int64_t* order, W* rows, int64_t M, int64_t K, int64_t H,
            int64_t threads) {
#pragma omp parallel for num_threads(threads) if (M > 64)
  for (int64_t m = 0; m < M; ++m)
    std::memcpy(rows + m * H, x + order[m] / K * H, H * sizeof(W));
}

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

FOR_BOTH_TYPES(gather,
               (Pointer x, Pointer order, Pointer rows, int64_t M, int64_t K, int64_t H,
                int64_t threads),
               x, order, rows, M, K, H, threads)
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
