/* schedule_zero.c - ZB-V: two chunks on each device in the form of a V.
 *
 * After Qi et al. 2024 ("Pipeline Parallelism with Controllable Memory" and "Zero Bubble Pipeline
 * Parallelism"). The data goes down through the devices and back up, so that the device with the
 * first layers has the last ones, too, and turns the data round by itself. With F = I = W
 * nobody waits between a device's first and last run, and no device holds more than one that
 * 1F1B's first holds. Device d of D:
 *
 *     2 (D - d) - 1 forwards of its first chunk
 *     d     times   F of the second, F of the first
 *     D - d times   F, I, W of the second
 *     then          F, I, W of the first, F, I, W of the second, as long as there are F
 *     at the end    I of both chunks in turn d times; I of the first with its W; what W is left
 */
#include "schedule.h"

bool schedule_is_v(const Program *p)
{
    const int D = p->devices.n, C = p->chunks.n;
    if (C != 2 * D)
        return false;
    for (int c = 0; c < C; c++)
        if (p->chunks.at[c].device != (c < D ? c : C - 1 - c) || back_of(&p->chunks.at[c]) == NONE)
            return false;
    return true;
}

/* The next runs of each kind of a device's two chunks. */
typedef struct {
    const Program *p;
    SlotList *list;
    int chunk[2];
    int f[2], b[2], w[2];
} Device2;

static void forward(Device2 *x, int k)
{
    if (x->f[k] < x->p->microbatches)
        schedule_push(x->p, x->list, RUN_F, x->chunk[k], x->f[k]);
    x->f[k]++;
}

static void inward(Device2 *x, int k)
{
    const RunKind back = (RunKind)back_of(&x->p->chunks.at[x->chunk[k]]);
    if (x->b[k] < x->p->microbatches)
        schedule_push(x->p, x->list, back, x->chunk[k], x->b[k]);
    x->b[k]++;
}

static void weights(Device2 *x, int k)
{
    if (x->w[k] < x->p->microbatches && is_split(&x->p->chunks.at[x->chunk[k]]))
        schedule_push(x->p, x->list, RUN_W, x->chunk[k], x->w[k]);
    x->w[k]++;
}

static void fill(Device2 *x, int d)
{
    const int D = x->p->devices.n;
    /* the form needs 2 D - 1 micro-batches; those that are not there are left out */
    const int M = x->p->microbatches > 2 * D - 1 ? x->p->microbatches : 2 * D - 1;
    for (int i = 0; i < 2 * (D - d) - 1; i++)
        forward(x, 0);
    for (int i = 0; i < d; i++) {
        forward(x, 1);
        forward(x, 0);
    }
    for (int i = 0; i < D - d; i++) {
        forward(x, 1);
        inward(x, 1);
        weights(x, 1);
    }
    while (x->f[1] < x->f[0] || x->f[0] < M) {
        if (x->f[0] < M)
            forward(x, 0);
        inward(x, 0);
        weights(x, 0);
        forward(x, 1);
        inward(x, 1);
        weights(x, 1);
    }
    for (int i = 0; i < d; i++) {
        inward(x, 0);
        inward(x, 1);
    }
    for (int i = 0; i < D - d; i++) {
        inward(x, 0);
        weights(x, 0);
    }
    while (x->w[1] < x->b[1])
        weights(x, 1);
    while (x->w[0] < x->b[0])
        weights(x, 0);
}

void schedule_v(const Program *p, SlotList *lists)
{
    for (int d = 0; d < p->devices.n; d++) {
        Device2 x = {.p = p, .list = &lists[d], .chunk = {d, 2 * p->devices.n - 1 - d}};
        fill(&x, d);
    }
}
