// Tree attention, blocks of keys against tiles of queries, forward and backward; no mask in memory.
//
// N tokens, `heads` query heads, `kv` key heads, D dimensions, W = D rounded up to whole vectors.
// q, out, grad, dq [N, heads, D], k, v, dk, dv [N, kv, D], exits [N], total [N, heads] fp32 (the
// logsumexp of a query's scores). A unit of work is one key head in one tree: nothing is shared
// between units, so threads change no bit. fp32 inside, rounded once.

#include <algorithm>
#include <cmath>
#include <vector>

#include "vectors.h"

namespace {

constexpr int T = 8;   // queries of a tile
constexpr int B = 64;  // keys of a block
typedef std::vector<float> floats;

struct Shape {
  int64_t N, heads, kv, D, W, group;
  Shape(int64_t N, int64_t heads, int64_t kv, int64_t D)
      : N(N), heads(heads), kv(kv), D(D), W((D + P - 1) / P * P), group(heads / kv) {}
};

// Up to B keys in a row that share an exit.
struct Block {
  int64_t first, count, exit;  // rows from the tree's first
};

// One tree, rows [start, start + n), cut where exits change and then into blocks: what a query sees
// of a block is its first so many keys. Packed rows lie block by block, with room for B in each.
struct Tree {
  int64_t start, n;
  std::vector<Block> blocks;

  Tree(const int64_t* exits, int64_t start, int64_t n) : start(start), n(n) {
    for (int64_t row = 0; row < n;) {
      int64_t exit = exits[start + row] - start, end = row + 1;
      while (end < n && end < exit && end < row + B && exits[start + end] - start == exit) ++end;
      blocks.push_back({row, end - row, exit});
      row = end;
    }
  }
  int64_t rows() const { return int64_t(blocks.size()) * B; }

  // How many keys of block `b` the query in `row` sees.
  int64_t seen(int64_t row, const Block& b) const {
    return b.exit <= row ? 0 : std::max<int64_t>(0, std::min(b.count, row - b.first + 1));
  }

  // f(packed row of the tile, its first row, how many of its T rows are there).
  template <class F>
  void each_tile(int64_t from_block, F f) const {
    for (int64_t b = from_block; b < int64_t(blocks.size()); ++b)
      for (int64_t t = 0; t < blocks[b].count; t += T)
        f(b * B + t, blocks[b].first + t, std::min<int64_t>(T, blocks[b].count - t));
  }

  // f(packed row, row in the batch)
  template <class F>
  void each_row(F f) const {
    for (int64_t b = 0; b < int64_t(blocks.size()); ++b)
      for (int64_t j = 0; j < blocks[b].count; ++j) f(b * B + j, start + blocks[b].first + j);
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
  for (int64_t unit = 0; unit < units; ++unit) f(trees[unit / s.kv], unit % s.kv);
}

// Rows of one head as fp32 [rows, W], times `scale`; zeros after them.
template <class E>
floats pack(const E* x, const Tree& tree, int64_t heads, int64_t head, const Shape& s,
            float scale) {
  floats rows(tree.rows() * s.W, 0.0f);
  tree.each_row([&](int64_t i, int64_t at) {
    over(s.D, [&](int64_t d, int lanes) {
      store(&rows[i * s.W + d], load(x + (at * heads + head) * s.D + d, lanes) * scale);
    });
  });
  return rows;
}

// The same, block by block with the rows innermost: [blocks, D, B].
floats turned(const floats& rows, const Tree& tree, const Shape& s) {
  floats out(tree.rows() * s.D);
  for (int64_t b = 0; b < int64_t(tree.blocks.size()); ++b)
    for (int64_t d = 0; d < s.D; ++d)
      for (int64_t j = 0; j < B; ++j) out[(b * s.D + d) * B + j] = rows[(b * B + j) * s.W + d];
  return out;
}

template <class E>
void unpack(const floats& rows, E* x, const Tree& tree, int64_t heads, int64_t head, const Shape& s,
            float scale) {
  tree.each_row([&](int64_t i, int64_t at) {
    over(s.D, [&](int64_t d, int lanes) {
      store(x + (at * heads + head) * s.D + d, load(&rows[i * s.W + d]) * scale, lanes);
    });
  });
}

// out [T, B] = left [T, W] times right [D, B].
inline void scores(const float* left, const float* right, const Shape& s, float* out) {
  for (int from = 0; from < B; from += 2 * P) {
    vf acc[T][2] = {};
    for (int64_t d = 0; d < s.D; ++d) {
      vf first = load(right + d * B + from), second = load(right + d * B + from + P);
      for (int t = 0; t < T; ++t) {
        acc[t][0] += left[t * s.W + d] * first;
        acc[t][1] += left[t * s.W + d] * second;
      }
    }
    for (int t = 0; t < T; ++t)
      store(out + t * B + from, acc[t][0]), store(out + t * B + from + P, acc[t][1]);
  }
}

// C vectors of each row from column `from`: out [T, W] += p [T, B] times rows [B, W].
template <int C>
inline void blend(const float* p, const float* rows, int64_t W, int64_t from, float* out) {
  vf acc[T][C];
  for (int t = 0; t < T; ++t)
    for (int c = 0; c < C; ++c) acc[t][c] = load(out + t * W + from + c * P);
  for (int j = 0; j < B; ++j) {
    vf row[C];
    for (int c = 0; c < C; ++c) row[c] = load(rows + j * W + from + c * P);
    for (int t = 0; t < T; ++t)
      for (int c = 0; c < C; ++c) acc[t][c] += p[t * B + j] * row[c];
  }
  for (int t = 0; t < T; ++t)
    for (int c = 0; c < C; ++c) store(out + t * W + from + c * P, acc[t][c]);
}

// The same the other way round: out [B, W] += p [T, B] turned, times rows [T, W].
template <int C>
inline void spread(const float* p, const float* rows, int64_t W, int64_t from, float* out) {
  vf row[T][C];
  for (int t = 0; t < T; ++t)
    for (int c = 0; c < C; ++c) row[t][c] = load(rows + t * W + from + c * P);
  for (int j = 0; j < B; ++j)
    for (int c = 0; c < C; ++c) {
      float* place = out + j * W + from + c * P;
      vf even = load(place), odd = {};
      for (int t = 0; t < T; t += 2) {
        even += p[t * B + j] * row[t][c];
        odd += p[(t + 1) * B + j] * row[t + 1][c];
      }
      store(place, even + odd);
    }
}

inline void blend(const float* p, const float* rows, int64_t W, float* out) {
  int64_t from = 0;
  for (; from + 2 * P <= W; from += 2 * P) blend<2>(p, rows, W, from, out);
  if (from < W) blend<1>(p, rows, W, from, out);
}
inline void spread(const float* p, const float* rows, int64_t W, float* out) {
  int64_t from = 0;
  for (; from + 2 * P <= W; from += 2 * P) spread<2>(p, rows, W, from, out);
  if (from < W) spread<1>(p, rows, W, from, out);
}

// The first `count` lanes of `x` from lane `at` of a block on, `other` in the rest.
inline vf seen_lanes(vf x, int64_t at, int64_t count, float other) {
  vi lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return lane < int32_t(count - at) ? x : vf{} + other;
}

// Softmax as it goes, of one tile of queries.
struct Tile {
  float top[T];
  vf whole[T];  // summed at the end
  float p[T * B];

  Tile() { std::fill(top, top + T, -1e30f), std::fill(whole, whole + T, vf{}); }

  // Scores in `p` to weights against the highest score so far; `out` [T, W] follows.
  void add(const Tree& tree, int64_t q, const Block& block, float* out, int64_t W) {
    bool masked = tree.seen(q, block) < B;
    for (int t = 0; t < T; ++t) {
      float* row = p + t * B;
      int64_t seen = tree.seen(q + t, block);
      vf high = vf{} - 1e30f;
      for (int j = 0; j < B; j += P) {
        vf x = load(row + j);
        if (masked) x = seen_lanes(x, j, seen, -1e30f);
        high = x > high ? x : high;
      }
      if (any_above(high, top[t])) rise(t, largest(high), out + t * W, W);
      vf total = {};
      for (int j = 0; j < B; j += P) {
        vf e = exp_of(load(row + j) - top[t]);
        if (masked) e = seen_lanes(e, j, seen, 0.0f);
        total += e;
        store(row + j, e);
      }
      whole[t] += total;
    }
  }

  void rise(int t, float now, float* out, int64_t W) {
    float shrink = std::exp(top[t] - now);
    whole[t] *= shrink;
    for (int64_t c = 0; c < W; c += P) store(out + c, load(out + c) * shrink);
    top[t] = now;
  }
};

template <class E>
void forward(const E* q, const E* k, const E* v, const int64_t* exits, E* out, float* total,
             int64_t N, int64_t heads, int64_t kv, int64_t D, int64_t threads) {
  Shape s(N, heads, kv, D);
  each_unit(exits, s, threads, [&](const Tree& tree, int64_t h) {
    floats keys = turned(pack(k, tree, kv, h, s, 1.0f), tree, s), values = pack(v, tree, kv, h, s, 1.0f);
    for (int64_t head = h * s.group; head < (h + 1) * s.group; ++head) {
      floats queries = pack(q, tree, heads, head, s, 1.0f / std::sqrt(float(D)));
      floats made(queries.size(), 0.0f);
      tree.each_tile(0, [&](int64_t at, int64_t row, int64_t rows) {
        Tile tile;
        for (size_t b = 0; b < tree.blocks.size() && tree.blocks[b].first < row + rows; ++b) {
          if (tree.blocks[b].exit <= row) continue;
          scores(&queries[at * s.W], &keys[b * D * B], s, tile.p);
          tile.add(tree, row, tree.blocks[b], &made[at * s.W], s.W);
          blend(tile.p, &values[b * B * s.W], s.W, &made[at * s.W]);
        }
        for (int t = 0; t < rows; ++t) {
          float whole = sum(tile.whole[t]);
          total[(tree.start + row + t) * heads + head] = tile.top[t] + std::log(whole);
          for (int64_t c = 0; c < s.W; ++c) made[(at + t) * s.W + c] /= whole;
        }
      });
      unpack(made, out, tree, heads, head, s, 1.0f);
    }
  });
}

// Weights of a tile against one block from the saved totals, then their gradient; both [T, B].
inline void weigh(const Tree& tree, int64_t q, const Block& block, const float* total,
                  const float* along, float* p, float* dp) {
  bool masked = tree.seen(q, block) < B;
  for (int t = 0; t < T; ++t) {
    int64_t seen = tree.seen(q + t, block);
    for (int j = 0; j < B; j += P) {
      float *weight = p + t * B + j, *slope = dp + t * B + j;
      vf e = exp_of(load(weight) - total[t]), d = e * (load(slope) - along[t]);
      if (masked) e = seen_lanes(e, j, seen, 0.0f), d = seen_lanes(d, j, seen, 0.0f);
      store(weight, e), store(slope, d);
    }
  }
}

template <class E>
void backward(const E* q, const E* k, const E* v, const int64_t* exits, const E* out,
              const float* total, const E* grad, E* dq, E* dk, E* dv, int64_t N, int64_t heads,
              int64_t kv, int64_t D, int64_t threads) {
  Shape s(N, heads, kv, D);
  float scale = 1.0f / std::sqrt(float(D));
  each_unit(exits, s, threads, [&](const Tree& tree, int64_t h) {
    floats keys = pack(k, tree, kv, h, s, 1.0f);
    floats keys_t = turned(keys, tree, s), values_t = turned(pack(v, tree, kv, h, s, 1.0f), tree, s);
    floats d_keys(keys.size(), 0.0f), d_values(keys.size(), 0.0f);
    floats along(tree.rows(), 0.0f), totals(tree.rows(), 1e30f);
    for (int64_t head = h * s.group; head < (h + 1) * s.group; ++head) {
      floats queries = pack(q, tree, heads, head, s, scale), up = pack(grad, tree, heads, head, s, 1.0f);
      floats d_queries(queries.size(), 0.0f);
      {
        floats made = pack(out, tree, heads, head, s, 1.0f);
        tree.each_row([&](int64_t i, int64_t at) {
          vf dot = {};
          for (int64_t c = i * s.W; c < (i + 1) * s.W; c += P) dot += load(&made[c]) * load(&up[c]);
          along[i] = sum(dot), totals[i] = total[at * heads + head];
        });
      }
      float p[T * B], dp[T * B];
      for (size_t b = 0; b < tree.blocks.size(); ++b)
        tree.each_tile(b, [&](int64_t at, int64_t row, int64_t) {
          if (tree.blocks[b].exit <= row) return;
          scores(&queries[at * s.W], &keys_t[b * D * B], s, p);
          scores(&up[at * s.W], &values_t[b * D * B], s, dp);
          weigh(tree, row, tree.blocks[b], &totals[at], &along[at], p, dp);
          blend(dp, &keys[b * B * s.W], s.W, &d_queries[at * s.W]);
          spread(dp, &queries[at * s.W], s.W, &d_keys[b * B * s.W]);
          spread(p, &up[at * s.W], s.W, &d_values[b * B * s.W]);
        });
      unpack(d_queries, dq, tree, heads, head, s, scale);
    }
    unpack(d_keys, dk, tree, kv, h, s, 1.0f);
    unpack(d_values, dv, tree, kv, h, s, 1.0f);
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
