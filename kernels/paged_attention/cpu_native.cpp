// Attention over a paged cache for any number of rows; see attention.h.

#include <omp.h>

#include "attention.h"

namespace {

template <class W>
void paged_attention(const W* q, const W* keys, const W* values, const int32_t* table,
                     const int64_t* owner, const int64_t* positions, W* out, int64_t n,
                     int64_t heads, int64_t kv_heads, int64_t dim, int64_t most, int64_t threads) {
  bool in_pairs = has_pairs<W>();
  int group = heads / kv_heads, at_once = std::max(1, (in_pairs ? PAIRED : TILE) / group);
  int64_t tiles = (n + at_once - 1) / at_once;
  float scale = scale_of(dim);
  Cache<W> cache = {keys, values, int(kv_heads), int(dim)};
#pragma omp parallel num_threads(threads)
  {
    Tiles held;
    static thread_local Bench bench;
    static thread_local std::vector<W> queries;
    bench.fit(at_once * group), queries.resize(at_once * group * dim);
#pragma omp for schedule(dynamic, 1)
    for (int64_t item = 0; item < kv_heads * tiles; ++item) {
      int64_t first = item % tiles * at_once, head = item / tiles;
      int count = std::min<int64_t>(at_once, n - first);
      Row rows[PAIRED];
      for (int i = 0; i < count; ++i)
        rows[i] = {table + owner[first + i] * most, int(positions[first + i]) + 1};
      auto place = [&](int at) {
        return ((first + at / group) * heads + head * group + at % group) * dim;
      };
      for (int at = 0; at < count * group; ++at)
        over(dim, [&](int64_t d, int lanes) {
          vf x = load(q + place(at) + d, lanes) * scale;
          if (in_pairs)
            store(&queries[at * dim + d], x, lanes);
          else
            store(&bench.q[at * WIDEST + d], x, lanes);
        });
      attend_rows(cache, rows, count, group, int(head), bench, in_pairs ? queries.data() : nullptr);
      for (int at = 0; at < count * group; ++at)
        over(dim, [&](int64_t d, int lanes) {
          vf x = load(&bench.out[at * bench.apart + d], lanes) / bench.total[at];
          store(out + place(at) + d, x, lanes);
        });
    }
  }
}

}  // namespace

FOR_BOTH_TYPES(paged_attention,
               (Pointer q, Pointer keys, Pointer values, Pointer table, Pointer owner,
                Pointer positions, Pointer out, int64_t n, int64_t heads, int64_t kv_heads,
                int64_t dim, int64_t most, int64_t threads),
               q, keys, values, table, owner, positions, out, n, heads, kv_heads, dim, most,
               threads)
