// One row of logits after the other, while it is in the cache: its loss, and its gradient in place.
//
// R rows of V logits; targets [R], losses [R] fp32. fp32 inside, the gradient rounded once.

#include "softmax.h"

namespace {

template <class W>
void rows(W* logits, const int64_t* targets, float* losses, int64_t R, int64_t V,
          int64_t threads) {
#pragma omp parallel for num_threads(threads) if (R > 8)
  for (int64_t r = 0; r < R; ++r) {
    W* row = logits + r * V;
    Softmax softmax = softmax_of(row, V);
    losses[r] = -softmax.logprob(wide(row[targets[r]]));
    to_gradient(row, V, softmax, targets[r], 1.0f);
  }
}

}  // namespace

FOR_BOTH_TYPES(rows,
               (Pointer logits, Pointer targets, Pointer losses, int64_t R, int64_t V,
                int64_t threads),
               logits, targets, losses, R, V, threads)
