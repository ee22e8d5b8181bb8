/* embedding.c - rows of a table by number. The gradient cuts columns into tiles: each
 * tile adds the rows in order, so equal numbers are summed the same way every time.
 */
#include <string.h>

#include "vec.h"

enum { GRAIN = 1 << 14, COLUMNS = 128 };

typedef struct {
    real *out;
    const real *in;
    const int32_t *ids;
    int64_t rows, n;
} Embedding;

static void gather_rows(void *ctx, int64_t from, int64_t to)
{
    const Embedding *e = ctx;
    for (int64_t r = from; r < to; r++)
        memcpy(e->out + r * e->n, e->in + e->ids[r] * e->n, (size_t)e->n * sizeof(real));
}

void embedding_forward(Team *team, real *y, const int32_t *ids, const real *w, int64_t rows,
                       int64_t n)
{
    Embedding e = {y, w, ids, rows, n};
    team_range(team, rows, int_max(1, GRAIN / int_max(1, n)), gather_rows, &e);
}

static void add_columns(void *ctx, int64_t from, int64_t to)
{
    const Embedding *e = ctx;
    for (int64_t r = 0; r < e->rows; r++) {
        real *restrict dw = e->out + e->ids[r] * e->n;
        const real *restrict dy = e->in + r * e->n;
        for (int64_t i = from; i < to; i++)
            dw[i] += dy[i];
    }
}

void embedding_backward_weight(Team *team, real *dw, const real *dy, const int32_t *ids,
                               int64_t rows, int64_t count, int64_t n, bool accumulate)
{
    if (!accumulate)
        fill(team, dw, 0, count * n);
    Embedding e = {dw, dy, ids, rows, n};
    team_range(team, n, COLUMNS, add_columns, &e);
}
