/* attention_forward.c - attention, in tiles of queries that walk over blocks of keys.
 *
 * In: q, k, v. Out: o, lse. FlashAttention-2: every query keeps the largest score so far, the sum
 * of the weights relative to it, and the sum of weighted values; a block of keys with a larger
 * score scales both sums down. A run of tiles of one key/value head shares the blocks of keys as
 * operands:
 *
 *     for every block of keys:  copy k and v
 *         for every tile of queries that sees some of them:
 *             scores = k q;  softmax so far;  o (+)= v weights
 *     o / sum;  lse
 *
 * A unit of work is a run or, where there are many heads of one run each, several heads in a row:
 * rows of what comes next are fetched from memory while products are computed.
 */
#include "attention_shape.h"
#include "vmath.h"

enum {
    RUN = 8,   /* tiles of a run at most */
    UNITS = 16 /* at least, before several heads make one */
};

typedef struct {
    AttentionShape s;
    void *o;
    real *lse;
    const void *q, *k, *v;
    int64_t run, runs;    /* tiles of a run, runs of a key/value head */
    int64_t heads, parts; /* key/value heads of a unit, units of a sample and run */
} Forward;

/* The scratch of a unit. Of every tile: */
typedef struct {
    real *turned, *sums; /* queries [width][queries], o [width][queries] */
    real *most, *total;  /* largest score, sum of weights */
    int64_t head, query, rows, vectors, keys;
} QueryTile;

typedef struct {
    int64_t b, kv_head, first, tiles; /* the run at work */
    Ahead ahead;
    real *keys, *values; /* operands of a block: along, across */
    real *scores, *weights, *rows;
    real *fading; /* what earlier sums are multiplied with, of each query */
    QueryTile tile[RUN];
} Scratch;

static int64_t words_of_tile(const AttentionShape *s)
{
    return (s->row + s->wide + 2) * s->queries;
}

static int64_t words_of_block(const AttentionShape *s)
{
    return 2 * s->keys * s->row + 2 * s->keys * s->queries +
           int_max(s->keys, s->queries) * s->wide + s->queries;
}

static void plan(Forward *f)
{
    AttentionShape *s = &f->s;
    const int64_t most = TEAM_SCRATCH / (int64_t)sizeof(real);
    for (;; s->vectors /= 2) {
        s->queries = s->vectors * VL;
        s->keys = s->queries;
        if (s->vectors == TILE_VECTORS_LEAST || words_of_block(s) + words_of_tile(s) <= most)
            break;
    }
    s->tiles = int_ceil_div(s->a->t, s->queries);
    f->run = int_min(s->group * s->tiles, (most - words_of_block(s)) / words_of_tile(s));
    f->run = int_max(1, int_min(RUN, f->run));
    f->runs = int_ceil_div(s->group * s->tiles, f->run);
    f->heads =
        f->runs > 1 ? 1 : int_max(1, int_min(s->a->kv_heads, s->a->B * s->a->kv_heads / UNITS));
    f->parts = int_ceil_div(s->a->kv_heads, f->heads);
}

static void lay_out(Scratch *x, const Forward *f, int64_t tiles)
{
    const AttentionShape *s = &f->s;
    real *next = team_scratch(s->team);
    x->keys = next;
    x->values = x->keys + s->keys * s->row;
    x->scores = x->values + s->keys * s->row;
    x->weights = x->scores + s->keys * s->queries;
    x->rows = x->weights + s->keys * s->queries;
    x->fading = x->rows + int_max(s->keys, s->queries) * s->wide;
    next = x->fading + s->queries;
    for (int64_t i = 0; i < tiles; i++) {
        QueryTile *tile = &x->tile[i];
        tile->turned = next;
        tile->sums = tile->turned + s->row * s->queries;
        tile->most = tile->sums + s->wide * s->queries;
        tile->total = tile->most + s->queries;
        next = tile->total + s->queries;
    }
}

/* The largest score of vector v of a tile's queries, so far. */
VEC_INLINE Vec largest(const AttentionShape *s, const AttentionStep *step, const real *scores,
                       Vec most, int64_t v)
{
    const int64_t ld = s->queries, whole = step->whole[v];
    Vec part[4] = {most, most, most, most};
    int64_t i = 0;
    for (; i + 4 <= whole; i += 4)
        for (int k = 0; k < 4; k++)
            part[k] = tile_max(part[k], vec_load(scores + (i + k) * ld));
    most = tile_max(tile_max(part[0], part[1]), tile_max(part[2], part[3]));
    for (; i < int_min(step->rows[v], step->valid); i++) {
        const VecInt hidden = attention_hidden(s, step, v, i);
        most = vec_choose(hidden, most, tile_max(most, vec_load(scores + i * ld)));
    }
    return most;
}

/* Weights of TILE_SIDE keys for vector v of a tile's queries; `edge`: some may be hidden. Returns
 * their sum. */
VEC_INLINE Vec weigh_keys(const bool pairs, const bool edge, const AttentionShape *s,
                          const AttentionStep *step, const Scratch *x, Vec shift, int64_t key,
                          int64_t v)
{
    const int64_t ld = s->queries;
    const real *scores = x->scores + key * ld + v * VL;
    const Vec scale = vec_all(s->scale_log2);
    Vec weight[TILE_SIDE];
    TILE_EACH weight[k] = vec_load(scores + k * ld) * scale - shift;
    tile_exp2(weight);
    if (edge)
        TILE_EACH weight[k] =
            vec_choose(attention_hidden(s, step, v, key + k), (Vec){0}, weight[k]);
#if TILE_PAIRS
    if (pairs) {
        real *to = x->weights + key / 2 * ld + v * VL;
        vec_store(to, tile_pair_lanes(tile_round_rows(weight[0], weight[1])));
        vec_store(to + ld, tile_pair_lanes(tile_round_rows(weight[2], weight[3])));
    }
#endif
    if (!pairs)
        TILE_EACH vec_store(x->weights + (key + k) * ld + v * VL, weight[k]);
    return (weight[0] + weight[1]) + (weight[2] + weight[3]);
}

/* Weights of vector v of a tile's queries from their scores. */
VEC_INLINE void weigh_vector(const bool pairs, const AttentionShape *s, const AttentionStep *step,
                             const Scratch *x, const QueryTile *tile, int64_t v)
{
    const Vec before = vec_load(tile->most + v * VL), scale = vec_all(s->scale_log2);
    const Vec most = largest(s, step, x->scores + v * VL, before, v), shift = most * scale;
    Vec fading[TILE_SIDE] = {before * scale - shift};
    tile_exp2(fading);
    Vec total = vec_load(tile->total + v * VL) * fading[0];
    int64_t key = 0;
    for (; key + TILE_SIDE <= step->whole[v]; key += TILE_SIDE)
        total += weigh_keys(pairs, false, s, step, x, shift, key, v);
    for (; key < step->rows[v]; key += TILE_SIDE)
        total += weigh_keys(pairs, true, s, step, x, shift, key, v);
    vec_store(tile->most + v * VL, most);
    vec_store(tile->total + v * VL, total);
    vec_store(x->fading + v * VL, fading[0]);
}

static void weigh(const AttentionShape *s, const AttentionStep *step, const Scratch *x,
                  const QueryTile *tile)
{
    for (int64_t v = 0; v < step->vectors; v++)
        if (s->pairs)
            weigh_vector(true, s, step, x, tile, v);
        else
            weigh_vector(false, s, step, x, tile, v);
}

/* Row 0 of a head in each tensor. */
static const void *head_of_q(const Forward *f, int64_t b, int64_t head)
{
    const Attention *a = f->s.a;
    return attention_at(&f->s, f->q, b * a->t * a->ldq + head * a->width);
}

static const void *head_of_k(const Forward *f, int64_t b, int64_t kv_head)
{
    const Attention *a = f->s.a;
    return attention_at(&f->s, f->k, b * a->s * a->ldk + kv_head * a->width);
}

static const void *head_of_v(const Forward *f, int64_t b, int64_t kv_head)
{
    const Attention *a = f->s.a;
    return attention_at(&f->s, f->v, b * a->s * a->ldv + kv_head * a->width);
}

static void *head_of_o(const Forward *f, int64_t b, int64_t head)
{
    const Attention *a = f->s.a;
    return attention_at(&f->s, f->o, (b * a->t * a->heads + head) * a->width);
}

static void begin_tile(const Forward *f, const Scratch *x, QueryTile *tile)
{
    const AttentionShape *s = &f->s;
    attention_read(s, x->rows, head_of_q(f, x->b, tile->head), s->a->ldq, tile->query, tile->rows,
                   s->queries);
    tile_turn(tile->turned, s->queries, x->rows, s->row, s->queries, s->row);
    for (int64_t i = 0; i < s->queries; i++) {
        tile->most[i] = -(real)INFINITY;
        tile->total[i] = 0;
    }
}

static void end_tile(const Forward *f, const Scratch *x, const QueryTile *tile)
{
    const AttentionShape *s = &f->s;
    const Attention *a = s->a;
    real *lse = f->lse + (x->b * a->heads + tile->head) * a->t + tile->query;
    for (int64_t v = 0; v < tile->vectors; v++) {
        const Vec share = 1 / vec_load(tile->total + v * VL);
        for (int64_t i = 0; i < a->width; i++) {
            real *sum = tile->sums + i * s->queries + v * VL;
            vec_store(sum, vec_load(sum) * share);
        }
    }
    for (int64_t i = 0; i < tile->rows; i++)
        lse[i] = tile->most[i] * (real)s->scale + mdl_log(tile->total[i]);
    tile_turn(x->rows, s->wide, tile->sums, s->queries, int_round_up(a->width, VL),
              tile->vectors * VL);
    const int64_t ldo = a->heads * a->width;
    tile_write_rows(s->format, attention_at(s, head_of_o(f, x->b, tile->head), tile->query * ldo),
                    ldo, x->rows, s->wide, tile->rows, a->width, 1, false);
}

/* The block of keys from `key` on as operands. */
static void read_block(const Forward *f, Scratch *x, int64_t key)
{
    const AttentionShape *s = &f->s;
    const int64_t n = int_min(s->keys, s->a->s - key), rows = int_round_up(n, TILE_ROWS);
    attention_read(s, x->keys, head_of_k(f, x->b, x->kv_head), s->a->ldk, key, n, rows);
    attention_read(s, s->pairs ? x->rows : x->values, head_of_v(f, x->b, x->kv_head), s->a->ldv,
                   key, n, rows);
    if (s->pairs)
        tile_pair_rows(x->values, x->rows, s->row, rows, s->row);
}

/* What will be needed after the block of keys from `key` on, and by its tiles: `last` is the end
 * of the run's keys, `next` the key/value head after this one or -1. */
static void look_ahead(const Forward *f, Scratch *x, int64_t key, int64_t last, int64_t next)
{
    const AttentionShape *s = &f->s;
    const Attention *a = s->a;
    int64_t active = 0;
    for (int64_t i = 0; i < x->tiles; i++)
        active += key < x->tile[i].keys;
    x->ahead = (Ahead){.parts = 0};
    for (int64_t i = 0; i < x->tiles; i++)
        if (key < x->tile[i].keys && key + s->keys >= x->tile[i].keys && x->ahead.parts < 4)
            attention_ahead(s, &x->ahead, head_of_o(f, x->b, x->tile[i].head), a->heads * a->width,
                            x->tile[i].query, x->tile[i].rows);
    const QueryTile *first = &x->tile[0];
    if (key == 0 && x->tiles > 1 && x->tile[x->tiles - 1].head == first->head)
        attention_ahead(
            s, &x->ahead, head_of_q(f, x->b, first->head), a->ldq, first->query + s->queries,
            x->tile[x->tiles - 1].query + x->tile[x->tiles - 1].rows - first->query - s->queries);
    const bool within = key + s->keys < last;
    if (within || next >= 0) {
        const int64_t kv_head = within ? x->kv_head : next, from = within ? key + s->keys : 0;
        const int64_t rows = int_min(s->keys, a->s - from);
        if (!within)
            attention_ahead(s, &x->ahead, head_of_q(f, x->b, next * s->group), a->ldq, 0,
                            int_min(s->queries, a->t));
        attention_ahead(s, &x->ahead, head_of_k(f, x->b, kv_head), a->ldk, from, rows);
        attention_ahead(s, &x->ahead, head_of_v(f, x->b, kv_head), a->ldv, from, rows);
    }
    attention_ahead_over(s, &x->ahead, active, 1, 1);
}

static void step_over(const Forward *f, Scratch *x, QueryTile *tile, int64_t key)
{
    const AttentionShape *s = &f->s;
    if (key == 0)
        begin_tile(f, x, tile);
    const AttentionStep step = attention_step(s, tile->query, key, s->keys);
    attention_scores(s, &step, x->scores, x->keys, tile->turned, &x->ahead);
    weigh(s, &step, x, tile);
    attention_gather(s, &step, tile->sums, x->values, x->weights, key > 0, x->fading, &x->ahead);
    if (key + s->keys >= tile->keys)
        end_tile(f, x, tile);
}

static void forward_run(const Forward *f, Scratch *x, int64_t next)
{
    const AttentionShape *s = &f->s;
    int64_t keys = 0;
    for (int64_t i = 0; i < x->tiles; i++) {
        QueryTile *tile = &x->tile[i];
        tile->head = x->kv_head * s->group + (x->first + i) / s->tiles;
        tile->query = (x->first + i) % s->tiles * s->queries;
        tile->rows = int_min(s->queries, s->a->t - tile->query);
        tile->vectors = int_ceil_div(tile->rows, VL);
        tile->keys = s->a->causal ? int_min(s->a->s, tile->query + tile->rows) : s->a->s;
        keys = int_max(keys, tile->keys);
    }
    for (int64_t key = 0; key < keys; key += s->keys) {
        look_ahead(f, x, key, keys, next);
        read_block(f, x, key);
        for (int64_t i = 0; i < x->tiles; i++)
            if (key < x->tile[i].keys)
                step_over(f, x, &x->tile[i], key);
    }
}

static void forward_unit(void *ctx, int64_t unit)
{
    const Forward *f = ctx;
    const AttentionShape *s = &f->s;
    Scratch x;
    x.b = unit / f->runs / f->parts;
    /* the last run first: where causal it is the longest */
    x.first = (f->runs - 1 - unit % f->runs) * f->run;
    x.tiles = int_min(f->run, s->group * s->tiles - x.first);
    lay_out(&x, f, x.tiles);
    const int64_t from = unit / f->runs % f->parts * f->heads;
    const int64_t to = int_min(s->a->kv_heads, from + f->heads);
    for (x.kv_head = from; x.kv_head < to; x.kv_head++)
        forward_run(f, &x, x.kv_head + 1 < to ? x.kv_head + 1 : -1);
}

void attention_forward_of(Team *team, TileFormat format, void *o, real *lse, const void *q,
                          const void *k, const void *v, const Attention *a)
{
    if (a->B <= 0 || a->t <= 0)
        return;
    Forward f = {.s = attention_shape(team, a, format), .o = o, .lse = lse};
    f.q = q;
    f.k = k;
    f.v = v;
    if (a->width > ATTENTION_WIDEST) {
        attention_forward_wide(&f.s, o, lse, q, k, v);
        return;
    }
    plan(&f);
    team_run(team, a->B * f.parts * f.runs, forward_unit, &f);
}
