// One row of logits after the other, while it is in the cache: its loss, and its gradient in place.
//
// R rows of V logits; targets [R], losses [R] fp32. fp32 inside, the gradient rounded once.

#include <algorithm>
#include <cmath>

#include "vectors.h"

namespace {

template <class W>
void rows(W* logits, const int64_t* targets, float* losses, int64_t R, int64_t V,
          int64_t threads) {
  int64_t whole = V / P * P;
#pragma omp parallel for num_threads(threads) if (R > 8)
  for (int64_t r = 0; r < R; ++r) {
    W* row = logits + r * V;
    vf top = vf{} - INFINITY;
    for (int64_t i = 0; i < whole; i += P) {
      vf v = load(row + i);
      top = v > top ? v : top;
    }
    float most = largest(top);
    for (int64_t i = whole; i < V; ++i) most = std::max(most, wide(row[i]));
    vf total = {};
    for (int64_t i = 0; i < whole; i += P) total += exp_of(load(row + i) - most);
    float all = sum(total);
    for (int64_t i = whole; i < V; ++i) all += std::exp(wide(row[i]) - most);
    float picked = wide(row[targets[r]]), share = std::exp(picked - most) / all;
    losses[r] = most + std::log(all) - picked;
    for (int64_t i = 0; i < whole; i += P) store(row + i, exp_of(load(row + i) - most) / all);
    for (int64_t i = whole; i < V; ++i) narrow(std::exp(wide(row[i]) - most) / all, row + i);
    narrow(share - 1.0f, row + targets[r]);
  }
}

}  // namespace

FOR_BOTH_TYPES(rows,
               (Pointer logits, Pointer targets, Pointer losses, int64_t R, int64_t V,
                int64_t threads),
               logits, targets, losses, R, V, threads)
