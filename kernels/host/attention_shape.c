/* attention_shape.c - tiles of attention and the products on them. */
#include "attention_shape.h"

AttentionShape attention_shape(Team *team, const Attention *a, TileFormat format)
{
    AttentionShape s = {.a = a, .team = team, .format = format};
    s.pairs = TILE_PAIRS && format == TILE_BF16;
    s.per_word = s.pairs ? 2 : 1;
    s.group = a->heads / a->kv_heads;
    s.inner = int_ceil_div(a->width, s.per_word);
    s.wide = int_round_up(a->width, s.per_word * int_max(VL, TILE_ROWS));
    s.row = s.wide / s.per_word;
    s.vectors = TILE_VECTORS_LEAST;
    while (s.vectors < TILE_VECTORS && s.vectors * VL < a->t)
        s.vectors *= 2;
    s.scale = 1 / sqrt((double)a->width);
    s.scale_log2 = (real)(1.4426950408889634 * s.scale);
    return s;
}

AttentionStep attention_step(const AttentionShape *s, int64_t query, int64_t key, int64_t keys)
{
    AttentionStep step = {.query = query, .key = key};
    step.valid = int_min(keys, s->a->s - key);
    step.filled = int_round_up(step.valid, TILE_ROWS);
    step.vectors = int_ceil_div(int_min(s->queries, s->a->t - query), VL);
    for (int64_t v = 0; v < step.vectors; v++) {
        const int64_t first = query + v * VL - key; /* the last row that its first query sees */
        step.whole[v] = step.valid;
        step.rows[v] = step.filled;
        if (s->a->causal) {
            step.whole[v] = int_max(0, int_min(step.valid, first + 1));
            step.rows[v] = int_round_up(int_max(0, int_min(step.valid, first + VL)), TILE_ROWS);
        }
    }
    return step;
}

void attention_ahead(const AttentionShape *s, Ahead *ahead, const void *x, int64_t ld, int64_t from,
                     int64_t rows)
{
    const int64_t size = tile_element_bytes(s->format);
    if (rows > 0)
        ahead->part[ahead->parts++] =
            (AheadRows){attention_at(s, x, from * ld), ld * size, s->a->width * size, rows};
}

void attention_ahead_over(const AttentionShape *s, Ahead *ahead, int64_t steps, int64_t scores,
                          int64_t gathers)
{
    int64_t rows = 0;
    for (int i = 0; i < ahead->parts; i++)
        rows += ahead->part[i].rows;
    const int64_t pairs = int_ceil_div(s->vectors, 2);
    const int64_t blocks = pairs * (scores * s->queries + gathers * s->a->width) / TILE_ROWS;
    const int64_t all = s->a->causal ? (2 * steps - 1) * blocks / 2 : steps * blocks;
    ahead->share = int_ceil_div(rows, int_max(1, all));
}

void attention_read(const AttentionShape *s, real *along, const void *x, int64_t ld, int64_t from,
                    int64_t n, int64_t rows)
{
    tile_read_rows(s->format, s->pairs, along, s->row, attention_at(s, x, from * ld), ld, n,
                   s->a->width);
    for (int64_t i = n * s->row; i < rows * s->row; i++)
        along[i] = 0;
}

void attention_scores(const AttentionShape *s, const AttentionStep *step, real *scores,
                      const real *along, const real *turned, Ahead *ahead)
{
    const TileProduct p = {s->pairs, true, false, s->row, s->queries, s->queries, ahead, NULL};
    for (int64_t v = 0; v < step->vectors; v += 2) {
        const int64_t both = step->rows[v];
        tile_product(&p, both, int_min(2, step->vectors - v), s->inner, along, turned + v * VL,
                     scores + v * VL);
        if (v + 1 < step->vectors && step->rows[v + 1] > both)
            tile_product(&p, step->rows[v + 1] - both, 1, s->inner, along + both * s->row,
                         turned + (v + 1) * VL, scores + both * s->queries + (v + 1) * VL);
    }
}

void attention_gather(const AttentionShape *s, const AttentionStep *step, real *out,
                      const real *across, const real *weights, bool add, const real *fading,
                      Ahead *ahead)
{
    TileProduct first = {s->pairs, false, add, s->wide, s->queries, s->queries, ahead, NULL};
    TileProduct more = first;
    more.add = true;
    const int64_t m = int_round_up(s->a->width, TILE_ROWS);
    for (int64_t v = 0; v < step->vectors; v += 2) {
        const int64_t both = step->rows[v] / s->per_word;
        first.fading = fading ? fading + v * VL : NULL;
        tile_product(&first, m, int_min(2, step->vectors - v), both, across, weights + v * VL,
                     out + v * VL);
        if (v + 1 < step->vectors && step->rows[v + 1] / s->per_word > both)
            tile_product(&more, m, 1, step->rows[v + 1] / s->per_word - both,
                         across + both * s->wide, weights + both * s->queries + (v + 1) * VL,
                         out + (v + 1) * VL);
    }
}

void attention_spread(const AttentionShape *s, const AttentionStep *step, real *out,
                      const real *across, const real *weights, bool add, Ahead *ahead)
{
    const int64_t vectors = int_ceil_div(s->a->width, VL), row = s->queries / s->per_word;
    const int64_t to = step->vectors * VL / s->per_word;
    const TileProduct p = {s->pairs, true, add, row, s->wide, s->wide, ahead, NULL};
    for (int64_t k = 0; k < step->filled;) {
        /* the first query, in words, that sees one of these keys */
        int64_t from = 0, rows = step->filled - k;
        if (s->a->causal && step->key + k + rows > step->query) {
            rows = TILE_ROWS;
            from = int_max(0, step->key + k - step->query) / s->per_word;
        }
        if (from < to)
            tile_product(&p, rows, vectors, to - from, weights + k * row + from,
                         across + from * s->wide, out + k * s->wide);
        k += rows;
    }
}
