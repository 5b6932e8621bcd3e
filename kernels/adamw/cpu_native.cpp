// One step of AdamW: reads and writes each number once. And the square of a gradient's norm.
//
// n numbers; param, mean, square fp32; grad and rounded (null: nobody wants it) in the given type.

#include <cmath>
#include <vector>

#include "vectors.h"

namespace {

inline vf root_of(vf x) {
#ifdef __AVX512F__
  return (vf)_mm512_sqrt_ps((__m512)x);
#else
  for (int i = 0; i < P; ++i) x[i] = std::sqrt(x[i]);
  return x;
#endif
}

template <class G>
void step(float* param, const G* grad, float* mean, float* square, G* rounded, int64_t n,
          double beta1, double beta2, double eps, double kept, double rate, double root_scale,
          double grad_scale, int64_t threads) {
  float b1 = beta1, b2 = beta2, rest1 = 1 - beta1, rest2 = 1 - beta2;
  int64_t blocks = (n + P - 1) / P;
#pragma omp parallel for num_threads(threads) if (n > 1 << 15)
  for (int64_t b = 0; b < blocks; ++b) {
    int64_t i = b * P;
    int lanes = int(n - i < P ? n - i : P);
    vf g = load(grad + i, lanes) * float(grad_scale);
    vf m = load(mean + i, lanes) * b1 + g * rest1;
    vf s = load(square + i, lanes) * b2 + g * g * rest2;
    vf p = load(param + i, lanes) * float(kept) -
           float(rate) * m / (root_of(s) * float(root_scale) + float(eps));
    store(mean + i, m, lanes), store(square + i, s, lanes), store(param + i, p, lanes);
    if (rounded) store(rounded + i, p, lanes);
  }
}

// Summed in pieces, so that the number of threads changes no bit.
template <class G>
void squared_norm(const G* grad, float* out, int64_t n, int64_t threads) {
  constexpr int64_t PIECE = 1 << 14;
  std::vector<float> sums((n + PIECE - 1) / PIECE);
#pragma omp parallel for num_threads(threads) if (n > 1 << 15)
  for (size_t piece = 0; piece < sums.size(); ++piece) {
    int64_t start = piece * PIECE;
    vf squares = {};
    over(n - start < PIECE ? n - start : PIECE, [&](int64_t i, int lanes) {
      vf g = load(grad + start + i, lanes);
      squares += g * g;
    });
    sums[piece] = sum(squares);
  }
  double total = 0;
  for (float each : sums) total += each;
  *out = float(total);
}

}  // namespace

FOR_BOTH_TYPES(step,
               (Pointer param, Pointer grad, Pointer mean, Pointer square, Pointer rounded,
                int64_t n, double beta1, double beta2, double eps, double kept, double rate,
                double root_scale, double grad_scale, int64_t threads),
               param, grad, mean, square, rounded, n, beta1, beta2, eps, kept, rate, root_scale,
               grad_scale, threads)
FOR_BOTH_TYPES(squared_norm, (Pointer grad, Pointer out, int64_t n, int64_t threads), grad, out, n,
               threads)
