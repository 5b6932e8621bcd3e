// Log-probabilities of tokens from rows of logits, and those logits' gradient in place.
//
// R rows of V logits; targets [R], out and grad [R] fp32. fp32 inside, the gradient rounded once.

#include "softmax.h"

namespace {

template <class W>
void forward(const W* logits, const int64_t* targets, float* out, int64_t R, int64_t V,
             int64_t threads) {
#pragma omp parallel for num_threads(threads) if (R > 8)
  for (int64_t r = 0; r < R; ++r) {
    const W* row = logits + r * V;
    out[r] = softmax_of(row, V).logprob(wide(row[targets[r]]));
  }
}

template <class W>
void backward(W* logits, const int64_t* targets, const float* grad, int64_t R, int64_t V,
              int64_t threads) {
#pragma omp parallel for num_threads(threads) if (R > 8)
  for (int64_t r = 0; r < R; ++r) {
    W* row = logits + r * V;
    to_gradient(row, V, softmax_of(row, V), targets[r], -grad[r]);
  }
}

}  // namespace

FOR_BOTH_TYPES(forward,
               (Pointer logits, Pointer targets, Pointer out, int64_t R, int64_t V,
                int64_t threads),
               logits, targets, out, R, V, threads)
FOR_BOTH_TYPES(backward,
               (Pointer logits, Pointer targets, Pointer grad, int64_t R, int64_t V,
                int64_t threads),
               logits, targets, grad, R, V, threads)
