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
    bench.fit(at_once * group);
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
        for (int d = 0; d < dim; ++d) bench.q[at * WIDEST + d] = wide(q[place(at) + d]) * scale;
      attend_rows(cache, rows, count, group, int(head), bench, in_pairs);
      for (int at = 0; at < count * group; ++at)
        for (int d = 0; d < dim; ++d)
          narrow(bench.out[at * WIDEST + d] / bench.total[at], out + place(at) + d);
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
