// RMS norm of a token's whole vector, then partial rotary of its heads; fp32 inside, rounded once.
//
// N tokens of `heads` times D; x, y, grad, dx [N, heads * D], w, dw [heads * D], scale [N] fp32,
// cos, sin [N, half] fp32. Dimension i of a head turns with i + half; 2 * half and up stay.

#include <cmath>
#include <vector>

#include "vectors.h"

namespace {

// Turn one head in place; `way` is -1 to turn it back.
inline void turn(float* head, const float* cos, const float* sin, int64_t half, float way) {
  for (int64_t i = 0; i < half; ++i) {
    float first = head[i], second = head[i + half], s = way * sin[i];
    head[i] = first * cos[i] - second * s;
    head[i + half] = second * cos[i] + first * s;
  }
}

template <class W>
void forward(const W* x, const W* w, const float* cos, const float* sin, W* y, float* scale,
             int64_t N, int64_t heads, int64_t D, int64_t half, double eps, int64_t threads) {
  int64_t width = heads * D;
#pragma omp parallel num_threads(threads) if (N > 64)
  {
    std::vector<float> turned(width + P);
#pragma omp for
    for (int64_t n = 0; n < N; ++n) {
      const W* row = x + n * width;
      vf squares = {};
      over(width, [&](int64_t i, int lanes) {
        vf v = load(row + i, lanes);
        squares += v * v;
      });
      float s = 1.0f / std::sqrt(sum(squares) / float(width) + float(eps));
      scale[n] = s;
      over(width, [&](int64_t i, int lanes) {
        store(&turned[i], load(row + i, lanes) * s * load(w + i, lanes));
      });
      for (int64_t h = 0; h < heads; ++h)
        turn(&turned[h * D], cos + n * half, sin + n * half, half, 1);
      over(width,
           [&](int64_t i, int lanes) { store(y + n * width + i, load(&turned[i]), lanes); });
    }
  }
}

template <class W>
void backward(const W* x, const W* w, const float* cos, const float* sin, const float* scale,
              const W* grad, W* dx, float* dw, int64_t N, int64_t heads, int64_t D, int64_t half,
              int64_t threads) {
  int64_t width = heads * D, padded = (width + P - 1) / P * P;
  std::vector<float> parts(threads * padded, 0.0f);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int64_t part = 0; part < threads; ++part) {
    std::vector<float> back(padded);
    float* mine = &parts[part * padded];
    for (int64_t n = N * part / threads; n < N * (part + 1) / threads; ++n) {
      const W* row = x + n * width;
      float s = scale[n];
      over(width, [&](int64_t i, int lanes) {
        store(&back[i], load(grad + n * width + i, lanes));
      });
      for (int64_t h = 0; h < heads; ++h)
        turn(&back[h * D], cos + n * half, sin + n * half, half, -1);
      vf dot = {};
      over(width, [&](int64_t i, int lanes) {
        vf normed = load(row + i, lanes) * s, up = load(&back[i]);
        store(mine + i, load(mine + i) + up * normed);
        up *= load(w + i, lanes);
        store(&back[i], up);
        dot += up * normed;
      });
      float along = sum(dot) / float(width);
      over(width, [&](int64_t i, int lanes) {
        vf normed = load(row + i, lanes) * s;
        store(dx + n * width + i, (load(&back[i]) - normed * along) * s, lanes);
      });
    }
  }
  for (int64_t i = 0; i < width; ++i) {
    dw[i] = 0;
    for (int64_t part = 0; part < threads; ++part) dw[i] += parts[part * padded + i];
  }
}

}  // namespace

FOR_BOTH_TYPES(forward,
               (Pointer x, Pointer w, Pointer cos, Pointer sin, Pointer y, Pointer scale, int64_t N,
                int64_t heads, int64_t D, int64_t half, double eps, int64_t threads),
               x, w, cos, sin, y, scale, N, heads, D, half, eps, threads)
FOR_BOTH_TYPES(backward,
               (Pointer x, Pointer w, Pointer cos, Pointer sin, Pointer scale, Pointer grad,
                Pointer dx, Pointer dw, int64_t N, int64_t heads, int64_t D, int64_t half,
                int64_t threads),
               x, w, cos, sin, scale, grad, dx, dw, N, heads, D, half, threads)
