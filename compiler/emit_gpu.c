/* emit_gpu.c - what a stage for a GPU has besides a stage for the host: events between its
 * streams, and its messages as calls of CUDA or NCCL.
 *
 * In:  the lists of actions with the waits that are needed (order.h).
 * Out: one event for every kind of action that something on the other stream waits for, as many
 *      in turn as can be waited for at one time; and for each link one function:
 *
 *     peer   post_x_from_0   the buffer is free: says so to the sender
 *            send_x_to_1     copies to the peer's buffer
 *            take_x_from_0   the compute stream waits for the copy
 *     nccl   receive_x_from_0, send_x_to_1 */
#include <string.h>

#include "emit.h"

/* ---------------------------------------------------------------------- events */

/* A number for the kind of an action: runs of one phase, messages of one link, others. */
int emit_event_key(const Action *a)
{
    enum { KINDS = 16 };
    int id = a->kind == ACT_RUN                           ? a->chunk * RUN_KINDS + (int)a->run
             : action_copies(a)                           ? a->chunk
             : a->kind == ACT_SEND || a->kind == ACT_RECV ? a->link
                                                          : 0;
    return id * KINDS + (int)a->kind;
}

static const char *event_name(Emit *e, const Action *a)
{
    switch (a->kind) {
    case ACT_RUN:
        return arena_printf(e->arena, "e_%s", emit_run_function(e, a->run, a->chunk));
    case ACT_SEND:
        return arena_printf(e->arena, "e_%s", emit_link_function(e, "sent", a->link));
    case ACT_RECV:
        return arena_printf(e->arena, "e_%s", emit_link_function(e, "received", a->link));
    case ACT_COPY_OUT:
    case ACT_COPY_IN:
        return arena_printf(e->arena, "e_%s",
                            emit_copy_function(e, a->kind == ACT_COPY_IN, a->chunk));
    case ACT_ROUND:
        return "e_round_weights";
    case ACT_REDUCE:
        return "e_reduce_tied";
    default:
        return "e_update";
    }
}

static bool by_event(const Emit *e, const Action *on)
{
    return on->kind != ACT_RECV || e->p->transfer == TRANSFER_NCCL;
}

static EventKind *find_event(Emit *e, const Action *on)
{
    int key = emit_event_key(on);
    for (int i = 0; i < e->events.n; i++)
        if (e->events.at[i].key == key)
            return &e->events.at[i];
    EventKind new = {key, 0, 1, event_name(e, on)};
    VEC_PUSH(e->arena, &e->events, new);
    return &e->events.at[e->events.n - 1];
}

/* Actions of one kind that come between an action and who waits for it use other events. */
static void count_events(Emit *e, const ActionList *list)
{
    for (int i = 0; i < list->actions.n; i++) {
        const Action *a = &list->actions.at[i];
        for (int k = 0; k < a->nwaits; k++) {
            int at = list->waits.at[a->first_wait + k];
            const Action *on = &list->actions.at[at];
            if (!by_event(e, on))
                continue;
            EventKind *kind = find_event(e, on);
            for (int j = at + 1; j < i; j++) {
                const Action *x = &list->actions.at[j];
                if (emit_event_key(x) == kind->key && x->m - on->m + 1 > kind->slots)
                    kind->slots = x->m - on->m + 1;
            }
        }
    }
}

void emit_find_events(Emit *e)
{
    count_events(e, &e->d->train);
    count_events(e, &e->d->eval);
    for (int i = 0; i < e->events.n; i++) {
        e->events.at[i].first = e->nevents;
        e->nevents += e->events.at[i].slots;
    }
}

void emit_events(Emit *e)
{
    if (e->events.n == 0)
        return;
    emit_line(e, "/* What orders the streams. m: micro-batch. */");
    for (int i = 0; i < e->events.n; i++) {
        const EventKind *k = &e->events.at[i];
        if (k->slots > 1)
            emit_line(e, "#define %s(s, m) ((s)->event[%d + (m) %% %d])", k->name, k->first,
                      k->slots);
        else
            emit_line(e, "#define %s(s) ((s)->event[%d])", k->name, k->first);
    }
    emit_blank(e);
}

const char *emit_event(Emit *e, int key, const char *m)
{
    for (int i = 0; i < e->events.n; i++) {
        const EventKind *k = &e->events.at[i];
        if (k->key == key)
            return k->slots > 1 ? arena_printf(e->arena, "%s(s, %s)", k->name, m)
                                : arena_printf(e->arena, "%s(s)", k->name);
    }
    return "unknown";
}

/* -------------------------------------------------------------------- messages */

static const char *message_buffer(Emit *e, const Ref *r)
{
    if (e->d->buffers.at[r->buffer].slots > 1)
        e->used_m = true;
    return emit_buffer_member(e, r->buffer, "m", arena_printf(e->arena, "%d", r->at));
}

/* The link and its tensor, for people. */
static void comment(Emit *e, const Link *l)
{
    const char *grad =
        l->kind == LINK_GRADIENT || l->kind == LINK_WEIGHT_GRADIENT ? "gradient of " : "";
    bool in = l->to == e->stage;
    emit_line(
        e, "/* %s */",
        emit_comment_text(e->arena, arena_printf(e->arena, "%s%s %s %s %s", grad, l->name,
                                                 emit_shape(e, l->value), in ? "from" : "to",
                                                 e->p->devices.at[in ? l->from : l->to].name)));
}

static void open_function(Emit *e, const char *verb, int link)
{
    emit_open(e, "static int %s(Stage *s, int m)", emit_link_function(e, verb, link));
}

/* Closes the function; `m` may be a parameter that it has no use for. */
static void close_function(Emit *e)
{
    emit_line(e, "return MDL_OK;");
    emit_close(e);
    emit_blank(e);
}

static const char *nccl_type(Dtype t)
{
    switch (t) {
    case DT_I32:
        return "ncclInt32";
    case DT_U8:
        return "ncclUint8";
    case DT_BF16:
        return "ncclBfloat16";
    case DT_F16:
        return "ncclHalf";
    default:
        return "ncclFloat";
    }
}

static void print_nccl(Emit *e, int link)
{
    const Link *l = &e->p->links.at[link];
    bool in = l->to == e->stage;
    const Value *v = &e->p->graph->values.at[l->value];
    int64_t count = shape_count(&v->shape) * value_rows(e->p, l->value);
    comment(e, l);
    open_function(e, in ? "receive" : "send", link);
    e->used_m = false;
    const char *buffer = message_buffer(e, in ? &l->target : &l->source);
    if (!e->used_m)
        emit_line(e, "(void)m;");
    emit_call(e, in ? "ncclRecv" : "ncclSend");
    emit_arg(e, "%s", buffer);
    emit_arg(e, "%lld", (long long)count);
    emit_arg(e, "%s", nccl_type(v->type));
    emit_arg(e, "%d", in ? l->from : l->to);
    emit_arg(e, "s->nccl");
    emit_arg(e, "s->transfer");
    emit_end(e, "NCCL(", ");");
    close_function(e);
}

/* "if (m >= 2) " before what is done from micro-batch `from` on. */
static void emit_from(Emit *e, int from, const char *line)
{
    if (from > 0) {
        emit_line(e, "if (m >= %d)", from);
        e->indent++;
    }
    emit_line(e, "%s", line);
    if (from > 0)
        e->indent--;
}

static void print_peer_send(Emit *e, int link)
{
    const Link *l = &e->p->links.at[link];
    int M = e->p->microbatches;
    comment(e, l);
    open_function(e, "send", link);
    emit_line(e, "LinkSlot *to;");
    emit_line(e, "TRY(link_ready(s, %s, m, &to));", emit_link_name(e, link));
    if (l->post_from < M)
        emit_from(e, l->post_from, "CUDA(cudaStreamWaitEvent(s->transfer, to->posted, 0));");
    emit_call(e, "cudaMemcpyPeerAsync");
    emit_arg(e, "to->buffer");
    emit_arg(e, "to->device");
    emit_arg(e, "%s", message_buffer(e, &l->source));
    emit_arg(e, "s->gpu->device");
    emit_arg(e, "%lld", (long long)l->bytes);
    emit_arg(e, "s->transfer");
    emit_end(e, "CUDA(", ");");
    if (l->take_from < M)
        emit_line(e, "CUDA(cudaEventRecord(to->arrived, s->transfer));");
    emit_line(e, "return link_sent(s, %s, m);", emit_link_name(e, link));
    emit_close(e);
    emit_blank(e);
}

static void print_peer_receive(Emit *e, int link)
{
    const Link *l = &e->p->links.at[link];
    const char *name = emit_link_name(e, link);
    comment(e, l);
    open_function(e, "post", link);
    emit_call(e, "link_post");
    emit_arg(e, "s");
    emit_arg(e, "%s", name);
    emit_arg(e, "m");
    emit_arg(e, "%s", message_buffer(e, &l->target));
    emit_end(e, "return ", ";");
    emit_close(e);
    emit_blank(e);
    open_function(e, "take", link);
    emit_line(e, "LinkSlot *from;");
    emit_line(e, "TRY(link_arrived(s, %s, m, &from));", name);
    if (l->take_from < e->p->microbatches)
        emit_from(e, l->take_from, "CUDA(cudaStreamWaitEvent(s->compute, from->arrived, 0));");
    close_function(e);
}

void emit_link_functions(Emit *e)
{
    for (int l = 0; l < e->p->links.n; l++) {
        const Link *k = &e->p->links.at[l];
        if (k->from != e->stage && k->to != e->stage)
            continue;
        if (e->p->transfer == TRANSFER_NCCL)
            print_nccl(e, l);
        else if (k->from == e->stage)
            print_peer_send(e, l);
        else
            print_peer_receive(e, l);
    }
}

/* ----------------------------------------------------------------- description */

static bool has_dropout(const Program *p)
{
    for (int c = 0; c < p->chunks.n; c++)
        for (int k = 0; k < RUN_KINDS; k++) {
            const Run *run = &p->chunks.at[c].run[k];
            for (int n = 0; n < run->calls.n; n++)
                if (run->calls.at[n].kind == CALL_OP &&
                    p->graph->ops.at[run->calls.at[n].op].kind == OP_DROPOUT)
                    return true;
        }
    return false;
}

const char *emit_no_graph(const Program *p)
{
    if (has_dropout(p))
        return "dropout draws new numbers in every step";
    if (p->model->settings.train.precision == PRECISION_F16)
        return "the loss scale of f16 changes between steps";
    for (int d = 0; d < p->devices.n; d++)
        if (p->devices.at[d].offloads.n)
            return "what is offloaded is copied on streams of its own";
    if (p->transfer != TRANSFER_NCCL && p->links.n)
        return "messages go between peers; build with --set parallel.transfer=nccl";
    return NULL;
}

static bool loads(const Emit *e, int input)
{
    for (int i = 0; i < e->d->chunks.n; i++)
        for (int k = 0; k < RUN_KINDS; k++) {
            const Run *run = &e->p->chunks.at[e->d->chunks.at[i]].run[k];
            for (int n = 0; n < run->calls.n; n++)
                if (run->calls.at[n].kind == CALL_LOAD && run->calls.at[n].input == input)
                    return true;
        }
    return false;
}

void emit_gpu_description(Emit *e)
{
    emit_line(e, "    .gpu = %d,", e->d->number);
    emit_line(e, "    .events = %d,", e->nevents);
    emit_line(e, "    .squares = %lld,", (long long)e->d->squares);
    emit_line(e, "    .scratch = %lld,", (long long)e->d->kernel_scratch);
    emit_line(e, "    .workspace = %lld,", (long long)e->d->workspace);
    int n = e->p->graph->inputs.n;
    if (n == 0)
        return;
    Text t = {.arena = e->arena};
    for (int i = 0; i < n; i++)
        text_printf(&t, "%s%s", i ? ", " : "", loads(e, i) ? "true" : "false");
    emit_line(e, "    .loads = (const bool[]){%s},", t.at);
}
