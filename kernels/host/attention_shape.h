/* attention_shape.h - how one call of attention is cut into tiles, and the steps on a tile that
 * forward and backward share. Everything here depends on the shapes alone.
 */
#ifndef MDL_ATTENTION_SHAPE_H
#define MDL_ATTENTION_SHAPE_H

#include "attention_tile.h"

/* Vectors of queries in a tile: at most, and at least so that it is whole TILE_ROWS. */
enum { TILE_VECTORS = 4, TILE_VECTORS_LEAST = (TILE_ROWS + VL - 1) / VL };

typedef struct {
    const Attention *a;
    Team *team;
    TileFormat format;
    bool pairs;       /* operands are pairs of bf16 */
    int64_t per_word; /* elements in a word of an operand: 1, or 2 of pairs */
    int64_t group;    /* query heads to a key/value head */
    int64_t inner;    /* words summed over a head's width */
    int64_t row;      /* words from one row of an operand to the next */
    int64_t wide;     /* the width filled up to whole vectors and words */
    int64_t vectors;  /* of queries in a tile, */
    int64_t queries;  /* which are so many, */
    int64_t tiles;    /* and tiles of a head */
    int64_t keys;     /* in a block of keys, a multiple of `queries` */
    double scale;     /* of scores */
    real scale_log2;  /* and to make them powers of 2 */
} AttentionShape;

/* What of a step [keys][queries] is computed: rows for each vector of queries, whole TILE_ROWS;
 * from `whole` on some lanes are masked; from `valid` on rows are filled with zeros. */
typedef struct {
    int64_t query, key; /* the first ones */
    int64_t vectors;    /* of queries: those after the last query are left out */
    int64_t rows[TILE_VECTORS], whole[TILE_VECTORS];
    int64_t valid, filled;
} AttentionStep;

AttentionShape attention_shape(Team *team, const Attention *a, TileFormat format);

/* The step of `keys` keys from `key` on and the tile of queries from `query` on. */
AttentionStep attention_step(const AttentionShape *s, int64_t query, int64_t key, int64_t keys);

/* Adds rows of a tensor's head to what is fetched ahead; x: row 0 of the head, ld its stride. */
void attention_ahead(const AttentionShape *s, Ahead *ahead, const void *x, int64_t ld, int64_t from,
                     int64_t rows);
/* Spreads it over the products of `steps` steps, of which at least one is on the diagonal where
 * causal; `scores` and `gathers` are those of a step. */
void attention_ahead_over(const AttentionShape *s, Ahead *ahead, int64_t steps, int64_t scores,
                          int64_t gathers);

/* Rows [from, from + n) of a tensor's head as an operand summed along its rows, filled up with
 * zeros to `rows` rows. `x` is the head's first row of the sample, ld its stride in elements. */
void attention_read(const AttentionShape *s, real *along, const void *x, int64_t ld, int64_t from,
                    int64_t n, int64_t rows);

/* scores[keys][queries] = keys . queries: `along` of keys, `turned` of queries */
void attention_scores(const AttentionShape *s, const AttentionStep *step, real *scores,
                      const real *along, const real *turned, Ahead *ahead);
/* out[width][queries] = sum over keys of across(key, .) weights[key][query] + (add ? out : 0),
 * which is multiplied with fading[queries] before, unless that is NULL */
void attention_gather(const AttentionShape *s, const AttentionStep *step, real *out,
                      const real *across, const real *weights, bool add, const real *fading,
                      Ahead *ahead);
/* out[keys][width] (+)= sum over queries of weights[key][query] across(query, .) */
void attention_spread(const AttentionShape *s, const AttentionStep *step, real *out,
                      const real *across, const real *weights, bool add, Ahead *ahead);

/* The address of element i of a tensor. */
static inline void *attention_at(const AttentionShape *s, const void *x, int64_t i)
{
    return (char *)(uintptr_t)x + i * tile_element_bytes(s->format);
}

static inline int64_t int_round_up(int64_t n, int64_t unit)
{
    return int_ceil_div(n, unit) * unit;
}

/* All ones in the lanes of vector v whose query must not see key `row` of the step. */
VEC_INLINE VecInt attention_hidden(const AttentionShape *s, const AttentionStep *step, int64_t v,
                                   int64_t row)
{
    VecInt lane;
    for (int i = 0; i < VL; i++)
        lane[i] = (LaneInt)i;
    int64_t hidden = s->a->causal ? step->key + row - step->query - v * VL : 0;
    hidden = row >= step->valid ? VL : hidden;
    return lane < (LaneInt)hidden;
}

/* Wider heads do not fit a thread's scratch as tiles. */
enum { ATTENTION_WIDEST = 1536 };
void attention_forward_wide(const AttentionShape *s, void *o, real *lse, const void *q,
                            const void *k, const void *v);
void attention_backward_wide(const AttentionShape *s, void *dq, void *dk, void *dv,
                             const void *dout, const void *q, const void *k, const void *v,
                             const void *o, const real *lse);

void attention_forward_of(Team *team, TileFormat format, void *o, real *lse, const void *q,
                          const void *k, const void *v, const Attention *a);
void attention_backward_of(Team *team, TileFormat format, void *dq, void *dk, void *dv,
                           const void *dout, const void *q, const void *k, const void *v,
                           const void *o, const real *lse, const Attention *a);

#endif
