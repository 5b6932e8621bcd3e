// Tree attention, blocks of keys against blocks of queries, forward and backward; no mask in memory.
//
// N tokens, `heads` query heads, `kv` key heads, D dimensions.
// q, out, grad, dq [N, heads, D], k, v, dk, dv [N, kv, D], exits [N], total [N, heads] fp32 (the
// logsumexp of a query's scores). A unit of work is one key head in one tree: nothing is shared
// between units, so threads change no bit. Products are of what lies in memory, and of weights and
// their gradients rounded to its type; all sums are fp32.

#include <algorithm>
#include <cmath>
#include <vector>

#include "products.h"

namespace {

constexpr int B = 64;  // rows of a block
typedef std::vector<float> floats;

struct Shape {
  int64_t N, heads, kv, D, group;
};

// Up to B rows that share an exit.
struct Block {
  int64_t first, count, exit;  // rows of the batch
};

// One tree of n rows, cut where exits change and then into blocks. A block of queries sees another
// block of keys whole or not at all, and of itself what lies before.
struct Tree {
  int64_t n;
  std::vector<Block> blocks;

  Tree(const int64_t* exits, int64_t start, int64_t n) : n(n) {
    for (int64_t row = start; row < start + n;) {
      int64_t end = row + 1;
      while (end < start + n && end < exits[row] && end < row + B && exits[end] == exits[row]) ++end;
      blocks.push_back({row, end - row, exits[row]});
      row = end;
    }
  }
};

std::vector<Tree> trees_of(const int64_t* exits, int64_t N) {
  std::vector<Tree> trees;
  for (int64_t start = 0; start < N;) {
    int64_t end = start + 1;
    for (int64_t row = start; row < end; ++row) end = std::min(N, std::max(end, exits[row]));
    trees.emplace_back(exits, start, end - start);
    start = end;
  }
  return trees;
}

// f(tree, key head) for all of them, longest trees first.
template <class F>
void each_unit(const int64_t* exits, const Shape& s, int64_t threads, F f) {
  std::vector<Tree> trees = trees_of(exits, s.N);
  std::stable_sort(trees.begin(), trees.end(),
                   [](const Tree& a, const Tree& b) { return a.n > b.n; });
  int64_t units = int64_t(trees.size()) * s.kv;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
  for (int64_t unit = 0; unit < units; ++unit) {
    Tiles held;
    f(trees[unit / s.kv], unit % s.kv);
  }
}

// One head of a tensor [N, heads, D].
template <class E>
struct Head {
  E* x;
  int64_t apart, D;
  Head(E* x, int64_t heads, int64_t head, int64_t D) : x(x + head * D), apart(heads * D), D(D) {}
  E* operator()(int64_t row) const { return x + row * apart; }
};

// Rows of a block side by side, as columns of a product.
template <class E>
void as_columns(Packed<E>& packed, const Head<const E>& x, const Block& block) {
  packed.from_columns(x(block.first), x.apart, x.D, block.count);
}
// The same as rows that are added up.
template <class E>
void as_rows(Packed<E>& packed, const Head<const E>& x, const Block& block) {
  packed.from_rows(block.count, x.D, [&](int64_t j) { return x(block.first + j); });
}

// emit(row, column, lanes, sums) of rows that lie `apart` from each other, `length` numbers each.
template <class E, class F>
inline void rows_times(const E* x, int64_t apart, int64_t rows, int64_t length, Packed<E>& right,
                       F emit) {
  auto left = [&](int64_t first, int) { return EvenOnLeft<E>{x + first * apart, apart, length}; };
  multiply(rows, left, right, emit);
}

// Scores of a block's queries against another's keys, into [B, B].
template <class E>
inline void scores(const Head<const E>& queries, const Block& block, Packed<E>& keys, float scale,
                   float* out) {
  rows_times(queries(block.first), queries.apart, block.count, queries.D, keys,
             [=](int64_t row, int64_t column, int, vf sums) {
               store(out + row * B + column, sums * scale);
             });
}

// out [*, D] += weights [rows, B] times `right`, whose steps are keys.
template <class E>
inline void blend(const E* weights, int64_t rows, int64_t keys, Packed<E>& right, float* out,
                  int64_t D) {
  rows_times(weights, B, rows, keys, right,
             [=](int64_t row, int64_t column, int lanes, vf sums) {
               float* place = out + row * D + column;
               store(place, load(place, lanes) + sums, lanes);
             });
}

// A block's rows as D rows [D, B], for `spread`.
template <class E>
void turn(const Head<const E>& x, const Block& block, E* turned) {
  for (int64_t t = 0; t < block.count; ++t)
    for (int64_t d = 0; d < x.D; ++d) turned[d * B + t] = x(block.first + t)[d];
}

// out [D, n], at a block of keys, += turned [D, B] times weights [rows, B], whose steps are queries.
template <class E>
inline void spread(const E* turned, int64_t D, const E* weights, int64_t rows, int64_t keys,
                   float* out, int64_t n) {
  static thread_local Packed<E> right;
  right.from_rows(rows, keys, [&](int64_t t) { return weights + t * B; });
  rows_times(turned, B, D, rows, right, [=](int64_t d, int64_t key, int lanes, vf sums) {
    float* place = out + d * n + key;
    store(place, load(place, lanes) + sums, lanes);
  });
}

// The first `count` lanes of `x` from lane `at` of a row on, `other` in the rest.
inline vf seen_lanes(vf x, int64_t at, int64_t count, float other) {
  vi lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return lane < int32_t(count - at) ? x : vf{} + other;
}

// How many of a block's keys its own query in row `t` sees, or those of a later block.
inline int64_t seen(const Block& keys, bool own, int64_t t) { return own ? t + 1 : keys.count; }

// Softmax as it goes, of the queries of one block; scores are in powers of 2.
template <class E>
struct Softmax {
  float top[B];
  vf whole[B];  // summed at the end
  E weights[B * B];

  void start() { std::fill(top, top + B, -1e30f), std::fill(whole, whole + B, vf{}); }

  // Scores to weights against the highest score so far; `out` [B, D] follows.
  void add(int64_t queries, const Block& keys, bool own, const float* scores, float* out,
           int64_t D) {
    for (int64_t first = 0; first < queries; first += P) {
      int64_t count = std::min<int64_t>(P, queries - first);
      if (own || keys.count < B)
        add_rows<true>(first, count, keys, own, scores, out, D);
      else
        add_rows<false>(first, count, keys, own, scores, out, D);
    }
  }

  // P rows at once, so that none waits for another's highest score.
  template <bool MASKED>
  void add_rows(int64_t first, int64_t rows, const Block& keys, bool own, const float* scores,
                float* out, int64_t D) {
    auto visible = [&](vf x, int64_t t, int64_t j, float other) {
      return MASKED ? seen_lanes(x, j, seen(keys, own, t), other) : x;
    };
    int64_t width = MASKED ? keys.count : B;
    vf highest[P];
    for (int64_t r = 0; r < P; ++r) {
      vf high = vf{} - 1e30f;
      for (int64_t j = 0; r < rows && j < width; j += P)
        high = larger(visible(load(scores + (first + r) * B + j), first + r, j, -1e30f), high);
      highest[r] = high;
    }
    vf before = load(top + first), higher = larger(all_folded(highest, larger), before);
    store(top + first, higher);
    float levels[P], shrink[P];
    store(levels, higher), store(shrink, exp2_of(before - higher));
    for (int64_t r = 0, t = first; r < rows; ++r, ++t) {
      if (shrink[r] != 1.0f)
        over(D, [&](int64_t d, int lanes) {
          store(out + t * D + d, load(out + t * D + d, lanes) * shrink[r], lanes);
        });
      vf total = {};
      for (int64_t j = 0; j < width; j += P) {
        vf e = visible(exp2_of(load(scores + t * B + j) - levels[r]), t, j, 0.0f);
        total += e;
        store(weights + t * B + j, e);
      }
      whole[t] = whole[t] * shrink[r] + total;
    }
  }
};

// The keys and values of one head, block by block, as the products want them.
template <class E>
struct Side {
  std::vector<Packed<E>> columns, rows;

  void take(const Tree& tree, const Head<const E>& x, bool wants_columns, bool wants_rows) {
    columns.resize(std::max(columns.size(), tree.blocks.size())), rows.resize(columns.size());
    for (size_t b = 0; b < tree.blocks.size(); ++b) {
      if (wants_columns) as_columns(columns[b], x, tree.blocks[b]);
      if (wants_rows) as_rows(rows[b], x, tree.blocks[b]);
    }
  }
};

template <class E>
void forward(const E* q, const E* k, const E* v, const int64_t* exits, E* out, float* total,
             int64_t N, int64_t heads, int64_t kv, int64_t D, int64_t threads) {
  Shape s = {N, heads, kv, D, heads / kv};
  float scale = LOG2_E / std::sqrt(float(D));
  each_unit(exits, s, threads, [&](const Tree& tree, int64_t h) {
    static thread_local Side<E> keys, values;
    static thread_local Softmax<E> softmax;
    static thread_local float score[B * B];
    keys.take(tree, {k, kv, h, D}, true, false), values.take(tree, {v, kv, h, D}, false, true);
    floats made(B * D);
    for (int64_t head = h * s.group; head < (h + 1) * s.group; ++head)
      for (size_t at = 0; at < tree.blocks.size(); ++at) {
        const Block& block = tree.blocks[at];
        softmax.start(), std::fill(made.begin(), made.end(), 0.0f);
        for (size_t b = 0; b <= at; ++b) {
          if (tree.blocks[b].exit <= block.first) continue;
          scores({q, heads, head, D}, block, keys.columns[b], scale, score);
          softmax.add(block.count, tree.blocks[b], b == at, score, made.data(), D);
          blend(softmax.weights, block.count, tree.blocks[b].count, values.rows[b], made.data(), D);
        }
        Head<E> into(out, heads, head, D);
        for (int64_t t = 0; t < block.count; ++t) {
          float whole = sum(softmax.whole[t]);
          total[(block.first + t) * heads + head] = softmax.top[t] / LOG2_E + std::log(whole);
          over(D, [&](int64_t d, int lanes) {
            store(into(block.first + t) + d, load(&made[t * D + d], lanes) / whole, lanes);
          });
        }
      }
  });
}

// Scores to weights by the saved totals, and the gradient of the weights to that of the scores.
template <class E>
inline void weigh(int64_t queries, const Block& keys, bool own, const float* total,
                  const float* along, const float* scores, const float* slopes, E* weights,
                  E* gradients) {
  bool masked = own || keys.count < B;
  for (int64_t t = 0; t < queries; ++t) {
    int64_t count = seen(keys, own, t);
    for (int64_t j = 0; j < keys.count; j += P) {
      vf e = exp2_of(load(scores + t * B + j) - total[t]);
      vf d = e * (load(slopes + t * B + j) - along[t]);
      if (masked) e = seen_lanes(e, j, count, 0.0f), d = seen_lanes(d, j, count, 0.0f);
      store(weights + t * B + j, e), store(gradients + t * B + j, d);
    }
  }
}

template <class E>
void write(const floats& rows, const Tree& tree, const Head<E>& out, float scale) {
  for (int64_t at = 0; at < tree.n; ++at)
    over(out.D, [&](int64_t d, int lanes) {
      store(out(tree.blocks[0].first + at) + d, load(&rows[at * out.D + d], lanes) * scale, lanes);
    });
}

// The same of [D, n].
template <class E>
void write_turned(const floats& columns, const Tree& tree, const Head<E>& out, float scale) {
  over(tree.n, [&](int64_t at, int rows) {
    over(out.D, [&](int64_t d, int lanes) {
      vu block[P] = {};
      for (int i = 0; i < lanes; ++i) block[i] = (vu)load(&columns[(d + i) * tree.n + at], rows);
      transpose(block);
      for (int i = 0; i < rows; ++i)
        store(out(tree.blocks[0].first + at + i) + d, (vf)block[i] * scale, lanes);
    });
  });
}

template <class E>
void backward(const E* q, const E* k, const E* v, const int64_t* exits, const E* out,
              const float* total, const E* grad, E* dq, E* dk, E* dv, int64_t N, int64_t heads,
              int64_t kv, int64_t D, int64_t threads) {
  Shape s = {N, heads, kv, D, heads / kv};
  float scale = 1.0f / std::sqrt(float(D));
  each_unit(exits, s, threads, [&](const Tree& tree, int64_t h) {
    static thread_local Side<E> keys, values;
    static thread_local std::vector<E> queries, ups;  // [D, B]
    static thread_local float score[B * B], slope[B * B];
    static thread_local E weights[B * B], gradients[B * B];
    static thread_local floats d_queries, d_keys, d_values;
    float along[B], totals[B];
    keys.take(tree, {k, kv, h, D}, true, true), values.take(tree, {v, kv, h, D}, true, false);
    int64_t start = tree.blocks[0].first;
    queries.resize(D * B), ups.resize(D * B);
    d_keys.assign(tree.n * D, 0.0f), d_values.assign(tree.n * D, 0.0f);
    for (int64_t head = h * s.group; head < (h + 1) * s.group; ++head) {
      d_queries.assign(tree.n * D, 0.0f);
      Head<const E> query(q, heads, head, D), up(grad, heads, head, D), made(out, heads, head, D);
      for (size_t at = 0; at < tree.blocks.size(); ++at) {
        const Block& block = tree.blocks[at];
        turn(query, block, queries.data()), turn(up, block, ups.data());
        for (int64_t t = 0; t < block.count; ++t) {
          vf dot = {};
          over(D, [&](int64_t d, int lanes) {
            dot += load(made(block.first + t) + d, lanes) * load(up(block.first + t) + d, lanes);
          });
          along[t] = sum(dot), totals[t] = total[(block.first + t) * heads + head] * LOG2_E;
        }
        for (size_t b = 0; b <= at; ++b) {
          const Block& other = tree.blocks[b];
          if (other.exit <= block.first) continue;
          scores(query, block, keys.columns[b], scale * LOG2_E, score);
          scores(up, block, values.columns[b], 1.0f, slope);
          weigh(block.count, other, b == at, totals, along, score, slope, weights, gradients);
          blend(gradients, block.count, other.count, keys.rows[b],
                &d_queries[(block.first - start) * D], D);
          auto to_keys = [&](const std::vector<E>& turned, const E* by, floats& into) {
            spread(turned.data(), D, by, block.count, other.count, &into[other.first - start],
                   tree.n);
          };
          to_keys(queries, gradients, d_keys), to_keys(ups, weights, d_values);
        }
      }
      write(d_queries, tree, Head<E>(dq, heads, head, D), scale);
    }
    write_turned(d_keys, tree, Head<E>(dk, kv, h, D), scale);
    write_turned(d_values, tree, Head<E>(dv, kv, h, D), 1.0f);
  });
}

}  // namespace

FOR_BOTH_TYPES(forward,
               (Pointer q, Pointer k, Pointer v, Pointer exits, Pointer out, Pointer total,
                int64_t N, int64_t heads, int64_t kv, int64_t D, int64_t threads),
               q, k, v, exits, out, total, N, heads, kv, D, threads)
FOR_BOTH_TYPES(backward,
               (Pointer q, Pointer k, Pointer v, Pointer exits, Pointer out, Pointer total,
                Pointer grad, Pointer dq, Pointer dk, Pointer dv, int64_t N, int64_t heads,
                int64_t kv, int64_t D, int64_t threads),
               q, k, v, exits, out, total, grad, dq, dk, dv, N, heads, kv, D, threads)
