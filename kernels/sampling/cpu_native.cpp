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

// f(start, numbers) for each vector of a row from `i` on; behind the row's end stands `rest`.
template <class W, class F>
inline void each_vector(const W* row, int64_t i, int64_t V, float rest, F f) {
  for (; i + P <= V; i += P) f(i, load(row + i));
  if (i >= V) return;
  float lanes[P];
  for (int l = 0; l < P; ++l) lanes[l] = i + l < V ? wide(row[i + l]) : rest;
  f(i, load(lanes));
}

inline bool ends_block(int64_t i, int64_t V) { return (i + P) % BLOCK == 0 || i + P >= V; }

template <class W>
void sample_whole(const W* logits, const double* temperature, const double* uniform,
                  int64_t* tokens, float* logprobs, int64_t B, int64_t V, int64_t threads) {
#pragma omp parallel for num_threads(threads) if (B > 1 && B * V > 1 << 18)
  for (int64_t b = 0; b < B; ++b) {
    static thread_local std::vector<double> reached;
    reached.resize((V + BLOCK - 1) / BLOCK);
    const W* row = logits + b * V;
    float top = -INFINITY;
    int64_t first = 0;  // block with the highest
    vf none = vf{} - INFINITY, highest = none, wrong = {};  // NaN once a number is not finite
    each_vector(row, 0, V, wide(row[0]), [&](int64_t i, vf x) {
      wrong += x - x;
      highest = larger(x, highest);
      if (!ends_block(i, V)) return;
      float here = largest(highest);
      if (here > top) top = here, first = i / BLOCK;
      highest = none;
    });
    bool finite = sum(wrong) == 0;
    double heat = temperature[b] > 0 ? temperature[b] : 1.0, whole = 0;
    vf scale = vf{} + float(1.44269504088896 / heat), block = {};
    auto weight = [&](vf x) {
      vf power = (x - top) * scale;
      return (vf)((vi)exp2_of(power) & (power > -126.0f));
    };
    each_vector(row, 0, V, -INFINITY, [&](int64_t i, vf x) {
      block += weight(x);
      if (!ends_block(i, V)) return;
      reached[i / BLOCK] = whole += sum(block);
      block = vf{};
    });
    int64_t token = first * BLOCK;
    if (temperature[b] > 0) {
      double wanted = uniform[b] * whole;
      int64_t at = 0, last = (V - 1) / BLOCK;
      while (at < last && reached[at] <= wanted) ++at;
      while (at > 0 && reached[at] == reached[at - 1]) --at;  // nothing there to be drawn
      double before = at ? reached[at - 1] : 0;
      float weights[BLOCK];
      int64_t start = at * BLOCK, some = start, end = std::min(V, start + BLOCK);
      each_vector(row, start, end, -INFINITY,
                  [&](int64_t i, vf x) { store(weights + (i - start), weight(x)); });
      for (token = start; token < end && (before += weights[token - start]) <= wanted; ++token)
        if (weights[token - start] > 0) some = token;
      if (token == end) token = some;  // the block's own sum was rounded up
    } else {
      while (token < V - 1 && wide(row[token]) != top) ++token;
    }
    tokens[b] = token;
    logprobs[b] = finite ? (wide(row[token]) - top) / heat - std::log(whole) : NAN;
  }
}

}  // namespace

FOR_BOTH_TYPES(sample_whole,
               (Pointer logits, Pointer temperature, Pointer uniform, Pointer tokens,
                Pointer logprobs, int64_t B, int64_t V, int64_t threads),
               logits, temperature, uniform, tokens, logprobs, B, V, threads)
