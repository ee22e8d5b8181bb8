/* timeline.c - walks the actions of one training step in time.
 *
 * In:  the ordered actions of every device, with their waits; what runs and messages cost.
 * Out: start and end of every action; busy time; how the kept memory rises and falls.
 *
 * A list-driven simulation. A device has a head on each stream. A head that waits
 * for nothing more is executed; SEND and RECV meet: both begin when both are heads
 * and ready, and end together. A device is looked at again only when one of its actions
 * ended elsewhere, and every wait is checked once, so the work is proportional to the lists.
 *
 *     stream 0   F0 ──────► F1 ──────►        F waits for the RECV of its input,
 *     stream 1   RECV0 ► RECV1 ► SEND0 ►      SEND for the F that makes its value
 *
 * With measured times the host's messages are those of its one thread: timeline_links.c.
 */
#include "timeline.h"

#include <stdlib.h>

#include "cost.h"
#include "schedule.h"

/* The next action of one stream. */
typedef struct {
    int at;       /* number in the list; the list's length: none left */
    int waits;    /* of its waits, those found done */
    double ready; /* not before this */
    bool posted;  /* a transfer that stands waiting for its other side, or a CLIP */
} Head;

typedef struct {
    Head head[STREAMS];
    double free[STREAMS]; /* when the stream's last action ended */
    bool queued;
} Walker;

typedef struct {
    const Program *p;
    TimelineKind kind;
    Timeline *t;
    Walker *walkers; /* [devices] */
    int *queue;      /* of devices to look at; a ring with a place for each */
    int queue_first, queued;
    int clippers, clip_posted; /* devices whose lists hold a CLIP; those that stand at it */
    double clip_at;
} Sim;

static const ActionList *list_of(const Sim *s, int device)
{
    return &s->p->devices.at[device].train;
}

static void wake(Sim *s, int device)
{
    if (s->walkers[device].queued)
        return;
    s->walkers[device].queued = true;
    s->queue[(s->queue_first + s->queued++) % s->p->devices.n] = device;
}

static void find_head(const Sim *s, int device, int stream, int from)
{
    const ActionList *list = list_of(s, device);
    Walker *w = &s->walkers[device];
    while (from < list->actions.n && (int)action_stream(&list->actions.at[from]) != stream)
        from++;
    w->head[stream] = (Head){.at = from, .ready = w->free[stream]};
}

/* -------------------------------------------------------------------------- durations */

double timeline_transfer_seconds(const Program *p, const Link *link)
{
    return cost_transfer_seconds(&p->model->settings.devices, p->devices.at[link->from].number,
                                 p->devices.at[link->to].number, (double)link->bytes);
}

double timeline_weight_bytes(const Device *d, ActionKind kind)
{
    double grads = (double)d->class_bytes[BUFFER_GRAD], bytes = 0;
    if (kind == ACT_UPDATE)
        bytes = 2 * ((double)d->class_bytes[BUFFER_WEIGHT] + grads +
                     (double)d->class_bytes[BUFFER_STATE]);
    else if (kind == ACT_CLIP)
        bytes = grads;
    for (int i = 0; kind == ACT_ROUND && i < d->weights.n; i++)
        if (d->weights.at[i].half != NONE)
            bytes += (double)buffer_bytes(&d->buffers.at[d->weights.at[i].buffer]) +
                     (double)buffer_bytes(&d->buffers.at[d->weights.at[i].half]);
    for (int i = 0; kind == ACT_REDUCE && i < d->weights.n; i++)
        for (int k = 1; k < d->weights.at[i].ngrads; k++)
            bytes += 3 * (double)buffer_bytes(&d->buffers.at[d->weights.at[i].grad[k]]);
    return bytes;
}

static double weight_seconds(const Program *p, const Device *d, ActionKind kind)
{
    const Devices *devices = &p->model->settings.devices;
    const double bytes = timeline_weight_bytes(d, kind);
    const double rate = devices->work[kind == ACT_ROUND    ? WORK_ROUND
                                      : kind == ACT_REDUCE ? WORK_REDUCE
                                      : kind == ACT_CLIP   ? WORK_CLIP
                                                           : WORK_UPDATE];
    return rate > 0 ? bytes / rate : cost_seconds(devices, (Cost){bytes / 4, bytes});
}

int64_t timeline_copy_bytes(const Device *d, int chunk)
{
    int64_t bytes = 0;
    for (int i = 0; i < d->offloads.n; i++) {
        const Buffer *b = &d->buffers.at[d->offloads.at[i].buffer];
        bytes += d->offloads.at[i].chunk == chunk ? b->stride * b->ring : 0;
    }
    return bytes;
}

/* On a link of its own in each direction. */
static double copy_seconds(const Program *p, const Device *d, int chunk)
{
    const Devices *s = &p->model->settings.devices;
    return s->latency +
           (s->host_link > 0 ? (double)timeline_copy_bytes(d, chunk) / s->host_link : 0);
}

double timeline_action_seconds(const Program *p, int device, const Action *a)
{
    if (action_copies(a))
        return copy_seconds(p, &p->devices.at[device], a->chunk);
    if (a->kind == ACT_RUN)
        return p->chunks.at[a->chunk].seconds[a->run];
    if (a->kind == ACT_ROUND || a->kind == ACT_REDUCE || a->kind == ACT_CLIP ||
        a->kind == ACT_UPDATE)
        return weight_seconds(p, &p->devices.at[device], a->kind);
    return 0;
}

static double duration(const Sim *s, int device, const Action *a)
{
    static const double units[RUN_KINDS] = {[RUN_F] = 1, [RUN_B] = 2, [RUN_I] = 1, [RUN_W] = 1};
    if (s->kind != TIMELINE_SECONDS)
        return a->kind == ACT_RUN ? units[a->run] : 0;
    return timeline_action_seconds(s->p, device, a);
}

/* ------------------------------------------------------------------------- simulation */

/* Ends the head of a stream and finds the next. */
static void finish(Sim *s, int device, int stream, double start, double end)
{
    Walker *w = &s->walkers[device];
    s->t->devices[device].spans[w->head[stream].at] = (Span){start, end};
    w->free[stream] = end;
    if (end > s->t->step)
        s->t->step = end;
    find_head(s, device, stream, w->head[stream].at + 1);
}

/* The head has nothing more to wait for on its own device. */
static bool head_ready(const Sim *s, int device, int stream)
{
    const ActionList *list = list_of(s, device);
    const Span *spans = s->t->devices[device].spans;
    Head *h = &s->walkers[device].head[stream];
    const Action *a = &list->actions.at[h->at];
    for (; h->waits < a->nwaits; h->waits++) {
        Span on = spans[list->waits.at[a->first_wait + h->waits]];
        if (on.end < 0)
            return false;
        if (on.end > h->ready)
            h->ready = on.end;
    }
    return true;
}

/* A transfer whose other side stands ready as well takes place. */
static bool meet(Sim *s, int device, const Action *a)
{
    const Link *link = &s->p->links.at[a->link];
    int other = a->kind == ACT_SEND ? link->to : link->from;
    Head *mine = &s->walkers[device].head[1], *theirs = &s->walkers[other].head[1];
    mine->posted = true;
    if (other == device || !theirs->posted)
        return false;
    const Action *b = &list_of(s, other)->actions.at[theirs->at];
    if (b->kind == a->kind || b->link != a->link || b->m != a->m)
        return false;
    double start = mine->ready > theirs->ready ? mine->ready : theirs->ready;
    double seconds = s->kind != TIMELINE_SECONDS ? 0 : timeline_transfer_seconds(s->p, link);
    finish(s, device, 1, start, start + seconds);
    finish(s, other, 1, start, start + seconds);
    wake(s, other);
    return true;
}

/* All devices exchange their norms: none goes on before the last has come. */
static void clip(Sim *s, int device, double seconds)
{
    Head *h = &s->walkers[device].head[0];
    if (!h->posted) {
        h->posted = true;
        h->ready += seconds;
        s->t->devices[device].busy += seconds;
        s->t->devices[device].clipping = seconds;
        s->clip_posted++;
        if (h->ready > s->clip_at)
            s->clip_at = h->ready;
    }
    if (s->clip_posted < s->clippers)
        return;
    for (int d = 0; d < s->p->devices.n; d++) {
        Head *x = &s->walkers[d].head[0];
        if (!x->posted)
            continue;
        finish(s, d, 0, x->ready - s->t->devices[d].clipping, s->clip_at);
        wake(s, d);
    }
}

/* Executes what a device can; true when an action ended. */
static bool advance(Sim *s, int device, int stream)
{
    const ActionList *list = list_of(s, device);
    Head *h = &s->walkers[device].head[stream];
    if (h->at >= list->actions.n || !head_ready(s, device, stream))
        return false;
    const Action *a = &list->actions.at[h->at];
    if (stream == STREAM_TRANSFER)
        return meet(s, device, a);
    double seconds = duration(s, device, a);
    if (a->kind == ACT_CLIP) {
        int at = h->at;
        clip(s, device, seconds);
        return h->at != at;
    }
    if (stream == STREAM_COMPUTE)
        s->t->devices[device].busy += seconds;
    finish(s, device, stream, h->ready, h->ready + seconds);
    return true;
}

static void prepare(Sim *s, Arena *a)
{
    int n = s->p->devices.n;
    s->t->devices = ARENA_ARRAY(a, DeviceTime, n);
    s->walkers = ARENA_ARRAY(a, Walker, n);
    s->queue = ARENA_ARRAY(a, int, n);
    for (int d = 0; d < n; d++) {
        const ActionList *list = list_of(s, d);
        s->t->devices[d].spans = ARENA_ARRAY(a, Span, list->actions.n);
        for (int i = 0; i < list->actions.n; i++) {
            s->t->devices[d].spans[i] = (Span){-1, -1};
            s->clippers += list->actions.at[i].kind == ACT_CLIP;
        }
        for (int stream = 0; stream < STREAMS; stream++)
            find_head(s, d, stream, 0);
        wake(s, d);
    }
}

/* From the first to the last action of a device. Weights that are rounded at the beginning could as
 * well be rounded at the end of the step before. */
static double span_of(const Program *p, const Timeline *t, int device)
{
    const ActionList *list = &p->devices.at[device].train;
    const Span *spans = t->devices[device].spans;
    double first = -1, last = 0, rounding = 0;
    for (int i = 0; i < list->actions.n; i++) {
        if (list->actions.at[i].kind == ACT_ROUND) {
            rounding += spans[i].end - spans[i].start;
            continue;
        }
        if (list->actions.at[i].kind == ACT_JOIN)
            continue;
        if (spans[i].start < 0)
            continue;
        first = first < 0 || spans[i].start < first ? spans[i].start : first;
        last = spans[i].end > last ? spans[i].end : last;
    }
    return first < 0 ? rounding : last - first + rounding;
}

/* Executes the runs in their order, each when what it reads is made; messages are there at once,
 * whatever their order. */
static void walk_runs(Sim *s, Arena *a)
{
    const Program *p = s->p;
    const int M = p->microbatches, n = 2 * p->chunks.n * M;
    const SchedulePacer *pacer = schedule_pacer(a, p, true);
    double *done = ARENA_ARRAY(a, double, n);
    for (int i = 0; i < n; i++)
        done[i] = -1;
    for (bool moved = true; moved;) {
        moved = false;
        for (int d = 0; d < p->devices.n; d++) {
            Walker *w = &s->walkers[d];
            const ActionList *list = list_of(s, d);
            for (Head *h = &w->head[0]; h->at < list->actions.n; moved = true) {
                const Action *x = &list->actions.at[h->at];
                const Slot slot = {x->run, x->chunk, x->m};
                double at = w->free[0];
                if (x->kind == ACT_RUN) {
                    const double ready = schedule_may_begin(pacer, slot, done);
                    if (ready < 0)
                        break;
                    at = ready > at ? ready : at;
                }
                const double seconds = duration(s, d, x);
                if (x->kind == ACT_RUN && (x->run != RUN_W || !p->chunks.at[x->chunk].has[RUN_I]))
                    done[(2 * x->chunk + run_goes_back(x->run)) * M + x->m] = at + seconds;
                s->t->devices[d].busy += seconds;
                finish(s, d, 0, at, at + seconds);
            }
        }
    }
}

/* The streams of every device. */
static Timeline *walk_streams(Arena *a, const Program *p, TimelineKind kind)
{
    Sim s = {.p = p, .kind = kind, .t = ARENA_NEW(a, Timeline)};
    Timeline *t = s.t;
    prepare(&s, a);
    if (kind == TIMELINE_SHAPE)
        walk_runs(&s, a);
    while (s.queued > 0 && kind != TIMELINE_SHAPE) {
        int d = s.queue[s.queue_first];
        s.queue_first = (s.queue_first + 1) % p->devices.n;
        s.queued--;
        s.walkers[d].queued = false;
        bool moved;
        do {
            moved = false;
            for (int stream = 0; stream < STREAMS; stream++)
                moved = advance(&s, d, stream) || moved;
        } while (moved);
    }
    t->complete = true;
    for (int d = 0; d < p->devices.n; d++)
        for (int stream = 0; stream < (kind == TIMELINE_SHAPE ? 1 : STREAMS); stream++)
            t->complete = t->complete && s.walkers[d].head[stream].at >= list_of(&s, d)->actions.n;
    return t;
}

Timeline *timeline_make(Arena *a, const Program *p, TimelineKind kind)
{
    const bool links =
        kind == TIMELINE_SECONDS && p->model->profile && p->transfer == TRANSFER_LINKS;
    Timeline *t = links ? timeline_links(a, p) : walk_streams(a, p, kind);
    double busy = 0;
    for (int d = 0; d < p->devices.n; d++) {
        const double span = span_of(p, t, d);
        t->period = span > t->period ? span : t->period;
        busy += t->devices[d].busy;
    }
    if (t->period > 0)
        t->bubble = 1 - busy / (t->period * p->devices.n);
    if (t->bubble < 1e-12)
        t->bubble = 0; /* rounding of a sum */
    return t;
}

/* ------------------------------------------------------------------------ kept memory */

/* What one micro-batch's action of a sort (a run or a link) takes and gives back. */
typedef struct {
    int64_t takes, gives;
    int first; /* place in the list for the first micro-batch; NONE */
} Toucher;

typedef struct {
    int first, last; /* touchers of a buffer, by their place in the list; NONE */
} Life;

static void life_touch(Life *life, int buffer, int toucher, const Toucher *t)
{
    if (buffer == NONE || t[toucher].first == NONE)
        return;
    Life *x = &life[buffer];
    if (x->first == NONE || t[toucher].first < t[x->first].first)
        x->first = toucher;
    if (x->last == NONE || t[toucher].first > t[x->last].first)
        x->last = toucher;
}

static int toucher_of(const Program *p, const Action *a)
{
    if (a->kind == ACT_RUN)
        return a->chunk * RUN_KINDS + (int)a->run;
    if (action_copies(a))
        return p->chunks.n * RUN_KINDS + p->links.n + 2 * a->chunk + (a->kind == ACT_COPY_IN);
    return a->kind == ACT_SEND || a->kind == ACT_RECV ? p->chunks.n * RUN_KINDS + a->link : NONE;
}

/* Which action is the first to touch a buffer and which the last is the same for every
 * micro-batch, so the first micro-batch tells it for all. */
static Toucher *find_touchers(Arena *a, const Program *p, int device)
{
    const Device *d = &p->devices.at[device];
    const int copies = p->chunks.n * RUN_KINDS + p->links.n, n = copies + 2 * p->chunks.n;
    Toucher *t = ARENA_ARRAY(a, Toucher, n);
    Life *life = ARENA_ARRAY(a, Life, d->buffers.n);
    for (int i = 0; i < n; i++)
        t[i].first = NONE;
    for (int b = 0; b < d->buffers.n; b++)
        life[b] = (Life){NONE, NONE};
    for (int i = 0; i < d->train.actions.n; i++) {
        int k = toucher_of(p, &d->train.actions.at[i]);
        if (k != NONE && t[k].first == NONE)
            t[k].first = i;
    }
    for (int c = 0; c < d->chunks.n * RUN_KINDS; c++) {
        int chunk = d->chunks.at[c / RUN_KINDS], kind = c % RUN_KINDS;
        const Run *run = &p->chunks.at[chunk].run[kind];
        for (int i = 0; i < run->calls.n; i++) {
            const Call *call = &run->calls.at[i];
            for (int r = 0; r < call->nin + call->nout; r++) {
                const Ref *ref = r < call->nin ? &call->in[r] : &call->out[r - call->nin];
                life_touch(life, ref->buffer, chunk * RUN_KINDS + kind, t);
                life_touch(life, ref->entry, chunk * RUN_KINDS + kind, t);
            }
        }
    }
    for (int l = 0; l < p->links.n; l++) {
        const Link *link = &p->links.at[l];
        if (link->from == device)
            life_touch(life, link->source.buffer, p->chunks.n * RUN_KINDS + l, t);
        if (link->to == device)
            life_touch(life, link->target.buffer, p->chunks.n * RUN_KINDS + l, t);
    }
    for (int i = 0; i < d->offloads.n; i++) {
        const Offload *o = &d->offloads.at[i];
        life_touch(life, o->buffer, copies + 2 * o->chunk, t);
        life_touch(life, o->back, copies + 2 * o->chunk + 1, t);
    }
    for (int b = 0; b < d->buffers.n; b++) {
        const Buffer *x = &d->buffers.at[b];
        if (x->class != BUFFER_KEPT || life[b].first == NONE)
            continue;
        t[life[b].first].takes += x->stride * x->ring;
        t[life[b].last].gives += x->stride * x->ring;
    }
    return t;
}

/* At one moment what ends gives back before what begins takes. */
static int by_time(const void *a, const void *b)
{
    const KeptStep *x = a, *y = b;
    if (x->at < y->at || x->at > y->at)
        return x->at < y->at ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

KeptSteps timeline_kept(Arena *a, const Program *p, const Timeline *t, int device)
{
    const ActionList *list = &p->devices.at[device].train;
    const Toucher *touchers = find_touchers(a, p, device);
    KeptSteps changes = {0}, out = {0};
    for (int i = 0; i < list->actions.n; i++) {
        int k = toucher_of(p, &list->actions.at[i]);
        Span span = t->devices[device].spans[i];
        if (k == NONE || span.end < 0)
            continue;
        if (touchers[k].takes)
            VEC_PUSH(a, &changes, (KeptStep){span.start, touchers[k].takes});
        if (touchers[k].gives)
            VEC_PUSH(a, &changes, (KeptStep){span.end, -touchers[k].gives});
    }
    if (changes.n)
        qsort(changes.at, (size_t)changes.n, sizeof *changes.at, by_time);
    int64_t bytes = 0;
    VEC_PUSH(a, &out, (KeptStep){0, 0});
    for (int i = 0; i < changes.n; i++) {
        bytes += changes.at[i].bytes;
        if (out.at[out.n - 1].at < changes.at[i].at)
            VEC_PUSH(a, &out, (KeptStep){changes.at[i].at, bytes});
        else
            out.at[out.n - 1].bytes = bytes;
    }
    return out;
}
