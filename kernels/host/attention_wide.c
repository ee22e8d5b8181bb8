/* attention_wide.c - attention with heads too wide for tiles in a thread's scratch.
 *
 * In and out: as attention_forward and attention_backward. Row by row: scores are computed again
 * whenever they are needed, results are added up in scratch, a slice of a head's columns at a
 * time. A unit of work is a row of o, of dq, or of dk and dv.
 */
#include "attention_shape.h"
#include "vmath.h"

enum { SLICE = 1 << 15, PART = 512 }; /* columns added up, and widened, at a time */

typedef struct {
    AttentionShape s;
    void *out[2]; /* o; dq; dk and dv */
    real *lse_out;
    const void *q, *k, *v, *dout, *o;
    const real *lse;
} Wide;

/* Sum of x[i] y[i]. */
static real dot_of(TileFormat format, const char *x, const char *y, int64_t n)
{
    if (format == TILE_REAL)
        return row_dot((const void *)x, (const void *)y, n);
    real sum = 0, wide[2][PART];
    const int64_t size = tile_element_bytes(format);
    for (int64_t i = 0; i < n; i += PART) {
        const int64_t m = int_min(PART, n - i);
        tile_read_rows(format, false, wide[0], PART, x + i * size, 0, 1, m);
        tile_read_rows(format, false, wide[1], PART, y + i * size, 0, 1, m);
        sum += row_dot(wide[0], wide[1], m);
    }
    return sum;
}

/* sum += scale x */
static void add_scaled(TileFormat format, real *restrict sum, real scale, const char *x, int64_t n)
{
    real wide[PART];
    for (int64_t i = 0; i < n; i += PART, sum += PART) {
        const int64_t m = int_min(PART, n - i);
        tile_read_rows(format, false, wide, PART, x + i * tile_element_bytes(format), 0, 1, m);
        for (int64_t c = 0; c < m; c++)
            sum[c] += scale * wide[c];
    }
}

/* Rows of the tensors: of queries, of results, of keys and values. */
static char *row_of_q(const Wide *w, const void *x, int64_t b, int64_t i, int64_t head)
{
    const Attention *a = w->s.a;
    return attention_at(&w->s, x, (b * a->t + i) * a->ldq + head * a->width);
}

static char *row_of_o(const Wide *w, const void *x, int64_t b, int64_t i, int64_t head)
{
    const Attention *a = w->s.a;
    return attention_at(&w->s, x, ((b * a->t + i) * a->heads + head) * a->width);
}

static char *row_of_keys(const Wide *w, const void *x, int64_t ld, int64_t b, int64_t j,
                         int64_t head)
{
    const Attention *a = w->s.a;
    return attention_at(&w->s, x, (b * a->s + j) * ld + head / w->s.group * a->width);
}

static real score(const Wide *w, int64_t b, int64_t i, int64_t j, int64_t head)
{
    const Attention *a = w->s.a;
    return (real)w->s.scale * dot_of(w->s.format, row_of_q(w, w->q, b, i, head),
                                     row_of_keys(w, w->k, a->ldk, b, j, head), a->width);
}

/* P and, times the scale, dS of a query and a key. */
static real weight_of(const Wide *w, int64_t b, int64_t i, int64_t j, int64_t head, real *slope)
{
    const Attention *a = w->s.a;
    const real lse = w->lse[(b * a->heads + head) * a->t + i];
    const real p = mdl_exp(score(w, b, i, j, head) - lse);
    if (slope) {
        const char *dout = row_of_o(w, w->dout, b, i, head);
        const char *v = row_of_keys(w, w->v, a->ldv, b, j, head);
        const real delta = dot_of(w->s.format, dout, row_of_o(w, w->o, b, i, head), a->width);
        *slope = p * (dot_of(w->s.format, dout, v, a->width) - delta) * (real)w->s.scale;
    }
    return p;
}

static int64_t keys_of(const Attention *a, int64_t query)
{
    return a->causal ? int_min(a->s, query + 1) : a->s;
}

static void clear(real *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = 0;
}

static void write_slice(const Wide *w, char *row, int64_t from, const real *sum, int64_t n)
{
    tile_write_rows(w->s.format, row + from * tile_element_bytes(w->s.format), 0, sum, 0, 1, n, 1,
                    false);
}

/* o and lse of a query, or dq where there is dout. */
static void wide_query(void *ctx, int64_t unit)
{
    const Wide *w = ctx;
    const Attention *a = w->s.a;
    const int64_t head = unit / a->t % a->heads, b = unit / a->t / a->heads, i = unit % a->t;
    const int64_t keys = keys_of(a, i), size = tile_element_bytes(w->s.format);
    if (w->lse_out) {
        real most = -(real)INFINITY, total = 0;
        for (int64_t j = 0; j < keys; j++) {
            const real next = score(w, b, i, j, head), larger = next > most ? next : most;
            total = total * mdl_exp(most - larger) + mdl_exp(next - larger);
            most = larger;
        }
        w->lse_out[unit] = most + mdl_log(total);
    }
    real *sum = team_scratch(w->s.team);
    for (int64_t from = 0; from < a->width; from += SLICE) {
        const int64_t n = int_min(SLICE, a->width - from);
        clear(sum, n);
        for (int64_t j = 0; j < keys; j++) {
            real slope = 0;
            const real p = weight_of(w, b, i, j, head, w->dout ? &slope : NULL);
            const char *row = w->dout ? row_of_keys(w, w->k, a->ldk, b, j, head)
                                      : row_of_keys(w, w->v, a->ldv, b, j, head);
            add_scaled(w->s.format, sum, w->dout ? slope : p, row + from * size, n);
        }
        write_slice(
            w, w->dout ? row_of_q(w, w->out[0], b, i, head) : row_of_o(w, w->out[0], b, i, head),
            from, sum, n);
    }
}

/* dk and dv of a key. */
static void wide_key(void *ctx, int64_t unit)
{
    const Wide *w = ctx;
    const Attention *a = w->s.a;
    const int64_t kv_head = unit / a->s % a->kv_heads, b = unit / a->s / a->kv_heads;
    const int64_t j = unit % a->s, first = kv_head * w->s.group;
    const int64_t size = tile_element_bytes(w->s.format);
    real *dk = team_scratch(w->s.team), *dv = dk + SLICE;
    for (int64_t from = 0; from < a->width; from += SLICE) {
        const int64_t n = int_min(SLICE, a->width - from);
        clear(dk, n);
        clear(dv, n);
        for (int64_t head = first; head < first + w->s.group; head++)
            for (int64_t i = a->causal ? j : 0; i < a->t; i++) {
                real slope = 0;
                const real p = weight_of(w, b, i, j, head, &slope);
                add_scaled(w->s.format, dk, slope, row_of_q(w, w->q, b, i, head) + from * size, n);
                add_scaled(w->s.format, dv, p, row_of_o(w, w->dout, b, i, head) + from * size, n);
            }
        write_slice(w, row_of_keys(w, w->out[0], a->ldk, b, j, first), from, dk, n);
        write_slice(w, row_of_keys(w, w->out[1], a->ldv, b, j, first), from, dv, n);
    }
}

void attention_forward_wide(const AttentionShape *s, void *o, real *lse, const void *q,
                            const void *k, const void *v)
{
    Wide w = {.s = *s, .out = {o}, .lse_out = lse, .lse = lse, .q = q, .k = k, .v = v};
    team_run(s->team, s->a->B * s->a->heads * s->a->t, wide_query, &w);
}

void attention_backward_wide(const AttentionShape *s, void *dq, void *dk, void *dv,
                             const void *dout, const void *q, const void *k, const void *v,
                             const void *o, const real *lse)
{
    Wide w = {.s = *s, .out = {dq}, .dout = dout, .q = q, .k = k, .v = v, .o = o, .lse = lse};
    team_run(s->team, s->a->B * s->a->heads * s->a->t, wide_query, &w);
    w.out[0] = dk;
    w.out[1] = dv;
    team_run(s->team, s->a->B * s->a->kv_heads * s->a->s, wide_key, &w);
}
