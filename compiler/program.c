/* program.c - small questions about a Program, and its text form.
 *
 * The schedule's text is the compute actions as torch.distributed.pipelining writes them,
 * one line per device: 0F0,1F0,0B0 with the stage (chunk), the action and the micro-batch. */
#include "program.h"

#include <string.h>

#include "schedule_file.h"

const char *run_name(RunKind kind)
{
    static const char *const names[RUN_KINDS] = {"F", "E", "B", "I", "W"};
    return names[kind];
}

const char *buffer_class_name(BufferClass c)
{
    static const char *const names[BUFFER_CLASSES] = {"weights", "gradients", "optimizer", "kept",
                                                      "scratch", "kernels",   "host"};
    return names[c];
}

const char *recompute_kind_name(RecomputeKind k)
{
    static const char *const names[] = {
        [RECOMPUTE_NONE] = "none", [RECOMPUTE_FULL] = "full", [RECOMPUTE_AUTO] = "auto"};
    return names[k];
}

const char *schedule_kind_name(ScheduleKind k)
{
    static const char *const names[] = {"1f1b",  "gpipe", "interleaved", "zero_bubble",
                                        "zb_h2", "zb_v",  "searched"};
    return names[k];
}

const char *program_schedule_name(Arena *a, const Program *p)
{
    const Parallel *s = &p->model->settings.parallel;
    const char *name = schedule_kind_name(s->schedule);
    return s->file ? arena_printf(a, "from %s", s->file->name)
           : s->searched && s->schedule != SCHEDULE_SEARCHED ? arena_printf(a, "%s, searched", name)
                                                             : name;
}

bool schedule_splits(ScheduleKind k)
{
    return k == SCHEDULE_ZERO_BUBBLE || k == SCHEDULE_ZB_H2 || k == SCHEDULE_ZB_V ||
           k == SCHEDULE_SEARCHED;
}

bool program_clips(const Program *p)
{
    const Train *t = &p->model->settings.train;
    return t->clip_norm > 0 || t->precision == PRECISION_F16;
}

bool device_rounds(const Device *d)
{
    for (int i = 0; i < d->weights.n; i++)
        if (d->weights.at[i].half != NONE)
            return true;
    return false;
}

int program_first_call(const Program *p, int chunk, RunKind kind)
{
    const Device *d = &p->devices.at[p->chunks.at[chunk].device];
    int n = 0;
    for (int i = 0; d->chunks.at[i] != chunk; i++)
        n += p->chunks.at[d->chunks.at[i]].run[kind].calls.n;
    return n;
}

int64_t value_rows(const Program *p, ValueId v)
{
    return p->graph->values.at[v].batched ? p->microbatch : 1;
}

int dtype_size(const Program *p, Dtype t)
{
    return t == DT_U8 ? 1 : dtype_is_half(t) ? 2 : t == DT_I32 ? 4 : p->real_size;
}

int64_t value_bytes(const Program *p, ValueId v)
{
    const Value *x = &p->graph->values.at[v];
    return shape_count(&x->shape) * value_rows(p, v) * dtype_size(p, x->type);
}

int64_t buffer_address(const Buffer *b, int m, int i)
{
    return b->offset + ((int64_t)(m % b->slots) * b->ring + i % b->ring) * b->stride;
}

int64_t buffer_bytes(const Buffer *b)
{
    return b->stride * b->ring * b->slots;
}

void ref_resolve(const Device *d, const Ref *r, int i, int *buffer, int *member)
{
    *buffer = r->buffer;
    *member = r->by_turn ? i + r->at : r->at;
    if (r->buffer == NONE || r->entry == NONE)
        return;
    if (*member < 0 || *member >= d->buffers.at[r->buffer].count) {
        *buffer = r->entry;
        *member = r->entry_at;
    }
}

int program_streams(const Program *p)
{
    bool copies = false;
    for (int d = 0; d < p->devices.n; d++)
        copies = copies || p->devices.at[d].offloads.n > 0;
    return copies ? STREAMS : STREAM_TRANSFER + 1;
}

OffloadSlots offload_slots(const Device *d, int chunk)
{
    OffloadSlots s = {0};
    for (int i = 0; i < d->offloads.n; i++) {
        const Offload *o = &d->offloads.at[i];
        if (o->chunk != chunk)
            continue;
        const int out = d->buffers.at[o->buffer].slots, host = d->buffers.at[o->host].slots,
                  back = d->buffers.at[o->back].slots;
        s.out = s.out == 0 || out < s.out ? out : s.out;
        s.host = s.host == 0 || host < s.host ? host : s.host;
        s.back = s.back == 0 || back < s.back ? back : s.back;
    }
    return s;
}

OffloadMoves offload_moves(const Device *d, int chunk)
{
    OffloadMoves m = {0};
    for (int i = 0; i < d->offloads.n; i++) {
        const Buffer *b = &d->buffers.at[d->offloads.at[i].buffer];
        if (d->offloads.at[i].chunk != chunk)
            continue;
        m.copies += b->size < b->stride ? b->ring : 1;
        m.bytes += b->size * b->ring;
    }
    return m;
}

/* -------------------------------------------------------------------------- text */

static void dump_ref(const Program *p, const Device *d, const Ref *r, FILE *to)
{
    if (r->buffer == NONE) {
        if (r->value != NONE && p->graph->values.at[r->value].kind == VALUE_CONST)
            fprintf(to, "%g", p->graph->values.at[r->value].number);
        else
            fputc('-', to);
        return;
    }
    const Buffer *b = &d->buffers.at[r->buffer];
    const char *sort = b->class == BUFFER_WEIGHT ? "w."
                       : b->class == BUFFER_GRAD ? "g."
                       : b->gradient             ? "d."
                                                 : "";
    fprintf(to, "%s%s", sort, b->name);
    if (r->by_turn)
        fprintf(to, r->at ? "[i%+d]" : "[i]", r->at);
    else if (b->count > 1)
        fprintf(to, "[%d]", r->at);
    if (r->entry != NONE) {
        const Buffer *e = &d->buffers.at[r->entry];
        fprintf(to, "|%s", e->name);
        if (e->count > 1)
            fprintf(to, "[%d]", r->entry_at);
    }
}

static void dump_call(const Program *p, const Device *d, const Call *c, int indent, FILE *to)
{
    fprintf(to, "%*s", indent, "");
    for (int i = 0; i < c->nout; i++) {
        fputs(i ? ", " : "", to);
        dump_ref(p, d, &c->out[i], to);
    }
    switch (c->kind) {
    case CALL_LOAD:
        fprintf(to, " = load %s\n", p->graph->inputs.at[c->input].name);
        return;
    case CALL_LOSS:
        fputs("report loss ", to);
        break;
    case CALL_METRIC:
        fprintf(to, "report %s ", p->graph->metrics.at[c->input].name);
        break;
    case CALL_OP:
        fprintf(to, " = %s ", op_name(p->graph->ops.at[c->op].kind));
        break;
    }
    for (int i = 0; i < c->nin; i++) {
        fputs(i ? ", " : "", to);
        dump_ref(p, d, &c->in[i], to);
    }
    fputc('\n', to);
}

static void dump_run(const Program *p, const Device *d, const Run *run, FILE *to)
{
    for (int s = 0; s < run->steps.n; s++) {
        const Step *step = &run->steps.at[s];
        if (step->turns > 1 && step->down)
            fprintf(to, "    for i = %d .. 0  (%s)\n", step->turns - 1, step->name);
        else if (step->turns > 1)
            fprintf(to, "    for i = 0 .. %d  (%s)\n", step->turns - 1, step->name);
        for (int i = 0; i < step->ncalls; i++)
            dump_call(p, d, &run->calls.at[step->first + i], step->turns > 1 ? 8 : 4, to);
    }
}

static void dump_actions(const Program *p, const char *name, const ActionList *list, FILE *to)
{
    static const char *const names[] = {[ACT_ROUND] = "ROUND",
                                        [ACT_REDUCE] = "REDUCE",
                                        [ACT_CLIP] = "CLIP",
                                        [ACT_UPDATE] = "UPDATE",
                                        [ACT_JOIN] = "JOIN",
                                        [ACT_ALL_REDUCE] = "ALL_REDUCE",
                                        [ACT_REDUCE_SCATTER] = "REDUCE_SCATTER",
                                        [ACT_ALL_GATHER] = "ALL_GATHER",
                                        [ACT_COPY_OUT] = "COPY_OUT",
                                        [ACT_COPY_IN] = "COPY_IN"};
    fprintf(to, "  %s:", name);
    for (int i = 0; i < list->actions.n; i++) {
        const Action *a = &list->actions.at[i];
        fputs(i ? "," : " ", to);
        if (a->kind == ACT_RUN)
            fprintf(to, "%d%s%d", a->chunk, run_name(a->run), a->m);
        else if (a->kind == ACT_SEND)
            fprintf(to, "SEND%d.%d>%d%s", a->link, a->m, p->links.at[a->link].to,
                    a->after_post ? "!" : "");
        else if (a->kind == ACT_RECV)
            fprintf(to, "RECV%d.%d<%d", a->link, a->m, p->links.at[a->link].from);
        else if (action_copies(a))
            fprintf(to, "%s%d.%d", names[a->kind], a->chunk, a->m);
        else
            fputs(names[a->kind], to);
        for (int w = 0; w < a->nwaits; w++)
            fprintf(to, "%s%d", w ? "+" : "@", list->waits.at[a->first_wait + w]);
    }
    fputc('\n', to);
}

void program_dump(const Program *p, FILE *to)
{
    fprintf(to, "program %s: %d micro-batches of %lld\n", p->model->name, p->microbatches,
            (long long)p->microbatch);
    for (int l = 0; l < p->links.n; l++) {
        const Link *k = &p->links.at[l];
        fprintf(to, "link %d: %s %d -> %d, %lld bytes\n", l, k->name, k->from, k->to,
                (long long)k->bytes);
    }
    for (int i = 0; i < p->devices.n; i++) {
        const Device *d = &p->devices.at[i];
        fprintf(to, "device %d %s: %lld bytes\n", i, d->name, (long long)d->bytes);
        for (int b = 0; b < d->buffers.n; b++) {
            const Buffer *x = &d->buffers.at[b];
            fprintf(to, "  %-9s %s%s at %lld, %lld bytes, ring %d of %d, slots %d\n",
                    buffer_class_name(x->class), x->gradient ? "d." : "", x->name,
                    (long long)x->offset, (long long)x->size, x->ring, x->count, x->slots);
        }
        for (int c = 0; c < d->chunks.n; c++)
            for (int k = 0; k < RUN_KINDS; k++) {
                const Chunk *chunk = &p->chunks.at[d->chunks.at[c]];
                if (!chunk->has[k])
                    continue;
                fprintf(to, "  %d%s\n", chunk->number, run_name((RunKind)k));
                dump_run(p, d, &chunk->run[k], to);
            }
        dump_actions(p, "train", &d->train, to);
        dump_actions(p, "eval", &d->eval, to);
    }
}

bool program_for_gpus(Program *p, Diag *d)
{
    if (p->real_size != 4) {
        diag_error(d, p->model->settings.train.at,
                   "precision f64, which checks gradients, is the host target's alone");
        diag_help(d, "build with --target host, or leave precision to f32");
        return false;
    }
    p->transfer = p->model->settings.parallel.nccl ? TRANSFER_NCCL : TRANSFER_PEER;
    return true;
}
