// RMS norm forward and backward: one pass over each row. fp32 inside, rounded once.
//
// N rows of D; x, y, grad, dx [N, D], w, dw [D], scale [N] fp32.

#include <cmath>
#include <vector>

#include "vectors.h"

namespace {

template <class W>
void forward(const W* x, const W* w, W* y, float* scale, int64_t N, int64_t D, double eps,
             int64_t threads) {
#pragma omp parallel for num_threads(threads) if (N > 64)
  for (int64_t n = 0; n < N; ++n) {
    const W* row = x + n * D;
    vf squares = {};
    over(D, [&](int64_t i, int lanes) {
      vf v = load(row + i, lanes);
      squares += v * v;
    });
    float s = 1.0f / std::sqrt(sum(squares) / float(D) + float(eps));
    scale[n] = s;
    over(D, [&](int64_t i, int lanes) {
      store(y + n * D + i, load(row + i, lanes) * s * load(w + i, lanes), lanes);
    });
  }
}

template <class W>
void backward(const W* x, const W* w, const float* scale, const W* grad, W* dx, float* dw,
              int64_t N, int64_t D, int64_t threads) {
  int64_t width = (D + P - 1) / P * P;
  std::vector<float> parts(threads * width, 0.0f);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int64_t part = 0; part < threads; ++part) {
    float* mine = &parts[part * width];
    for (int64_t n = N * part / threads; n < N * (part + 1) / threads; ++n) {
      const W *row = x + n * D, *g = grad + n * D;
      float s = scale[n];
      vf dot = {};
      over(D, [&](int64_t i, int lanes) {
        vf normed = load(row + i, lanes) * s, up = load(g + i, lanes);
        store(mine + i, load(mine + i) + up * normed);
        dot += up * load(w + i, lanes) * normed;
      });
      float along = sum(dot) / float(D);
      over(D, [&](int64_t i, int lanes) {
        vf normed = load(row + i, lanes) * s;
        store(dx + n * D + i, (load(g + i, lanes) * load(w + i, lanes) - normed * along) * s,
              lanes);
      });
    }
  }
  for (int64_t i = 0; i < D; ++i) {
    dw[i] = 0;
    for (int64_t part = 0; part < threads; ++part) dw[i] += parts[part * width + i];
  }
}

}  // namespace

FOR_BOTH_TYPES(forward,
               (Pointer x, Pointer w, Pointer y, Pointer scale, int64_t N, int64_t D, double eps,
                int64_t threads),
               x, w, y, scale, N, D, eps, threads)
FOR_BOTH_TYPES(backward,
               (Pointer x, Pointer w, Pointer scale, Pointer grad, Pointer dx, Pointer dw, int64_t N,
                int64_t D, int64_t threads),
               x, w, scale, grad, dx, dw, N, D, threads)
