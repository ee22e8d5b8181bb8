/* cost_gpu_launch.c - what the launchers of kernels/cuda/ launch and move, but for images: the
 * choices of product.cu, norm.cu, rownorm.cuh, groupnorm.cu, softmax.cu, random.cu, loss.cu,
 * reduce.cu, copy.cu, embedding.cu and optim.cu, which depend on shapes alone.
 *
 * Most make one pass over their operands. What is added here: passes that are repeated, partial
 * results that go through scratch, and launches that are cut because scratch or an index is too
 * small for all at once. */
#include "cost_gpu_launch.h"

#include <limits.h>

void tally_kernels(Tally *t, int64_t launches, double bytes)
{
    t->work->kernels += launches * t->times;
    t->work->moved += bytes * (double)t->times;
}

void tally_copies(Tally *t, int64_t copies, double bytes)
{
    t->work->copies += copies * t->times;
    t->work->moved += bytes * (double)t->times;
}

static void add_gemm(Arena *a, GpuGemms *all, GpuGemm g)
{
    for (int i = 0; i < all->n; i++) {
        GpuGemm *x = &all->at[i];
        if (x->op == g.op && x->by == g.by && x->m == g.m && x->n == g.n && x->k == g.k &&
            x->batch == g.batch) {
            x->calls += g.calls;
            return;
        }
    }
    VEC_PUSH(a, all, g);
}

void tally_gemm(Tally *t, GemmBy by, int64_t m, int64_t n, int64_t k, int64_t batch)
{
    add_gemm(t->arena, &t->work->gemms, (GpuGemm){t->op, by, m, n, k, batch, t->times});
    if (by != GEMM_KERNEL)
        t->work->products += t->times;
}

void cost_gpu_add(Arena *a, GpuWork *to, const GpuWork *from)
{
    to->kernels += from->kernels;
    to->products += from->products;
    to->copies += from->copies;
    to->moved += from->moved;
    to->least += from->least;
    for (int i = 0; i < from->gemms.n; i++)
        add_gemm(a, &to->gemms, from->gemms.at[i]);
}

/* -------------------------------------------------------------- matrix products */

/* C[m,n] = A B of one of cuBLAS's batches, whose operands may be the same for all of it. */
static void tally_multiply(Tally *t, int64_t m, int64_t n, int64_t k, int64_t batch, bool same_a,
                           bool same_b, bool accumulate)
{
    double a = (double)m * (double)k * (double)(same_a ? 1 : batch);
    double b = (double)k * (double)n * (double)(same_b ? 1 : batch);
    double c = (double)m * (double)n * (double)batch * (accumulate ? 2 : 1);
    tally_gemm(t, GEMM_CUBLAS, m, n, k, batch);
    tally_kernels(t, 0, t->in * (a + b) + t->out * c);
}

void tally_product(Tally *t, int64_t m, int64_t n, int64_t k, bool accumulate)
{
    tally_multiply(t, m, n, k, 1, false, false, accumulate);
}

enum { LT_MOST = 65535 * 32 /* product.cu */ };

void tally_linear(Tally *t, int64_t rows, int64_t n, int64_t k, bool bias)
{
    if (!bias) {
        tally_product(t, rows, n, k, false);
        return;
    }
    if (t->in == GPU_HALF) /* rounds the bias */
        tally_kernels(t, 1, (GPU_FLOAT + GPU_HALF) * (double)n);
    if (rows >= LT_MOST || n >= LT_MOST || k >= LT_MOST) { /* the bias goes first */
        tally_kernels(t, 1, t->out * ((double)n + (double)rows * (double)n));
        tally_product(t, rows, n, k, true);
        return;
    }
    double read = (double)rows * (double)k + (double)k * (double)n;
    tally_gemm(t, GEMM_CUBLASLT, rows, n, k, 1);
    tally_kernels(t, 0, t->in * read + t->out * ((double)n + (double)rows * (double)n));
}

typedef struct {
    int rank;
    int64_t count;
    int64_t dim[MAX_RANK + 1], a[MAX_RANK + 1], b[MAX_RANK + 1], c[MAX_RANK + 1];
} Dims;

static void dims_add(Dims *d, int64_t dim, int64_t a, int64_t b, int64_t c)
{
    int last = d->rank - 1;
    d->count *= dim;
    if (dim == 1)
        return;
    if (last >= 0 && d->a[last] == a * dim && d->b[last] == b * dim && d->c[last] == c * dim)
        dim *= d->dim[last];
    else
        d->rank++;
    int i = d->rank - 1;
    d->dim[i] = dim, d->a[i] = a, d->b[i] = b, d->c[i] = c;
}

static void dims_remove(Dims *d, int at)
{
    d->count /= d->dim[at];
    d->rank--;
    for (int i = at; i < d->rank; i++) {
        d->dim[i] = d->dim[i + 1];
        d->a[i] = d->a[i + 1], d->b[i] = d->b[i + 1], d->c[i] = d->c[i + 1];
    }
}

/* Sums that are added up in scratch and rounded, some of the batch or some rows at a time; close:
 * the results of the batch lie side by side. */
static void tally_rounded_sums(Tally *t, int64_t m, int64_t n, int64_t k, int64_t batch,
                               bool same_a, bool same_b, int64_t sums, bool close)
{
    const int64_t rows = m * n <= GPU_ROOM ? m : GPU_ROOM / n;
    const int64_t some = m * n <= GPU_ROOM ? GPU_ROOM / (m * n) : 1;
    Pieces counts[2], heights[2];
    if (rows == 0)
        return;
    cut_pieces(batch, some, counts);
    cut_pieces(m, rows, heights);
    for (int c = 0; c < 2; c++)
        for (int h = 0; h < 2; h++) {
            Tally first = *t, others;
            first.out = GPU_FLOAT;
            first.times *= counts[c].count * heights[h].count;
            if (first.times == 0)
                continue;
            const int64_t size = counts[c].size, height = heights[h].size;
            others = first;
            others.times *= sums - 1;
            tally_multiply(&first, height, n, k, size, same_a, same_b, false);
            tally_multiply(&others, height, n, k, size, same_a, same_b, true);
            tally_kernels(&first, close && height == m ? 1 : size,
                          (GPU_FLOAT + GPU_HALF) * (double)size * (double)height * (double)n);
        }
}

/* Dimensions become rows of A, or longer sums, or cuBLAS's batch; the host loops over the rest. */
void tally_matmul(Tally *t, bool ta, bool tb, int64_t m, int64_t n, int64_t k,
                  const ProductBatch *batch, bool accumulate)
{
    Dims kept = {.count = 1}, summed = {.count = 1};
    for (int d = 0; d < batch->rank; d++)
        dims_add(batch->c[d] != 0 ? &kept : &summed, batch->dim[d], batch->a[d], batch->b[d],
                 batch->c[d]);
    for (int i = kept.rank - 1; i >= 0 && !ta; i--)
        if (kept.a[i] == m * k && kept.b[i] == 0 && kept.c[i] == m * n &&
            m * kept.dim[i] <= INT_MAX) {
            m *= kept.dim[i];
            dims_remove(&kept, i);
        }
    while (summed.rank > 0 && ta && !tb && summed.a[summed.rank - 1] == k * m &&
           summed.b[summed.rank - 1] == k * n && k * summed.dim[summed.rank - 1] <= INT_MAX) {
        k *= summed.dim[summed.rank - 1];
        dims_remove(&summed, summed.rank - 1);
    }
    int longest = -1;
    for (int i = 0; i < kept.rank; i++)
        if (kept.dim[i] <= INT_MAX && (longest < 0 || kept.dim[i] >= kept.dim[longest]))
            longest = i;
    int64_t count = 1;
    bool same_a = false, same_b = false, close = true;
    if (longest >= 0) {
        count = kept.dim[longest];
        close = kept.c[longest] == m * n;
        same_a = kept.a[longest] == 0, same_b = kept.b[longest] == 0;
        dims_remove(&kept, longest);
    }
    Tally first = *t, others;
    first.times *= kept.count;
    if (t->out == GPU_HALF && summed.count > 1) {
        tally_rounded_sums(&first, m, n, k, count, same_a, same_b, summed.count, close);
        return;
    }
    others = first;
    tally_multiply(&first, m, n, k, count, same_a, same_b, accumulate);
    others.times = first.times * (summed.count - 1);
    if (others.times > 0)
        tally_multiply(&others, m, n, k, count, same_a, same_b, true);
}

/* --------------------------------------------------------------- normalisation */

enum { WARP = 32, PIECE_WARPS = 8, MOST_PARTS = 512, NORM_BLOCK = 256, NORM_ROWS = 16 };
enum { PART_SUMS = 8 /* bytes that a piece of a row leaves in scratch */ };

void tally_norm(Tally *t, int64_t rows, int64_t n, bool vector, double again, double once)
{
    int64_t kept = vector ? 32 : 8, longest = vector ? 32 * WARP * kept / 2 : 8 * WARP * kept;
    if (n <= longest) {
        tally_kernels(t, 1, once);
        return;
    }
    int64_t pieces = ceil_div(n, PIECE_WARPS * WARP * kept);
    int64_t most = GPU_KERNEL_SCRATCH / PART_SUMS / pieces;
    if (most == 0)
        return;
    double sums = 2 * PART_SUMS * (double)rows * (double)pieces;
    tally_kernels(t, 2 * ceil_div(rows, most), once + again + sums);
}

void tally_norm_dw(Tally *t, int64_t rows, int64_t n, bool bias, double once)
{
    int64_t each = n % 4 == 0 ? 4 : 1, width = 1;
    while (width < WARP && width * each < n)
        width *= 2;
    int64_t fit = least_of(MOST_PARTS, GPU_ROOM / 2 / n);
    int64_t wanted = ceil_div(rows, NORM_ROWS * NORM_BLOCK / width);
    int64_t part = most_of(1, ceil_div(rows, most_of(1, least_of(fit, wanted))));
    int64_t parts = most_of(1, ceil_div(rows, part));
    double sums = 2 * GPU_FLOAT * (double)parts * (double)n * (bias ? 2 : 1);
    tally_kernels(t, parts > 1 ? 2 : 1, parts > 1 ? once + sums : once);
}

void tally_groupnorm_dw(Tally *t, int64_t samples, int64_t channels, double once)
{
    int64_t most = GPU_ROOM / 2 / most_of(1, samples);
    double sums = 2 * 2 * GPU_FLOAT * (double)samples * (double)channels;
    if (most > 0)
        tally_kernels(t, 2 * ceil_div(channels, most), once + sums);
}

/* ---------------------------------------------------------------- rows of tensors */

void tally_softmax(Tally *t, int64_t n, double again, double once)
{
    int64_t kept = n % 4 == 0 ? 32 : 8;
    tally_kernels(t, 1, n > 8 * WARP * kept ? once + again : once);
}

void tally_dropout(Tally *t, int64_t samples, int64_t n, double once)
{
    enum { LANES = 16, ELEMENTS = 64 };
    int64_t vector = t->in == GPU_HALF ? 8 : 4;
    int64_t most =
        GPU_INDEX_MOST / (ceil_div(n, ELEMENTS) * LANES / (n % vector == 0 ? vector : 1));
    if (most > 0)
        tally_kernels(t, ceil_div(samples, most), once);
}

void tally_row_means(Tally *t, int64_t samples, int64_t inner, double once)
{
    if (inner == 1) {
        tally_kernels(t, 1, once);
        return;
    }
    int64_t piece = least_of(inner, GPU_ROOM), several = GPU_ROOM / piece;
    int64_t pieces = ceil_div(inner, piece);
    double values = 2 * GPU_FLOAT * (double)samples * (double)inner;
    double again = 2 * GPU_FLOAT * (double)samples * (double)(pieces - 1);
    tally_kernels(t, 2 * ceil_div(samples, several) * pieces, once + values + again);
}

void tally_embedding_dw(Tally *t, int64_t rows, int64_t count, int64_t n, bool accumulate)
{
    enum { TILE = 4096, PART = 1 << 16, KEY = 8, ID = 4 };
    if (!accumulate)
        tally_kernels(t, 1, GPU_FLOAT * (double)count * (double)n);
    Pieces cut[2];
    cut_pieces(rows, PART, cut);
    for (int i = 0; i < 2; i++) {
        Tally part = *t;
        part.times *= cut[i].count;
        double now = (double)cut[i].size, sums = (double)least_of(cut[i].size, count) * (double)n;
        tally_kernels(&part, 1, now * (ID + KEY));
        if (cut[i].size > TILE)
            tally_kernels(&part, 1, now * 2 * KEY);
        tally_kernels(&part, 1, now * KEY + GPU_FLOAT * (now * (double)n + 2 * sums));
    }
}

/* -------------------------------------------------------------------- reductions */

enum { REDUCE_SHORT = 2048, CHUNK = 16384, MOST_CHUNKS = 4096, MOST_TILES = 512 };
enum { FEW = 32, REDUCE_ROWS = 16, REDUCE_BLOCK = 256 };

/* Outputs and elements of a reduction, apart from the last dimension, which is one or the other. */
typedef struct {
    int64_t kept, reduced, run;
    bool across; /* the last dimension is kept */
} Reduction;

static Reduction plan_reduction(int rank, const int64_t *dim, unsigned mask)
{
    Reduction r = {.kept = 1, .reduced = 1, .run = 1, .across = true};
    int d = rank - 1;
    while (d >= 0 && dim[d] == 1)
        d--;
    bool last = d >= 0 && (mask >> d & 1) != 0;
    r.across = !last;
    for (bool in_run = true; d >= 0; d--) {
        bool cut = (mask >> d & 1) != 0;
        in_run = in_run && (cut == last || dim[d] == 1);
        *(in_run ? &r.run : cut ? &r.reduced : &r.kept) *= dim[d];
    }
    return r;
}

void tally_reduce(Tally *t, int rank, const int64_t *dim, unsigned mask, double once)
{
    Reduction r = plan_reduction(rank, dim, mask);
    int64_t parts = 1, launches = 1, outs = r.kept * (r.across ? r.run : 1);
    int64_t vector = t->in == GPU_HALF ? 8 : 4;
    if (r.across && r.reduced > FEW) {
        int64_t width = 1, columns = r.run % vector == 0 ? r.run / vector : r.run;
        while (width < columns && width < WARP)
            width *= 2;
        int64_t tiles = ceil_div(r.reduced, REDUCE_ROWS * REDUCE_BLOCK / width);
        parts = most_of(1, least_of(tiles, least_of(MOST_TILES, GPU_ROOM / r.run)));
        parts = ceil_div(r.reduced, ceil_div(r.reduced, parts));
        if (parts > 1)
            launches = 2 * ceil_div(r.kept, GPU_ROOM / (parts * r.run));
    } else if (!r.across && r.reduced * r.run > REDUCE_SHORT) {
        int64_t all = r.reduced * r.run;
        parts =
            ceil_div(all, most_of(CHUNK, ceil_div(ceil_div(all, MOST_CHUNKS), vector) * vector));
        launches = parts > 1 ? 2 : 1;
    }
    double sums = parts > 1 ? 2 * GPU_FLOAT * (double)outs * (double)parts : 0;
    tally_kernels(t, launches, once + sums);
}

/* ------------------------------------------------------------------------- moves */

enum { COPY_LAUNCH = 256 * 4 /* elements of a block of copy.cu */, VECTOR = 16 };

/* From the last dimension to the first. */
typedef struct {
    int rank, size;
    int64_t dim[MAX_RANK + 1], ys[MAX_RANK + 1], xs[MAX_RANK + 1];
} Copy;

static Copy plan_copy(int rank, const int64_t *dim, const int64_t *ys, const int64_t *xs, int size)
{
    Copy c = {.size = size};
    for (int d = rank - 1; d >= 0; d--) {
        int i = c.rank - 1;
        if (dim[d] == 1)
            continue;
        if (i >= 0 && ys[d] == c.ys[i] * c.dim[i] && xs[d] == c.xs[i] * c.dim[i]) {
            c.dim[i] *= dim[d];
            continue;
        }
        i = c.rank++;
        c.dim[i] = dim[d], c.ys[i] = ys[d], c.xs[i] = xs[d];
    }
    if (c.rank == 0) {
        c.rank = 1;
        c.dim[0] = c.ys[0] = c.xs[0] = 1;
    }
    return c;
}

/* Joins elements two by two; `at`: the offsets in bytes of both sides, or'ed. */
static void widen_copy(Copy *c, int64_t at)
{
    while (c->ys[0] == 1 && c->xs[0] == 1 && c->size < VECTOR) {
        bool even = c->dim[0] % 2 == 0 && at % (2 * c->size) == 0;
        for (int d = 1; d < c->rank; d++)
            even = even && c->ys[d] % 2 == 0 && c->xs[d] % 2 == 0;
        if (!even)
            return;
        c->size *= 2;
        c->dim[0] /= 2;
        for (int d = 1; d < c->rank; d++)
            c->ys[d] /= 2, c->xs[d] /= 2;
    }
}

/* Halved along its longest dimension until indices fit. */
static int64_t copy_launches(Copy c)
{
    int64_t count = 1;
    int longest = 0;
    for (int d = 0; d < c.rank; d++) {
        count *= c.dim[d];
        longest = c.dim[d] > c.dim[longest] ? d : longest;
    }
    if (count <= GPU_INDEX_MOST - COPY_LAUNCH)
        return 1;
    Copy low = c, high = c;
    low.dim[longest] = c.dim[longest] / 2;
    high.dim[longest] -= low.dim[longest];
    return low.dim[longest] == high.dim[longest] ? 2 * copy_launches(low)
                                                 : copy_launches(low) + copy_launches(high);
}

void tally_copy(Tally *t, int rank, const int64_t *dim, const int64_t *ys, const int64_t *xs,
                int64_t to, int64_t from, int size)
{
    Copy c = plan_copy(rank, dim, ys, xs, size);
    double written = size, read = size;
    for (int d = 0; d < c.rank; d++) {
        written *= (double)c.dim[d];
        read *= c.xs[d] ? (double)c.dim[d] : 1;
    }
    if (c.rank == 1 && c.ys[0] == 1 && c.xs[0] == 1) {
        tally_copies(t, 1, written + read);
        return;
    }
    widen_copy(&c, (to | from) * size);
    tally_kernels(t, copy_launches(c), written + read);
}

/* -------------------------------------------------------------------- optimizers */

enum { TILES_MOST = 2048, TILE_LEAST = 4096 }; /* of a weight */
enum { TABLE_WEIGHTS = 70, TABLE_SUMS = 336 }; /* of a launch */

void tally_update_weight(UpdateTally *u, int64_t n, double once)
{
    int64_t tile = most_of(TILE_LEAST, ceil_div(ceil_div(n, TILES_MOST), TILE_LEAST) * TILE_LEAST);
    int64_t tiles = most_of(1, ceil_div(n, tile));
    if (u->sums + u->tiles + tiles > GPU_KERNEL_SCRATCH / GPU_SQUARES || u->several == TABLE_SUMS) {
        tally_update_end(u);
    } else if (u->count == TABLE_WEIGHTS) {
        tally_kernels(&u->t, 1, 0);
        u->sums += u->tiles;
        u->tiles = u->count = 0;
    }
    bool sum = tiles > 1 && !u->rounds;
    u->several += sum;
    u->count++;
    u->tiles += tiles;
    tally_kernels(&u->t, 0, sum ? once + 2.0 * GPU_SQUARES * (double)tiles : once);
}

void tally_update_end(UpdateTally *u)
{
    tally_kernels(&u->t, (u->count > 0) + (u->several > 0), 0);
    u->count = u->several = u->tiles = u->sums = 0;
}
