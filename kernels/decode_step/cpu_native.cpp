// One forward pass of the whole model for a few tokens over paged keys and values.
//
// Weights are read where PyTorch keeps them, in fp32 or bf16; everything else is fp32, or two bf16
// numbers for one where the processor multiplies those. What a row
// computes depends on that row alone, in one fixed order: neighbours change no bit of it.
// No gradients, and no blocking for many rows: long prompts belong to matrix products.
//
// Legend: n rows (tokens) of this pass, H hidden, D head_dim, E experts, K experts a token,
// I inner width of an expert, V vocabulary, P tokens of a page = lanes of a vector.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include <omp.h>
#include <sched.h>

#include "attention.h"
#include "streamed.h"

namespace {

template <class W>
inline void rms_norm(const float* x, const W* weight, int size, float eps, float* out) {
  vf squares = {};
  over(size, [&](int64_t i, int lanes) {
    vf some = load(x + i, lanes);
    squares += some * some;
  });
  float scale = 1.0f / std::sqrt(sum(squares) / size + eps);
  over(size, [&](int64_t i, int lanes) {
    store(out + i, load(x + i, lanes) * scale * load(weight + i, lanes), lanes);
  });
}

}  // namespace

extern "C" {
struct Layer {
  const void *norm1, *q, *k, *v, *q_norm, *k_norm, *o, *norm2, *gate;
  const float* bias;  // [E]
  const void *gate_up, *down;
};
struct Shape {
  int32_t layers, hidden, heads, kv_heads, dim, half, experts, top_k, inner, vocab, pages, threads;
  float eps;
};
struct Weights {
  const Layer* layer;
  const void *embed, *norm, *head;
  const float *cos, *sin;                       // [context, half]
  const void *state_norm, *embed_norm, *joint;  // null unless states are joined with embeddings
};
struct Memory {
  void *keys, *values;  // [layers, pages, kv_heads, D, P] and [layers, pages, kv_heads, P, D]
  int16_t* routes;      // [pages, P, layers, K] or null
};
struct Rows {
  int32_t n, stride, wanted;
  const int64_t* tokens;     // [n]
  const int32_t* positions;  // [n]
  const int32_t* tables;     // [n, stride], the pages of each row's sequence
  const int32_t* want;       // [wanted], rows whose logits are asked for
  const float* given;        // [n, H], states to join with the embeddings; null without a joint
  float *logits, *states;    // [wanted, V] and [n, H], what comes out
};
}

namespace {

// Threads meet here some ten times a layer. Who waits long gives its core away: OpenMP's own
// barrier spins on, and on a busy machine keeps the very thread off the core that it waits for.
class Barrier {
  std::atomic<int> arrived{0}, round{0};

 public:
  void wait(int threads) {
    if (threads == 1) return;
    int now = round.load(std::memory_order_acquire);
    if (arrived.fetch_add(1, std::memory_order_acq_rel) == threads - 1) {
      arrived.store(0, std::memory_order_relaxed);
      round.store(now + 1, std::memory_order_release);
      return;
    }
    for (int spins = 0; round.load(std::memory_order_acquire) == now; ++spins)
      if (spins > 4000) sched_yield();
  }
};

struct Scratch {
  std::vector<float> x, normed, joined, q, k, v, attended, scores, ranks, weight, gate, up;
  std::vector<int> chosen, start, slot_token;
  std::vector<Bench> benches;
  std::vector<const float*> inputs, pairs, attention, slots, outputs;
};

template <class W>
struct Pass {
  const Shape& s;
  const Weights& w;
  const Memory& m;
  const Rows& rows;
  Scratch& b;
  Barrier barrier;
  std::atomic<int> next_item{0};
  int q_dim = s.heads * s.dim, kv_dim = s.kv_heads * s.dim;

  Pass(const Shape& s, const Weights& w, const Memory& m, const Rows& rows, Scratch& b)
      : s(s), w(w), m(m), rows(rows), b(b) {
    size_t n = rows.n, slots = n * s.top_k;
    b.x.resize(n * s.hidden), b.normed.resize(n * s.hidden);
    if (w.joint) b.joined.resize(2 * n * s.hidden), b.pairs.resize(n);
    b.q.resize(n * q_dim), b.attended.resize(n * q_dim);
    b.k.resize(n * kv_dim), b.v.resize(n * kv_dim);
    b.scores.resize(n * s.experts), b.ranks.resize(n * s.experts);
    b.weight.resize(slots), b.chosen.resize(slots);
    b.gate.resize(slots * s.inner), b.up.resize(slots * s.inner);
    b.start.resize(s.experts + 1), b.slot_token.resize(slots);
    b.inputs.resize(n), b.attention.resize(n), b.slots.resize(slots), b.outputs.resize(slots);
    if (b.benches.size() < size_t(s.threads)) b.benches.resize(s.threads);
  }

  static const W* as(const void* p) { return static_cast<const W*>(p); }
  int page(int row, int position) const { return rows.tables[row * rows.stride + position / P]; }

  // This thread's share of `size`, in blocks of P, so that vectors never straddle a border.
  void share(int size, int& from, int& to) const {
    int id = omp_get_thread_num(), of = omp_get_num_threads(), blocks = (size + P - 1) / P;
    from = std::min(size, int(int64_t(blocks) * id / of) * P);
    to = std::min(size, int(int64_t(blocks) * (id + 1) / of) * P);
  }

  void meet() { barrier.wait(omp_get_num_threads()); }

  // f(i) for i < count, each by one thread, then all meet.
  template <class F>
  void each(int count, F f) {
    for (int i = omp_get_thread_num(); i < count; i += omp_get_num_threads()) f(i);
    meet();
  }

  void norm_rows(const void* weight) {
    each(rows.n, [&](int i) {
      rms_norm(&b.x[i * s.hidden], as(weight), s.hidden, s.eps, &b.normed[i * s.hidden]);
    });
  }

  // Where this thread's share of a weight [width, K] begins.
  const W* mine(const void* weight, int width, int K) const {
    int from, to;
    share(width, from, to);
    return as(weight) + int64_t(from) * K;
  }

  Inputs<W> from(const std::vector<const float*>& vectors, int K) const {
    return {vectors.data(), rows.n, K};
  }

  // out [n, width] = in [n, K] times weight, or += it; the caller meets afterwards.
  void project(const void* weight, int width, const Inputs<W>& in, int K, float* out,
               const W* next, bool add = false) {
    int from, to;
    share(width, from, to);
    auto emit = [&](int r, int t, vf y, int count) {
      float* place = out + int64_t(t) * width + r;
      store(place, add ? load(place, count) + y : y, count);
    };
    product(as(weight), K, from, to, in, rows.n, next, emit);
  }

  void turn(float* head, int position) const {
    const float *cos = w.cos + int64_t(position) * s.half, *sin = w.sin + int64_t(position) * s.half;
    for (int i = 0; i < s.half; ++i) {
      float first = head[i], second = head[i + s.half];
      head[i] = first * cos[i] - second * sin[i];
      head[i + s.half] = second * cos[i] + first * sin[i];
    }
  }

  void place_keys(int index, const Layer& layer) {
    each(rows.n, [&](int i) {
      float *q = &b.q[i * q_dim], *k = &b.k[i * kv_dim], *v = &b.v[i * kv_dim];
      int position = rows.positions[i], place = position % P;
      rms_norm(q, as(layer.q_norm), q_dim, s.eps, q);
      rms_norm(k, as(layer.k_norm), kv_dim, s.eps, k);
      float scale = scale_of(s.dim);
      for (int h = 0; h < s.heads; ++h) turn(q + h * s.dim, position);
      for (int d = 0; d < q_dim; ++d) q[d] *= scale;
      for (int h = 0; h < s.kv_heads; ++h) {
        turn(k + h * s.dim, position);
        int64_t base = block(index, page(i, position), h);
        W *keys = static_cast<W*>(m.keys) + base, *values = static_cast<W*>(m.values) + base;
        for (int d = 0; d < s.dim; ++d) {
          narrow(k[h * s.dim + d], keys + d * P + place);
          narrow(v[h * s.dim + d], values + place * s.dim + d);
        }
      }
    });
  }

  int64_t block(int layer, int page, int head) const {
    return ((int64_t(layer) * s.pages + page) * s.kv_heads + head) * s.dim * P;
  }

  void attend(int layer) {
    int group = s.heads / s.kv_heads, at_once = std::max(1, TILE / group);
    int tiles = (rows.n + at_once - 1) / at_once;
    int64_t first = int64_t(layer) * s.pages * s.kv_heads * s.dim * P;
    Cache<W> cache = {static_cast<const W*>(m.keys) + first,
                      static_cast<const W*>(m.values) + first, s.kv_heads, s.dim};
    Bench& bench = b.benches[omp_get_thread_num()];
    bench.fit(at_once * group);
    for (int item; (item = next_item++) < s.kv_heads * tiles;) {
      int row = item % tiles * at_once, count = std::min(at_once, rows.n - row);
      attend_tile(cache, row, count, item / tiles, group, bench);
    }
    meet();
  }

  void attend_tile(const Cache<W>& cache, int row, int count, int head, int group, Bench& bench) {
    Row tile[TILE];
    for (int i = 0; i < count; ++i)
      tile[i] = {rows.tables + int64_t(row + i) * rows.stride, rows.positions[row + i] + 1};
    auto place = [&](int at) { return (row + at / group) * q_dim + (head * group + at % group) * s.dim; };
    for (int at = 0; at < count * group; ++at)
      std::copy_n(&b.q[place(at)], s.dim, &bench.q[at * WIDEST]);
    attend_rows(cache, tile, count, group, head, bench);
    for (int at = 0; at < count * group; ++at)
      for (int d = 0; d < s.dim; ++d)
        b.attended[place(at) + d] = bench.out[at * WIDEST + d] / bench.total[at];
  }

  void route(int index, const Layer& layer) {
    each(rows.n, [&](int i) {
      float *score = &b.scores[i * s.experts], *weight = &b.weight[i * s.top_k];
      int* chosen = &b.chosen[i * s.top_k];
      float* rank = &b.ranks[i * s.experts];
      over(s.experts, [&](int64_t e, int lanes) {
        vf share = 1.0f / (1.0f + exp_of(-load(score + e, lanes)));
        store(score + e, share, lanes);
        store(rank + e, share + load(layer.bias + e, lanes), lanes);
      });
      for (int j = 0; j < s.top_k; ++j) {
        chosen[j] = int(std::max_element(rank, rank + s.experts) - rank);
        rank[chosen[j]] = -INFINITY;
      }
      std::sort(chosen, chosen + s.top_k);
      float total = 0;
      for (int j = 0; j < s.top_k; ++j) total += score[chosen[j]];
      for (int j = 0; j < s.top_k; ++j) weight[j] = score[chosen[j]] / total;
      if (m.routes) {
        int position = rows.positions[i];
        int64_t place = int64_t(page(i, position)) * P + position % P;
        for (int j = 0; j < s.top_k; ++j)
          m.routes[(place * s.layers + index) * s.top_k + j] = int16_t(chosen[j]);
      }
    });
    if (omp_get_thread_num() == 0) sort_slots();
    meet();
  }

  // Slots lie expert by expert; a slot is one token at one of its experts.
  void sort_slots() {
    std::fill(b.start.begin(), b.start.end(), 0);
    for (int slot = 0; slot < rows.n * s.top_k; ++slot) ++b.start[b.chosen[slot] + 1];
    for (int e = 0; e < s.experts; ++e) b.start[e + 1] += b.start[e];
    std::vector<int> next(b.start.begin(), b.start.end() - 1);
    for (int slot = 0; slot < rows.n * s.top_k; ++slot) {
      int at = next[b.chosen[slot]]++;
      b.slot_token[at] = slot;
      b.slots[at] = &b.normed[slot / s.top_k * s.hidden];
      b.outputs[at] = &b.gate[int64_t(at) * s.inner];
    }
  }

  // f(expert, first slot, slots, expert after it or -1) for each that has any.
  template <class F>
  void chosen_experts(F f) const {
    auto from = [&](int e) {
      while (e < s.experts && b.start[e] == b.start[e + 1]) ++e;
      return e;
    };
    for (int e = from(0), next; e < s.experts; e = next) {
      next = from(e + 1);
      f(e, b.start[e], b.start[e + 1] - b.start[e], next < s.experts ? next : -1);
    }
  }

  void experts(const Layer& layer, const W* next_layer) {
    const int64_t size = int64_t(s.inner) * s.hidden;
    const W* down = mine(layer.down, s.hidden, s.inner);
    const W* gate = mine(layer.gate_up, s.inner, s.hidden);
    int from, to, first_expert = -1;
    share(s.inner, from, to);
    chosen_experts([&](int e, int first, int count, int next) {
      if (first_expert < 0) first_expert = e;
      const W* weight = as(layer.gate_up) + 2 * e * size;
      auto into = [&](std::vector<float>& out) {
        return [&](int r, int t, vf y, int count) {
          store(&out[int64_t(first + t) * s.inner + r], y, count);
        };
      };
      const W* after = next < 0 ? down + first_expert * size : gate + 2 * next * size;
      Inputs<W> x(&b.slots[first], count, s.hidden);
      product(weight, s.hidden, from, to, x, count, gate + (2 * e + 1) * size, into(b.gate));
      product(weight + size, s.hidden, from, to, x, count, after, into(b.up));
      for (int at = first; at < first + count; ++at)
        activate(&b.gate[int64_t(at) * s.inner], &b.up[int64_t(at) * s.inner],
                 b.weight[b.slot_token[at]], from, to);
    });
    meet();
    share(s.hidden, from, to);
    chosen_experts([&](int e, int first, int count, int next) {
      const W* after = next < 0 ? next_layer : down + next * size;
      auto add = [&](int r, int t, vf y, int rows) {
        float* place = &b.x[int64_t(b.slot_token[first + t] / s.top_k) * s.hidden + r];
        store(place, load(place, rows) + y, rows);
      };
      Inputs<W> x(&b.outputs[first], count, s.inner);
      product(as(layer.down) + e * size, s.inner, from, to, x, count, after, add);
    });
    meet();
  }

  static void activate(float* gate, const float* up, float weight, int from, int to) {
    int i = from;
    for (; i + P <= to; i += P) {
      vf g = load(gate + i);
      store(gate + i, g / (1.0f + exp_of(-g)) * load(up + i) * weight);
    }
    for (; i < to; ++i) gate[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i] * weight;
  }

  // The last norm of all rows, and the logits of those that are asked for.
  void head() {
    norm_rows(w.norm);
    each(rows.n, [&](int i) {
      std::memcpy(rows.states + int64_t(i) * s.hidden, &b.normed[i * s.hidden],
                  s.hidden * sizeof(float));
    });
    each(rows.wanted, [&](int i) { b.inputs[i] = &b.normed[rows.want[i] * s.hidden]; });
    int from, to;
    share(s.vocab, from, to);
    Inputs<W> x(b.inputs.data(), rows.wanted, s.hidden);
    product(as(w.head), s.hidden, from, to, x, rows.wanted, (const W*)nullptr,
            [&](int r, int t, vf y, int count) {
              store(rows.logits + int64_t(t) * s.vocab + r, y, count);
            });
  }

  void layer(int index, const Layer& layer, const W* next) {
    const W *k = mine(layer.k, kv_dim, s.hidden), *v = mine(layer.v, kv_dim, s.hidden);
    const W *o = mine(layer.o, s.hidden, q_dim), *gate = mine(layer.gate, s.experts, s.hidden);
    norm_rows(layer.norm1);
    Inputs<W> normed = from(b.inputs, s.hidden);
    project(layer.q, q_dim, normed, s.hidden, b.q.data(), k);
    project(layer.k, kv_dim, normed, s.hidden, b.k.data(), v);
    project(layer.v, kv_dim, normed, s.hidden, b.v.data(), o);
    next_item = 0;
    meet();
    place_keys(index, layer);
    attend(index);
    project(layer.o, s.hidden, from(b.attention, q_dim), q_dim, b.x.data(), gate, true);
    meet();
    norm_rows(layer.norm2);
    project(layer.gate, s.experts, from(b.inputs, s.hidden), s.hidden, b.scores.data(), nullptr);
    meet();
    route(index, layer);
    experts(layer, next);
  }

  // What goes into the first layer: the embeddings, joined with the given states if there are any.
  void enter() {
    each(rows.n, [&](int i) {
      b.inputs[i] = &b.normed[i * s.hidden], b.attention[i] = &b.attended[i * q_dim];
      float* out = w.joint ? &b.joined[(2 * i + 1) * s.hidden] : &b.x[i * s.hidden];
      for (int h = 0; h < s.hidden; ++h)
        out[h] = wide(as(w.embed)[rows.tokens[i] * s.hidden + h]);
      if (!w.joint) return;
      rms_norm(out, as(w.embed_norm), s.hidden, s.eps, out);
      rms_norm(rows.given + int64_t(i) * s.hidden, as(w.state_norm), s.hidden, s.eps,
               out - s.hidden);
      b.pairs[i] = out - s.hidden;
    });
    if (!w.joint) return;
    project(w.joint, s.hidden, from(b.pairs, 2 * s.hidden), 2 * s.hidden, b.x.data(), nullptr);
    meet();
  }

  void run() {
#pragma omp parallel num_threads(s.threads)
    {
      Tiles held;
      enter();
      for (int index = 0; index < s.layers; ++index)
        layer(index, w.layer[index],
              index + 1 < s.layers ? mine(w.layer[index + 1].q, q_dim, s.hidden)
                                   : mine(w.head, s.vocab, s.hidden));
      head();
    }
  }
};

template <class W>
void run(const Shape* s, const Weights* w, const Memory* m, const Rows* rows) {
  static thread_local Scratch scratch;
  Pass<W>(*s, *w, *m, *rows, scratch).run();
}

}  // namespace

extern "C" void decode_f32(const Shape* s, const Weights* w, const Memory* m, const Rows* rows) {
  run<float>(s, w, m, rows);
}
extern "C" void decode_bf16(const Shape* s, const Weights* w, const Memory* m, const Rows* rows) {
  run<bf16>(s, w, m, rows);
}
