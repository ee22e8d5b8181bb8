/* nccl_match.c - which call of one rank belongs to which call of another.
 *
 * In: calls, as they get their place in a stream. Sends and receives wait in a queue for each
 * pair of ranks; collective calls in a list by number. Calls that belong together but do not
 * agree are reported with both sides.
 */
#include <stdlib.h>

#include "nccl_world.h"

enum { TEXT = 640 };

/* The operation; where that is a group, the call in it before. */
static char *side_describe(const Part *part, char *out, size_t size)
{
    char name[160], where[400];
    bool grouped = launch_of(part)->nparts > 1;
    snprintf(out, size, "%s%s%s", grouped ? part_describe(part, name, sizeof name) : "",
             grouped ? " in " : "", sim_op_describe(part->launch, where, sizeof where));
    return out;
}

static void report_mismatch(const char *what, const Part *a, const Part *b)
{
    char left[TEXT], right[TEXT];
    sim_report(SIM_NCCL_MISMATCH, "%s\n%s\n%s", what, side_describe(a, left, sizeof left),
               side_describe(b, right, sizeof right));
}

/* -------------------------------------------------------------- sends and receives */

static Pair *pair_of(const Part *part)
{
    const Clique *c = part->comm->clique;
    bool send = part->kind == PART_SEND;
    int from = send ? part->comm->rank : part->peer, to = send ? part->peer : part->comm->rank;
    return &c->pairs[from * c->nranks + to];
}

static void message_check(const Part *a, const Part *b)
{
    if (a->type != b->type)
        report_mismatch("a message is sent and received as different types", a, b);
    else if (a->count != b->count)
        report_mismatch("a message is sent and received with different counts", a, b);
}

static void message_match(Part *part)
{
    Pair *pair = pair_of(part);
    Part *other = pair->first;
    if (!other || other->kind == part->kind) {
        *(other ? &pair->last->next : &pair->first) = part;
        pair->last = part;
        return;
    }
    pair->first = other->next;
    other->next = NULL;
    part->partner = other;
    other->partner = part;
    message_check(part, other);
}

static void message_unmatch(Part *part)
{
    Pair *pair = pair_of(part);
    if (part->partner) {
        part->partner->partner = NULL;
        part->partner = NULL;
        return;
    }
    for (Part **at = &pair->first, *before = NULL; *at; before = *at, at = &(*at)->next)
        if (*at == part) {
            *at = part->next;
            if (pair->last == part)
                pair->last = before;
            return;
        }
}

/* ------------------------------------------------------------------- collective calls */

static Meeting *meeting_of(Clique *clique, uint64_t number)
{
    Meeting **at = &clique->meetings;
    while (*at && (*at)->number != number)
        at = &(*at)->next;
    if (*at)
        return *at;
    Meeting *made = calloc(1, sizeof *made + (size_t)clique->nranks * sizeof made->parts[0]);
    if (!made)
        abort();
    made->number = number;
    return *at = made;
}

static void meeting_check(Meeting *m, const Part *part, const Part *other)
{
    const char *what =
        part->kind != other->kind     ? "ranks call different collective functions"
        : part->type != other->type   ? "ranks give different types"
        : part->count != other->count ? "ranks give different counts"
        : part_reduces(part->kind) && part->op != other->op      ? "ranks give different reductions"
        : part_has_root(part->kind) && part->peer != other->peer ? "ranks give different roots"
                                                                 : NULL;
    if (!what)
        return;
    m->broken = true;
    report_mismatch(what, part, other);
}

static void meeting_match(Part *part)
{
    Clique *clique = part->comm->clique;
    Meeting *m = meeting_of(clique, clique->calls[part->comm->rank]++);
    for (int i = 0; i < clique->nranks; i++)
        if (m->parts[i]) {
            meeting_check(m, part, m->parts[i]);
            break;
        }
    m->parts[part->comm->rank] = part;
    m->called++;
    part->meeting = m;
}

void meeting_leave(Part *part)
{
    Clique *clique = part->comm->clique;
    Meeting *m = part->meeting;
    part->meeting = NULL;
    m->parts[part->comm->rank] = NULL;
    if (++m->left < clique->nranks)
        return;
    Meeting **at = &clique->meetings;
    while (*at && *at != m)
        at = &(*at)->next;
    if (*at)
        *at = m->next;
    free(m);
}

/* --------------------------------------------------------------------------- both */

void part_match(Part *part)
{
    if (part_is_message(part))
        message_match(part);
    else
        meeting_match(part);
}

void part_unmatch(Part *part)
{
    if (part_is_message(part))
        message_unmatch(part);
    else
        meeting_leave(part);
}
