/* attention_backward.c - the gradients of attention, in blocks of keys and tiles of queries.
 *
 * In: dout, q, k, v, o, lse. Out: dq, dk, dv. FlashAttention-2: the weights P come again from the
 * scores and lse, and with delta = dout . o of every query
 *
 *     dP = v dout,  dS = P (dP - delta),  dv = P dout,  dk = dS q,  dq = dS k
 *
 * A unit of work is one sample's key/value head, or some: for every block of keys it walks over
 * the tiles of queries in order, adding up dk and dv in scratch, while dq of a tile is complete
 * after the block, or added to dq in memory where there are several blocks. Numbers of 16 bits
 * cannot be added up in memory: where their keys do not fit one block, dk and dv are computed block
 * by block and then dq tile by tile, from scores computed once more.
 */
#include "attention_shape.h"

#include <string.h>

enum {
    KEYS = 256, /* of a block, where they need not all fit one */
    UNITS = 16  /* at least, before several heads make one */
};

typedef struct {
    AttentionShape s;
    void *dq, *dk, *dv;
    const void *dout, *q, *k, *v, *o;
    const real *lse;
    int64_t blocks;       /* of keys */
    int64_t heads, parts; /* key/value heads of a unit, units of a sample */
    bool apart;           /* dq is computed for itself */
} Backward;

typedef struct {
    int64_t b, kv_head, block; /* at work, and its first key */
    Ahead ahead;
    real *keys, *values, *keys_across; /* operands of a block of keys */
    real *dk, *dv;
    real *q, *q_turned, *dout, *dout_turned; /* operands of a tile of queries */
    real *lse_log2, *delta;
    real *dq;
    real *scores, *slopes;   /* of a step: S and dP */
    real *weights, *dscores; /* P and dS as operands along queries */
    real *dscores_across;    /* dS as an operand across keys */
    real *rows;
} Scratch;

static int64_t words_of_key(const AttentionShape *s)
{
    return 2 * s->row + 2 * s->wide + (s->pairs ? s->row : 0);
}

static int64_t words_of_queries(const AttentionShape *s)
{
    const int64_t step = s->queries * s->queries;
    const int64_t of_query = 4 * s->row + 2 * s->wide + 2;
    return s->queries * of_query + 2 * step + (s->pairs ? step / 2 * 3 : 0);
}

static void lay_out(Scratch *x, const AttentionShape *s)
{
    const int64_t tile = s->queries * s->row, block = s->keys * s->row;
    const int64_t step = s->queries * s->queries;
    real *next = team_scratch(s->team);
#define PLACE(part, words) next = (x->part = next) + (words)
    PLACE(keys, block);
    PLACE(values, block);
    PLACE(dk, s->keys * s->wide);
    PLACE(dv, s->keys * s->wide);
    PLACE(q, tile);
    PLACE(q_turned, tile);
    PLACE(dout, tile);
    PLACE(dout_turned, tile);
    PLACE(lse_log2, s->queries);
    PLACE(delta, s->queries);
    PLACE(dq, s->queries * s->wide);
    PLACE(rows, s->queries * s->wide);
    PLACE(scores, step);
    PLACE(slopes, step);
    x->keys_across = x->keys;
    x->weights = x->scores;
    x->dscores = x->dscores_across = x->slopes;
    if (s->pairs) {
        PLACE(keys_across, block);
        PLACE(weights, step / 2);
        PLACE(dscores, step / 2);
        PLACE(dscores_across, step / 2);
    }
#undef PLACE
}

static void plan(Backward *f)
{
    AttentionShape *s = &f->s;
    int64_t room = 0; /* for keys */
    for (;; s->vectors /= 2) {
        s->queries = s->vectors * VL;
        room = (TEAM_SCRATCH / (int64_t)sizeof(real) - words_of_queries(s)) / words_of_key(s);
        room = room / s->queries * s->queries;
        if (s->vectors == TILE_VECTORS_LEAST || room > 0)
            break;
    }
    const int64_t all = int_round_up(s->a->s, s->queries);
    f->apart = s->format != TILE_REAL && all > room;
    s->keys = int_min(all, int_min(room, s->format == TILE_REAL || f->apart ? KEYS : all));
    s->tiles = int_ceil_div(s->a->t, s->queries);
    f->blocks = int_ceil_div(s->a->s, s->keys);
    f->heads = int_max(1, int_min(s->a->kv_heads, s->a->B * s->a->kv_heads / UNITS));
    f->parts = int_ceil_div(s->a->kv_heads, f->heads);
}

/* P and dS of TILE_SIDE keys for vector v of a step's queries; `edge`: some may be hidden. */
VEC_INLINE void weigh_keys(const bool pairs, const bool edge, const AttentionShape *s,
                           const AttentionStep *step, const Scratch *x, int64_t key, int64_t v)
{
    const int64_t ld = s->queries, at = key * ld + v * VL;
    const Vec scale = vec_all(s->scale_log2), lse = vec_load(x->lse_log2 + v * VL);
    const Vec delta = vec_load(x->delta + v * VL);
    Vec weight[TILE_SIDE], slope[TILE_SIDE];
    TILE_EACH weight[k] = vec_load(x->scores + at + k * ld) * scale - lse;
    tile_exp2(weight);
    TILE_EACH slope[k] = weight[k] * (vec_load(x->slopes + at + k * ld) - delta);
    if (edge)
        TILE_EACH
        {
            const VecInt hidden = attention_hidden(s, step, v, key + k);
            weight[k] = vec_choose(hidden, (Vec){0}, weight[k]);
            slope[k] = vec_choose(hidden, (Vec){0}, slope[k]);
        }
#if TILE_PAIRS
    if (pairs)
        for (int k = 0; k < TILE_SIDE; k += 2) {
            real *to = x->weights + (at + k * ld) / 2, *to_slope = x->dscores + (at + k * ld) / 2;
            const Vec slopes = tile_round_rows(slope[k], slope[k + 1]);
            tile_store_rows(to, to + ld / 2, tile_round_rows(weight[k], weight[k + 1]));
            tile_store_rows(to_slope, to_slope + ld / 2, slopes);
            vec_store(x->dscores_across + (key + k) / 2 * ld + v * VL, tile_pair_lanes(slopes));
        }
#endif
    if (!pairs)
        TILE_EACH
        {
            vec_store(x->weights + at + k * ld, weight[k]);
            vec_store(x->dscores + at + k * ld, slope[k]);
        }
}

VEC_INLINE void weigh_vector(const bool pairs, const AttentionShape *s, const AttentionStep *step,
                             const Scratch *x, int64_t v)
{
    int64_t key = 0;
    for (; key + TILE_SIDE <= step->whole[v]; key += TILE_SIDE)
        weigh_keys(pairs, false, s, step, x, key, v);
    for (; key < step->rows[v]; key += TILE_SIDE)
        weigh_keys(pairs, true, s, step, x, key, v);
}

static void weigh(const AttentionShape *s, const AttentionStep *step, const Scratch *x)
{
    for (int64_t v = 0; v < s->vectors; v++)
        if (s->pairs)
            weigh_vector(true, s, step, x, v);
        else
            weigh_vector(false, s, step, x, v);
}

/* Row 0 of a head in a tensor that lies as q, as k or v, or as o. */
static void *head_of_queries(const Backward *f, const void *x, int64_t b, int64_t head)
{
    const Attention *a = f->s.a;
    return attention_at(&f->s, x, b * a->t * a->ldq + head * a->width);
}

static void *head_of_keys(const Backward *f, const void *x, int64_t ld, int64_t b, int64_t kv_head)
{
    const Attention *a = f->s.a;
    return attention_at(&f->s, x, b * a->s * ld + kv_head * a->width);
}

static void *head_of_results(const Backward *f, const void *x, int64_t b, int64_t head)
{
    const Attention *a = f->s.a;
    return attention_at(&f->s, x, (b * a->t * a->heads + head) * a->width);
}

/* delta and lse of a tile's queries; what is not a query weighs nothing. */
static void read_sums(const Backward *f, Scratch *x, int64_t head, int64_t query, int64_t n)
{
    const AttentionShape *s = &f->s;
    const Attention *a = s->a;
    const real *lse = f->lse + (x->b * a->heads + head) * a->t + query;
    const int64_t ldo = a->heads * a->width;
    const void *dout = head_of_results(f, f->dout, x->b, head);
    const void *o = head_of_results(f, f->o, x->b, head);
    _Alignas(64) real part[VL * VL], turned[VL * VL];
    for (int64_t i = 0; i < s->queries; i += VL) {
        const int64_t rows = int_max(0, int_min(VL, n - i)), at = (query + i) * ldo;
        const void *x1 = attention_at(s, dout, at), *x2 = attention_at(s, o, at);
        if (a->width % VL == 0) {
            tile_dot_rows(s->format, part, x1, x2, ldo, rows, a->width);
        } else {
            tile_read_rows(s->format, false, x->dq, s->wide, x1, ldo, rows, a->width);
            tile_read_rows(s->format, false, x->rows, s->wide, x2, ldo, rows, a->width);
            tile_dot_rows(TILE_REAL, part, x->dq, x->rows, s->wide, rows, s->wide);
        }
        tile_turn(turned, VL, part, VL, VL, VL);
        Vec delta = {0};
        for (int64_t k = 0; k < VL; k++)
            delta += vec_load(turned + k * VL);
        vec_store(x->delta + i, delta);
    }
    for (int64_t i = 0; i < n; i++)
        x->lse_log2[i] = (real)1.4426950408889634 * lse[i];
    for (int64_t i = n; i < s->queries; i++)
        x->lse_log2[i] = (real)1e30;
}

/* An operand of queries both ways: across (summed over queries) and turned (over the width). */
static void read_queries(const AttentionShape *s, Scratch *x, real *across, real *turned,
                         const void *from, int64_t ld, int64_t query, int64_t n)
{
    real *along = s->pairs ? x->rows : across;
    attention_read(s, along, from, ld, query, n, s->queries);
    tile_turn(turned, s->queries, along, s->row, s->queries, s->row);
    if (s->pairs)
        tile_pair_rows(across, along, s->row, s->queries, s->row);
}

static void read_tile(const Backward *f, Scratch *x, int64_t head, int64_t query)
{
    const AttentionShape *s = &f->s;
    const Attention *a = s->a;
    const int64_t n = int_min(s->queries, a->t - query);
    read_sums(f, x, head, query, n);
    read_queries(s, x, x->q, x->q_turned, head_of_queries(f, f->q, x->b, head), a->ldq, query, n);
    read_queries(s, x, x->dout, x->dout_turned, head_of_results(f, f->dout, x->b, head),
                 a->heads * a->width, query, n);
}

static void read_block(const Backward *f, Scratch *x)
{
    const AttentionShape *s = &f->s;
    const Attention *a = s->a;
    const int64_t n = int_min(s->keys, a->s - x->block), rows = int_round_up(n, TILE_ROWS);
    attention_read(s, x->keys, head_of_keys(f, f->k, a->ldk, x->b, x->kv_head), a->ldk, x->block, n,
                   rows);
    attention_read(s, x->values, head_of_keys(f, f->v, a->ldv, x->b, x->kv_head), a->ldv, x->block,
                   n, rows);
    if (s->pairs)
        tile_pair_rows(x->keys_across, x->keys, s->row, rows, s->row);
}

static void write_dq(const Backward *f, const Scratch *x, int64_t head, int64_t query, bool add)
{
    const AttentionShape *s = &f->s;
    const Attention *a = s->a;
    tile_turn(x->rows, s->wide, x->dq, s->queries, int_round_up(a->width, VL), s->queries);
    void *dq = attention_at(s, head_of_queries(f, f->dq, x->b, head), query * a->ldq);
    tile_write_rows(s->format, dq, a->ldq, x->rows, s->wide, int_min(s->queries, a->t - query),
                    a->width, (real)s->scale, add);
}

static void write_block(const Backward *f, const Scratch *x)
{
    const AttentionShape *s = &f->s;
    const Attention *a = s->a;
    const int64_t n = int_min(s->keys, a->s - x->block);
    void *dk = head_of_keys(f, f->dk, a->ldk, x->b, x->kv_head);
    void *dv = head_of_keys(f, f->dv, a->ldv, x->b, x->kv_head);
    tile_write_rows(s->format, attention_at(s, dk, x->block * a->ldk), a->ldk, x->dk, s->wide, n,
                    a->width, (real)s->scale, false);
    tile_write_rows(s->format, attention_at(s, dv, x->block * a->ldv), a->ldv, x->dv, s->wide, n,
                    a->width, 1, false);
}

/* The gradients that a tile of queries and the block of keys give each other. */
static void step_over(const Backward *f, Scratch *x, int64_t head, int64_t query, bool dkv)
{
    const AttentionShape *s = &f->s;
    int64_t end = int_min(s->a->s, x->block + s->keys);
    if (s->a->causal)
        end = int_min(end, query + s->queries);
    attention_ahead_over(s, &x->ahead, int_ceil_div(end - x->block, s->queries), 2, 2);
    for (int64_t key = x->block; key < end; key += s->queries) {
        const AttentionStep step = attention_step(s, query, key, int_min(s->queries, end - key));
        const int64_t along = (key - x->block) * s->row, wide = (key - x->block) * s->wide;
        attention_scores(s, &step, x->scores, x->keys + along, x->q_turned, &x->ahead);
        attention_scores(s, &step, x->slopes, x->values + along, x->dout_turned, &x->ahead);
        weigh(s, &step, x);
        if (dkv) {
            /* the first queries to see these keys begin the sums */
            const bool add = head > x->kv_head * s->group || query > (s->a->causal ? key : 0);
            attention_spread(s, &step, x->dv + wide, x->dout, x->weights, add, &x->ahead);
            attention_spread(s, &step, x->dk + wide, x->q, x->dscores, add, &x->ahead);
        }
        if (!dkv || !f->apart)
            attention_gather(s, &step, x->dq, x->keys_across + along, x->dscores_across,
                             key > (dkv ? x->block : 0), NULL, &x->ahead);
    }
}

/* What is needed after the tile of queries from `query` on: the next tile; and its share of what
 * comes after the block, the results' rows and the next head's keys. */
static void look_ahead(const Backward *f, Scratch *x, int64_t head, int64_t query, int64_t next)
{
    const AttentionShape *s = &f->s;
    const Attention *a = s->a;
    const int64_t ldo = a->heads * a->width;
    /* tiles of a causal block have the more work the later they come */
    const int64_t first = a->causal ? x->block : 0, of = int_max(1, a->t - first);
    int64_t part = query - first, end = int_min(of, part + s->queries);
    if (a->causal) {
        part = part * part / of;
        end = end * end / of;
    }
    const int64_t keys = int_min(s->keys, a->s - x->block);
    part = part * keys / of;
    const int64_t rows = end * keys / of - part;
    x->ahead = (Ahead){.parts = 0};
    int64_t after = query + s->queries;
    if (after >= a->t) {
        head = head + 1 < (x->kv_head + 1) * s->group ? head + 1 : next * s->group;
        after = a->causal && head < (x->kv_head + 1) * s->group ? x->block : 0;
    }
    if (head >= 0) {
        const int64_t n = int_min(s->queries, a->t - after);
        attention_ahead(s, &x->ahead, head_of_results(f, f->dout, x->b, head), ldo, after, n);
        attention_ahead(s, &x->ahead, head_of_results(f, f->o, x->b, head), ldo, after, n);
        attention_ahead(s, &x->ahead, head_of_queries(f, f->q, x->b, head), a->ldq, after, n);
        attention_ahead(s, &x->ahead, head_of_queries(f, f->dq, x->b, head), a->ldq, after, n);
    }
    if (next >= 0) {
        attention_ahead(s, &x->ahead, head_of_keys(f, f->k, a->ldk, x->b, next), a->ldk, part,
                        rows);
        attention_ahead(s, &x->ahead, head_of_keys(f, f->v, a->ldv, x->b, next), a->ldv, part,
                        rows);
    }
    attention_ahead(s, &x->ahead, head_of_keys(f, f->dk, a->ldk, x->b, x->kv_head), a->ldk,
                    x->block + part, rows);
    attention_ahead(s, &x->ahead, head_of_keys(f, f->dv, a->ldv, x->b, x->kv_head), a->ldv,
                    x->block + part, rows);
}

/* dk and dv of a block of keys and, where not apart, what it gives to dq; `next` is the key/value
 * head whose first block comes then, or -1. */
static void backward_block(const Backward *f, Scratch *x, int64_t next)
{
    const AttentionShape *s = &f->s;
    read_block(f, x);
    if (s->a->causal && x->block + s->keys > s->a->t) { /* keys that no query sees */
        memset(x->dk, 0, (size_t)(s->keys * s->wide) * sizeof(real));
        memset(x->dv, 0, (size_t)(s->keys * s->wide) * sizeof(real));
    }
    for (int64_t head = x->kv_head * s->group; head < (x->kv_head + 1) * s->group; head++) {
        const int64_t first = s->a->causal ? x->block / s->queries * s->queries : 0;
        for (int64_t query = first; query < s->a->t; query += s->queries) {
            look_ahead(f, x, head, query, next);
            read_tile(f, x, head, query);
            step_over(f, x, head, query, true);
            if (!f->apart)
                write_dq(f, x, head, query, x->block > 0);
        }
    }
    write_block(f, x);
}

static void backward_unit(void *ctx, int64_t unit)
{
    const Backward *f = ctx;
    const AttentionShape *s = &f->s;
    Scratch x;
    lay_out(&x, s);
    x.b = unit / f->parts;
    const int64_t from = unit % f->parts * f->heads;
    const int64_t to = int_min(s->a->kv_heads, from + f->heads);
    for (x.kv_head = from; x.kv_head < to; x.kv_head++)
        for (x.block = 0; x.block < s->a->s; x.block += s->keys)
            backward_block(f, &x,
                           x.block + s->keys >= s->a->s && x.kv_head + 1 < to ? x.kv_head + 1 : -1);
}

static void backward_unit_of_keys(void *ctx, int64_t unit)
{
    const Backward *f = ctx;
    const int64_t head = unit / f->blocks, kv_heads = f->s.a->kv_heads;
    Scratch x;
    lay_out(&x, &f->s);
    x.b = head / kv_heads;
    x.kv_head = head % kv_heads;
    x.block = unit % f->blocks * f->s.keys;
    backward_block(f, &x, -1);
}

static void backward_unit_of_queries(void *ctx, int64_t unit)
{
    const Backward *f = ctx;
    const AttentionShape *s = &f->s;
    const int64_t head = unit / s->tiles % s->a->heads;
    const int64_t query = (s->tiles - 1 - unit % s->tiles) * s->queries;
    Scratch x;
    lay_out(&x, s);
    x.ahead = (Ahead){.parts = 0};
    x.b = unit / s->tiles / s->a->heads;
    x.kv_head = head / s->group;
    read_tile(f, &x, head, query);
    const int64_t end = s->a->causal ? int_min(s->a->s, query + s->queries) : s->a->s;
    for (x.block = 0; x.block < end; x.block += s->keys) {
        read_block(f, &x);
        step_over(f, &x, head, query, false);
    }
    write_dq(f, &x, head, query, false);
}

void attention_backward_of(Team *team, TileFormat format, void *dq, void *dk, void *dv,
                           const void *dout, const void *q, const void *k, const void *v,
                           const void *o, const real *lse, const Attention *a)
{
    if (a->B <= 0 || a->t <= 0 || a->s <= 0)
        return;
    Backward f = {.s = attention_shape(team, a, format), .dq = dq, .dk = dk, .dv = dv};
    f.dout = dout;
    f.q = q;
    f.k = k;
    f.v = v;
    f.o = o;
    f.lse = lse;
    if (a->width > ATTENTION_WIDEST) {
        attention_backward_wide(&f.s, dq, dk, dv, dout, q, k, v, o, lse);
        return;
    }
    plan(&f);
    if (!f.apart) {
        team_run(team, a->B * f.parts, backward_unit, &f);
        return;
    }
    team_run(team, a->B * a->kv_heads * f.blocks, backward_unit_of_keys, &f);
    team_run(team, a->B * a->heads * f.s.tiles, backward_unit_of_queries, &f);
}
