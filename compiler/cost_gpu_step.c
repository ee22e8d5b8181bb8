/* cost_gpu_step.c - what a step makes a GPU do: all calls of its runs, and its weights.
 *
 * In:  the Program: the list of a step's actions on a device.
 * Out: sums of launches, products and bytes. */
#include "cost_gpu_launch.h"

static void add_run(Arena *a, const Program *p, const Device *d, const Run *run, bool first,
                    int64_t times, GpuWork *to)
{
    for (int i = 0; times > 0 && i < run->steps.n; i++) {
        const Step *s = &run->steps.at[i];
        for (int n = s->first; n < s->first + s->ncalls; n++)
            tally_call(a, p, d, &run->calls.at[n], first, times * s->turns, to);
    }
}

/* Bytes of each element of a weight, and of each weight, in what an action does with all. */
static void update_bytes(ActionKind kind, const WeightRun *r, double *element, double *weight)
{
    *weight = kind == ACT_CLIP || kind == ACT_UPDATE ? GPU_SQUARES : 0;
    *element = kind == ACT_ROUND  ? GPU_FLOAT + 2
               : kind == ACT_CLIP ? GPU_FLOAT
               : kind == ACT_REDUCE
                   ? GPU_FLOAT * 3
                   : GPU_FLOAT * (3 + 2 * r->nstates); /* g, w and w; states, too */
}

/* Copies, the sums of the gradients of a weight's uses, sums of squares, the optimizer. */
static void add_update(const Program *p, const Device *d, ActionKind kind, const Tally *t)
{
    UpdateTally all = {.t = *t, .rounds = kind == ACT_ROUND};
    for (int i = 0; i < d->weights.n; i++) {
        const WeightRun *r = &d->weights.at[i];
        const int64_t n = shape_count(&p->graph->weights.at[r->weight].shape);
        if (kind == ACT_ROUND ? r->half == NONE : r->ngrads == 0)
            continue;
        double element, weight;
        update_bytes(kind, r, &element, &weight);
        const double once = element * (double)n + weight;
        const int64_t times = kind == ACT_REDUCE ? r->ngrads - 1 : 1;
        for (int64_t k = 0; k < r->count * times; k++) {
            if (kind == ACT_REDUCE)
                tally_kernels(&all.t, 1, once);
            else
                tally_update_weight(&all, n, once);
        }
        t->work->least += once * (double)(r->count * times);
    }
    tally_update_end(&all);
}

static void add_offloads(const Device *d, int chunk, const Tally *t)
{
    Tally all = *t;
    const OffloadMoves m = offload_moves(d, chunk);
    tally_copies(&all, m.copies, (double)m.bytes);
    all.work->least += (double)m.bytes;
}

GpuWork cost_gpu_device(Arena *a, const Program *p, int device)
{
    const Device *d = &p->devices.at[device];
    const ActionList *list = &d->train;
    GpuWork work = {.copies = p->graph->weights.n > 0}; /* the squares of all gradients */
    int *runs = ARENA_ARRAY(a, int, p->chunks.n *RUN_KINDS * 2);
    for (int i = 0; i < list->actions.n; i++) {
        const Action *x = &list->actions.at[i];
        Tally t = {a, &work, OP_NONE, 1, GPU_FLOAT, GPU_FLOAT};
        if (x->kind == ACT_RUN)
            runs[(x->chunk * RUN_KINDS + (int)x->run) * 2 + (x->m > 0)]++;
        else if (x->kind == ACT_ROUND || x->kind == ACT_REDUCE || x->kind == ACT_CLIP ||
                 x->kind == ACT_UPDATE)
            add_update(p, d, x->kind, &t);
        else if (action_copies(x))
            add_offloads(d, x->chunk, &t);
        work.copies += x->kind == ACT_CLIP; /* the squares, before the update */
    }
    for (int i = 0; i < p->chunks.n * RUN_KINDS; i++) {
        const Run *run = &p->chunks.at[i / RUN_KINDS].run[i % RUN_KINDS];
        add_run(a, p, d, run, true, runs[2 * i], &work);
        add_run(a, p, d, run, false, runs[2 * i + 1], &work);
    }
    return work;
}

int64_t cost_gpu_bytes(double bytes)
{
    return bytes < 9e18 ? (int64_t)bytes : INT64_MAX;
}

double cost_gpu_gemm_flops(const GpuGemm *g)
{
    return 2.0 * (double)g->m * (double)g->n * (double)g->k * (double)g->batch * (double)g->calls;
}

const char *cost_gpu_gemm_by(GemmBy by)
{
    static const char *const names[] = {"cuBLAS", "cuBLASLt", "kernel"};
    return names[by];
}
