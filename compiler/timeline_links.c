/* timeline_links.c - the step as the host's trainers do it, in time.
 *
 * In:  the ordered actions of every device; what runs and messages cost.
 * Out: start and end of every action; busy time.
 *
 * A device is one thread that does its list in its order: a receive posts a buffer and goes on; a
 * send waits until its buffer is posted and copies; what needs a message waits for its arrival. So
 * a sender that is early stands still, which the two streams of a GPU do not.
 *
 *     receiver   F0 ──────► post ► wait ....► B0
 *     sender     B0 ─► send ..........copy──► F1
 *
 * A list-driven simulation: a device goes on until something is missing, and is looked at again
 * when that came. */
#include <stdlib.h>

#include "cost.h"
#include "timeline.h"

/* One message of a link. */
typedef struct {
    double posted, arrived; /* -1: not yet */
    int post;               /* number of the receiver's action */
} Mail;

typedef struct {
    int at;
    double now;
    bool queued, clipping;
} Thread;

typedef struct {
    const Program *p;
    Timeline *t;
    Thread *threads; /* [devices] */
    Mail *mail;      /* [links * micro-batches] */
    int *queue;      /* of devices to look at; a ring with a place for each */
    int queue_first, queued;
    int clippers, clipped; /* threads that clip, and that have come to it */
    double clip_at;
} Host;

static void wake(Host *h, int device)
{
    if (h->threads[device].queued)
        return;
    h->threads[device].queued = true;
    h->queue[(h->queue_first + h->queued++) % h->p->devices.n] = device;
}

static Mail *mail_of(const Host *h, const Action *a)
{
    return &h->mail[(int64_t)a->link * h->p->microbatches + a->m];
}

/* The messages that the action needs are there; the thread has waited for them. */
static bool take_messages(const Host *h, int device, const Action *a)
{
    const ActionList *list = &h->p->devices.at[device].train;
    double now = h->threads[device].now;
    for (int w = 0; w < a->nwaits && action_stream(a) == 0; w++) {
        const Action *on = &list->actions.at[list->waits.at[a->first_wait + w]];
        if (on->kind != ACT_RECV)
            continue;
        const double arrived = mail_of(h, on)->arrived;
        if (arrived < 0)
            return false;
        now = arrived > now ? arrived : now;
    }
    h->threads[device].now = now;
    return true;
}

static void end_action(Host *h, int device, double start)
{
    Thread *x = &h->threads[device];
    h->t->devices[device].spans[x->at++] = (Span){start, x->now};
    if (x->now > h->t->step)
        h->t->step = x->now;
}

static bool send(Host *h, int device, const Action *a)
{
    Thread *x = &h->threads[device];
    Mail *mail = mail_of(h, a);
    const Link *link = &h->p->links.at[a->link];
    const int from = h->p->devices.at[link->from].number, to = h->p->devices.at[link->to].number;
    const Devices *d = &h->p->model->settings.devices;
    if (mail->posted < 0)
        return false;
    const double start = mail->posted > x->now ? mail->posted : x->now;
    mail->arrived = start + timeline_transfer_seconds(h->p, link);
    x->now = mail->arrived - cost_transfer_seconds(d, from, to, 0);
    h->t->devices[link->to].spans[mail->post] = (Span){start, mail->arrived};
    end_action(h, device, start);
    wake(h, link->to);
    return true;
}

static void post(Host *h, int device, const Action *a)
{
    Thread *x = &h->threads[device];
    Mail *mail = mail_of(h, a);
    mail->posted = x->now;
    mail->post = x->at++;
    wake(h, h->p->links.at[a->link].from);
}

/* All devices exchange their norms: none goes on before the last has come. */
static bool clip(Host *h, int device, double seconds)
{
    Thread *x = &h->threads[device];
    if (!x->clipping) {
        x->clipping = true;
        x->now += seconds;
        h->t->devices[device].busy += seconds;
        h->t->devices[device].clipping = seconds;
        h->clip_at = x->now > h->clip_at ? x->now : h->clip_at;
        if (++h->clipped == h->clippers)
            for (int d = 0; d < h->p->devices.n; d++)
                wake(h, d);
    }
    if (h->clipped < h->clippers)
        return false;
    const double start = x->now - seconds;
    x->now = h->clip_at;
    end_action(h, device, start);
    return true;
}

/* Does what the device can do. */
static void go_on(Host *h, int device)
{
    const ActionList *list = &h->p->devices.at[device].train;
    Thread *x = &h->threads[device];
    while (x->at < list->actions.n) {
        const Action *a = &list->actions.at[x->at];
        if (!take_messages(h, device, a))
            return;
        const double start = x->now, seconds = timeline_action_seconds(h->p, device, a);
        if (a->kind == ACT_RECV) {
            post(h, device, a);
        } else if (a->kind == ACT_SEND) {
            if (!send(h, device, a))
                return;
        } else if (a->kind == ACT_CLIP) {
            if (!clip(h, device, seconds))
                return;
        } else {
            x->now += seconds;
            h->t->devices[device].busy += action_copies(a) ? 0 : seconds;
            end_action(h, device, start);
        }
    }
}

static void prepare(Host *h, Arena *a)
{
    const int n = h->p->devices.n;
    const int64_t messages = (int64_t)h->p->links.n * h->p->microbatches;
    h->t->devices = ARENA_ARRAY(a, DeviceTime, n);
    h->threads = ARENA_ARRAY(a, Thread, n);
    h->queue = ARENA_ARRAY(a, int, n);
    h->mail = ARENA_ARRAY(a, Mail, messages + 1);
    for (int64_t i = 0; i < messages; i++)
        h->mail[i] = (Mail){-1, -1, NONE};
    for (int d = 0; d < n; d++) {
        const ActionList *list = &h->p->devices.at[d].train;
        h->t->devices[d].spans = ARENA_ARRAY(a, Span, list->actions.n);
        for (int i = 0; i < list->actions.n; i++) {
            h->t->devices[d].spans[i] = (Span){-1, -1};
            h->clippers += list->actions.at[i].kind == ACT_CLIP;
        }
        wake(h, d);
    }
}

Timeline *timeline_links(Arena *a, const Program *p)
{
    Host h = {.p = p, .t = ARENA_NEW(a, Timeline)};
    prepare(&h, a);
    while (h.queued > 0) {
        const int d = h.queue[h.queue_first];
        h.queue_first = (h.queue_first + 1) % p->devices.n;
        h.queued--;
        h.threads[d].queued = false;
        go_on(&h, d);
    }
    h.t->complete = true;
    for (int d = 0; d < p->devices.n; d++)
        h.t->complete = h.t->complete && h.threads[d].at >= p->devices.at[d].train.actions.n;
    return h.t;
}
