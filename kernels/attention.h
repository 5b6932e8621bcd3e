// Causal attention of query rows over keys and values in pages, in blocks, with a running softmax.
//
// Rows that stand together and share a block's pages (a prompt's tokens, a group behind one prompt)
// read it once. What a row gets depends on that row alone, in one fixed order: which rows stand
// beside it changes no bit. Memory behind a row's length is never used, whatever it holds.
//
// Prompts in bf16 are multiplied in pairs where the processor does that; then queries and weights
// are rounded to bf16.
//
// Legend: P tokens of a page = lanes of a vector, D head_dim, T query vectors that a block meets at
// once (some rows' heads of one key head), BLOCK keys of a block.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "products.h"

namespace {

constexpr int BLOCK = 128, WIDEST = 256;  // keys, head_dim
constexpr int TILE = 12, PAIRED = 128;     // query vectors, those that meet packed keys
constexpr int BLOCK_PAGES = BLOCK / P;

template <class W>
struct Cache {  // of one layer
  const W *keys, *values;  // [pages, kv_heads, D, P] and [pages, kv_heads, P, D]
  int kv_heads, dim;
  const W* at(const W* start, int page, int head) const {
    return start + (int64_t(page) * kv_heads + head) * dim * P;
  }
};

// By what queries are multiplied: scores are in powers of 2.
inline float scale_of(int dim) { return LOG2_E / std::sqrt(float(dim)); }

struct Row {
  const int32_t* table;  // its pages, up to its length
  int length;            // it sees so many tokens
};

// What one thread works with. A query vector stands WIDEST apart from the next, and its result
// `apart`: as far in pairs as it must, for what lies a power of 2 apart shares few places of a cache.
struct Bench {
  std::vector<float> q, out, probs, highest, total;
  int apart = WIDEST;
  void fit(int vectors) {
    if (highest.size() >= size_t(vectors)) return;
    q.resize(vectors * WIDEST), out.resize(vectors * WIDEST), probs.resize(vectors * BLOCK);
    highest.resize(vectors), total.resize(vectors);
  }
};

template <int T, int PAGES, class W>
inline void score_pages(const float* q, const W* const* keys, int dim, float* scores) {
  vf acc[T][PAGES] = {};
  for (int d = 0; d < dim; ++d) {
    vf key[PAGES];
    for (int p = 0; p < PAGES; ++p) key[p] = load(keys[p] + d * P);
    for (int t = 0; t < T; ++t)
      for (int p = 0; p < PAGES; ++p) acc[t][p] += key[p] * q[t * WIDEST + d];
  }
  for (int t = 0; t < T; ++t)
    for (int p = 0; p < PAGES; ++p) store(scores + t * BLOCK + p * P, acc[t][p]);
}

template <int T, int WIDTH, class W>
inline void blend_columns(const float* probs, const W* const* values, int from, int to, int dim,
                          int lanes, float* out) {
  vf acc[T][WIDTH];
  for (int t = 0; t < T; ++t)
    for (int c = 0; c < WIDTH; ++c) acc[t][c] = load(out + t * WIDEST + c * P);
  for (int at = from; at < to; ++at) {
    const W* v = values[at / P] + (at % P) * dim;
    vf value[WIDTH];
    for (int c = 0; c < WIDTH; ++c)
      value[c] = lanes == P ? load(v + c * P) : load_start(v + c * P, lanes);
    for (int t = 0; t < T; ++t)
      for (int c = 0; c < WIDTH; ++c) acc[t][c] += value[c] * probs[t * BLOCK + at];
  }
  for (int t = 0; t < T; ++t)
    for (int c = 0; c < WIDTH; ++c) store(out + t * WIDEST + c * P, acc[t][c]);
}

// Scores of T query vectors into probs [T, BLOCK].
template <int T, class W>
void score(const float* q, const W* const* keys, int pages, int dim, float* probs) {
  constexpr int AT_ONCE = T <= 3 ? 4 : 2;
  int p = 0;
  for (; p + AT_ONCE <= pages; p += AT_ONCE)
    score_pages<T, AT_ONCE>(q, keys + p, dim, probs + p * P);
  for (; p < pages; ++p) score_pages<T, 1>(q, keys + p, dim, probs + p * P);
}

// out [T, D] += probs times values, of the block's tokens [from, to).
template <int T, class W>
void blend(const float* probs, const W* const* values, int from, int to, int dim, float* out) {
  int d = 0;
  const W* shifted[BLOCK_PAGES];
  auto at_column = [&](int column) {
    for (int p = 0; p * P < to; ++p) shifted[p] = values[p] + column;
    return shifted;
  };
  for (; d + 2 * P <= dim; d += 2 * P)
    blend_columns<T, 2>(probs, at_column(d), from, to, dim, P, out + d);
  for (; d < dim; d += P)
    blend_columns<T, 1>(probs, at_column(d), from, to, dim, std::min(P, dim - d), out + d);
}

// Scores, in powers of 2, of n <= P query vectors to weights under their new highest scores; what
// they have so far, `apart` from each other, shrinks. Vector t sees `seen[t]` keys of the block.
// Scores and weights lie in rows of BLOCK and may be the same.
template <class W>
inline void soften(const float* scores, W* weights, const int* seen, int n, int pages, int dim,
                   float* highest, float* total, float* out, int apart) {
  vi lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  vf zero = {}, none = zero - INFINITY, of_each[P];
  auto visible = [&](vf x, vf other, int left) {
    return left >= P ? x : (vf)(lane < left ? (vi)x : (vi)other);
  };
  for (int t = 0; t < P; ++t) of_each[t] = none;
  for (int t = 0; t < n; ++t) {
    vf top = none;
    for (int p = 0; p < pages; ++p)
      top = larger(visible(load(scores + t * BLOCK + p * P), none, seen[t] - p * P), top);
    of_each[t] = top;
  }
  vf before = load(highest, n), higher = larger(all_folded(of_each, larger), before);
  vf shrink = exp2_of(before - higher);
  store(highest, higher, n);
  float levels[P], factors[P];
  store(levels, higher), store(factors, shrink);
  for (int t = 0; t < n; ++t) {
    if (factors[t] != 1.0f)
      for (int d = 0; d < dim; d += P) {
        float* place = out + t * apart + d;
        store(place, load(place) * factors[t]);
      }
    vf level = zero + levels[t], part = zero;
    for (int p = 0; p < pages; ++p) {
      int64_t at = t * BLOCK + p * P;
      vf x = visible(exp2_of(load(scores + at) - level), zero, seen[t] - p * P);
      store(weights + at, x);
      part += x;
    }
    of_each[t] = part;
  }
  store(total, load(total, n) * shrink + all_folded(of_each, added), n);
}

// f.template operator()<T>(first) for pieces that make up `count` query vectors from `first` on.
template <class F>
void in_tiles(int first, int count, F f) {
  auto take = [&](auto size) {
    constexpr int T = decltype(size)::value;
    for (; count >= T; first += T, count -= T) f(size, first);
  };
  take(std::integral_constant<int, 12>{}), take(std::integral_constant<int, 8>{});
  take(std::integral_constant<int, 6>{}), take(std::integral_constant<int, 4>{});
  take(std::integral_constant<int, 3>{}), take(std::integral_constant<int, 2>{});
  take(std::integral_constant<int, 1>{});
}

// Rows that read a block together, [first, end): each has the pages of the one that sees most, as
// far as it sees itself.
struct Run {
  int end, longest, common;  // all of them see the first `common` tokens
};

inline Run run_from(const Row* rows, int first, int count, int start) {
  auto seen = [&](int row) { return std::min(BLOCK, rows[row].length - start); };
  Run run = {first, first, BLOCK};
  for (; run.end < count && seen(run.end) > 0; ++run.end) {
    int both = std::min(seen(run.end), seen(run.longest));
    const int32_t *a = rows[run.longest].table + start / P, *b = rows[run.end].table + start / P;
    if (a != b && !std::equal(a, a + (both + P - 1) / P, b)) break;
    if (seen(run.end) > seen(run.longest)) run.longest = run.end;
    run.common = std::min(run.common, seen(run.end));
  }
  return run;
}

// Ask memory for the keys or values, which begin at `base`, of a row's block at `start`, if any.
template <class W>
inline void ask_for(const Cache<W>& cache, const W* base, const Row& row, int start, int head) {
  for (int at = start; at < std::min(start + BLOCK, row.length); at += P) {
    const W* page = cache.at(base, row.table[at / P], head);
    for (int i = 0; i < cache.dim * P; i += 64 / int(sizeof(W))) __builtin_prefetch(page + i);
  }
}

// `attend_block` as products of pairs of bf16, a few of `queries` [*, D] after another. Here a weight
// of zero meets tokens that a row does not see, but none behind the longest row's last.
template <class W>
void attend_block_in_pairs(const Cache<W>& cache, const Row* rows, const W* queries, int first,
                           const Run& run, int start, int group, int head, Bench& bench) {
  constexpr int FEW = 2 * P;
  static thread_local Packed<W> keys, values;
  static thread_local W weights[FEW * BLOCK];
  static thread_local float scores[FEW * BLOCK];
  int tokens = std::min(BLOCK, rows[run.longest].length - start), pages = (tokens + P - 1) / P;
  int from = first * group, count = (run.end - first) * group, dim = cache.dim;
  const int32_t* table = rows[run.longest].table + start / P;
  keys.from_panels(dim, pages, [&](int64_t p, int64_t d) {
    return cache.at(cache.keys, table[p], head) + d * P;
  });
  values.from_rows(tokens, dim, [&](int64_t t) {
    return cache.at(cache.values, table[t / P], head) + t % P * dim;
  });
  auto lying = [](const W* rows, int64_t apart, int64_t length) {
    return [=](int64_t at, int) { return EvenOnLeft<W>{rows + at * apart, apart, length}; };
  };
  for (int at = from; at < from + count; at += FEW) {
    int few = std::min(FEW, from + count - at);
    float* out = &bench.out[at * bench.apart];
    multiply(few, lying(queries + at * dim, dim, dim), keys, Onto<false>{scores, BLOCK});
    for (int t = 0; t < few; t += P) {
      int n = std::min(P, few - t), seen[P];
      for (int i = 0; i < n; ++i) seen[i] = rows[(at + t + i) / group].length - start;
      soften(scores + t * BLOCK, weights + t * BLOCK, seen, n, pages, dim, &bench.highest[at + t],
             &bench.total[at + t], out + t * bench.apart, bench.apart);
    }
    multiply(few, lying(weights, BLOCK, tokens), values, Onto<true>{out, bench.apart});
  }
}

// What a run of rows gets from the block that begins at token `start`. A row's own tokens behind
// the common ones are blended for it alone: no weight of zero meets what may be no number.
template <class W>
void attend_block(const Cache<W>& cache, const Row* rows, int first, const Run& run, int start,
                  int group, int head, Bench& bench) {
  const W *keys[BLOCK_PAGES], *values[BLOCK_PAGES];
  int tokens = std::min(BLOCK, rows[run.longest].length - start), pages = (tokens + P - 1) / P;
  for (int p = 0; p < pages; ++p) {
    int page = rows[run.longest].table[start / P + p];
    keys[p] = cache.at(cache.keys, page, head), values[p] = cache.at(cache.values, page, head);
  }
  auto blend_range = [&](int row, int end, int from, int to) {
    if (from >= to) return;
    in_tiles(row * group, (end - row) * group, [&](auto size, int at) {
      blend<decltype(size)::value>(&bench.probs[at * BLOCK], values, from, to, cache.dim,
                                   &bench.out[at * WIDEST]);
    });
  };
  in_tiles(first * group, (run.end - first) * group, [&](auto size, int at) {
    score<decltype(size)::value>(&bench.q[at * WIDEST], keys, pages, cache.dim,
                                 &bench.probs[at * BLOCK]);
  });
  for (int at = first * group; at < run.end * group; at += P) {
    int n = std::min(P, run.end * group - at), seen[P];
    for (int t = 0; t < n; ++t) seen[t] = rows[(at + t) / group].length - start;
    float* probs = &bench.probs[at * BLOCK];
    soften(probs, probs, seen, n, pages, cache.dim, &bench.highest[at], &bench.total[at],
           &bench.out[at * WIDEST], WIDEST);
  }
  blend_range(first, run.end, 0, run.common);
  for (int row = first; row < run.end; ++row)
    blend_range(row, row + 1, run.common, std::min(BLOCK, rows[row].length - start));
}

// Attention of some rows, `group` query vectors each, times `scale_of`, which are in `queries` [*, D]
// for pairs, else in bench.q; the result is left in bench.out, not yet divided by bench.total.
template <class W>
void attend_rows(const Cache<W>& cache, const Row* rows, int count, int group, int head,
                 Bench& bench, const W* queries = nullptr) {
  int most = 0;
  for (int i = 0; i < count; ++i) most = std::max(most, rows[i].length);
  bench.apart = queries ? (cache.dim + P - 1) / P * P : WIDEST;
  std::fill(bench.out.begin(), bench.out.begin() + count * group * bench.apart, 0.0f);
  std::fill(bench.highest.begin(), bench.highest.begin() + count * group, -INFINITY);
  std::fill(bench.total.begin(), bench.total.begin() + count * group, 0.0f);
  for (int start = 0; start < most; start += BLOCK)
    for (int first = 0; first < count;) {
      if (rows[first].length <= start) {
        ++first;
        continue;
      }
      Run run = run_from(rows, first, count, start);
      ask_for(cache, cache.values, rows[run.longest], start, head);
      if (run.end < count)
        ask_for(cache, cache.keys, rows[run.end], start, head);
      else
        ask_for(cache, cache.keys, rows[0], start + BLOCK, head);
      if (queries)
        attend_block_in_pairs(cache, rows, queries, first, run, start, group, head, bench);
      else
        attend_block(cache, rows, first, run, start, group, head, bench);
      first = run.end;
    }
}

}  // namespace
