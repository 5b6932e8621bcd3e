// The softmax of a row of logits, in fp32 whatever lies in memory.

#pragma once

#include <algorithm>
#include <cmath>

#include "vectors.h"

namespace {

struct Softmax {
  float top, whole;  // the highest logit, and the sum of e^(logit - top)
  float logprob(float logit) const { return logit - top - std::log(whole); }
};

template <class W>
inline Softmax softmax_of(const W* row, int64_t V) {
  int64_t full = V / P * P;
  vf highest = vf{} - INFINITY;
  for (int64_t i = 0; i < full; i += P) {
    vf v = load(row + i);
    highest = v > highest ? v : highest;
  }
  float top = largest(highest);
  for (int64_t i = full; i < V; ++i) top = std::max(top, wide(row[i]));
  vf total = {};
  for (int64_t i = 0; i < full; i += P) total += exp_of(load(row + i) - top);
  float whole = sum(total);
  for (int64_t i = full; i < V; ++i) whole += std::exp(wide(row[i]) - top);
  return {top, whole};
}

// Logits to the gradient of -scale * logprob(target): scale times their probability, for the target
// less one.
template <class W>
inline void to_gradient(W* row, int64_t V, const Softmax& softmax, int64_t target, float scale) {
  float share = std::exp(wide(row[target]) - softmax.top) / softmax.whole;
  float factor = scale / softmax.whole;
  over(V, [&](int64_t i, int lanes) {
    store(row + i, exp_of(load(row + i, lanes) - softmax.top) * factor, lanes);
  });
  narrow((share - 1.0f) * scale, row + target);
}

}  // namespace
