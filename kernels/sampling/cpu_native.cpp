// Draws from whole rows of logits, a row at a time while it is in the cache.
//
// B rows of V logits; temperature, uniform [B] fp64, tokens [B], logprobs [B] fp32. The running sum of
// probabilities is fp64; a probability below 2^-126 of the likeliest is none.

#include <algorithm>
#include <cmath>
#include <vector>

#include "vectors.h"

namespace {

constexpr int64_t BLOCK = 16 * P;  // numbers whose sum is known when the row is searched

struct Survey {
  float top;
  bool finite;
};

template <class W>
Survey survey(const W* row, int64_t V) {
  vf top = vf{} - INFINITY, total = {};
  over(V, [&](int64_t i, int lanes) {
    vf x = load(row + i, lanes);
    total += x;
    if (lanes < P)
      for (int l = lanes; l < P; ++l) x[l] = -INFINITY;
    top = larger(x, top);
  });
  return {largest(top), std::isfinite(sum(total))};
}

template <class W>
void sample_whole(const W* logits, const double* temperature, const double* uniform,
                  int64_t* tokens, float* logprobs, int64_t B, int64_t V, int64_t) {
  static thread_local std::vector<float> weights;
  static thread_local std::vector<double> reached;
  weights.resize((V + P - 1) / P * P), reached.resize((V + BLOCK - 1) / BLOCK);
  for (int64_t b = 0; b < B; ++b) {
    const W* row = logits + b * V;
    Survey seen = survey(row, V);
    double heat = temperature[b] > 0 ? temperature[b] : 1.0, whole = 0;
    vf scale = vf{} + float(1.44269504088896 / heat), nothing = {}, block = {};
    over(V, [&](int64_t i, int lanes) {
      vf power = (load(row + i, lanes) - seen.top) * scale;
      vf weight = power > -126.0f ? exp2_of(power) : nothing;
      for (int l = lanes; l < P; ++l) weight[l] = 0;
      store(&weights[i], weight);
      block += weight;
      if ((i + P) % BLOCK == 0 || i + P >= V) reached[i / BLOCK] = whole += sum(block), block = nothing;
    });
    int64_t token = 0;
    if (temperature[b] > 0) {
      double wanted = uniform[b] * whole;
      int64_t at = 0, last = (V - 1) / BLOCK;
      while (at < last && reached[at] <= wanted) ++at;
      while (at > 0 && reached[at] == reached[at - 1]) --at;  // nothing there to be drawn
      double before = at ? reached[at - 1] : 0;
      int64_t some = at * BLOCK, end = std::min(V, some + BLOCK);
      for (token = some; token < end && (before += weights[token]) <= wanted; ++token)
        if (weights[token] > 0) some = token;
      if (token == end) token = some;  // the block's own sum was rounded up
    } else {
      while (token < V - 1 && wide(row[token]) != seen.top) ++token;
    }
    tokens[b] = token;
    logprobs[b] = seen.finite ? (wide(row[token]) - seen.top) / heat - std::log(whole) : NAN;
  }
}

}  // namespace

FOR_BOTH_TYPES(sample_whole,
               (Pointer logits, Pointer temperature, Pointer uniform, Pointer tokens,
                Pointer logprobs, int64_t B, int64_t V, int64_t threads),
               logits, temperature, uniform, tokens, logprobs, B, V, threads)
