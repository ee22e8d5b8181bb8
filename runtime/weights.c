/* weights.c - the weights of the whole model: their names, places and files.
 *
 * In: every stage's runs of weights. Out: one list of all, and by index the owners, which
 * is the order of sums over weights and of exported files. Names in files are the
 * weights' own; a checkpoint holds the optimizer's state besides, as optimizer.K:NAME.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "trainer.h"

static size_t name_room(const MdlWeight *run)
{
    return strlen(run->prefix) + strlen(run->suffix) + 24;
}

static int run_bad(const MdlWeight *run, const char *what, Problem *p)
{
    return problem_set(p, EXIT_RUN, "weight '%s': %s; the model's description is wrong",
                       run->prefix, what);
}

/* Whether turns of `count` elements lie within a stage's memory. */
static bool place_fits(int64_t offset, int64_t stride, int64_t turns, int64_t count, int64_t memory)
{
    int64_t size, last;
    return offset >= 0 && !__builtin_mul_overflow(count, (int64_t)sizeof(real), &size) &&
           !__builtin_mul_overflow(stride, turns - 1, &last) &&
           !__builtin_add_overflow(last, offset, &last) && last >= 0 &&
           !__builtin_add_overflow(last > offset ? last : offset, size, &last) && last <= memory;
}

static int run_add(Weights *list, char **names, const MdlModel *model, int stage,
                   const MdlWeight *run, Problem *p)
{
    int64_t count, memory = model->stages[stage]->bytes;
    if (!size_product(&count, run->dim, run->rank) || count == 0)
        return run_bad(run, "the shape is no size", p);
    if (!place_fits(run->weight, run->weight_stride, run->count, count, memory))
        return run_bad(run, "it lies outside the stage's memory", p);
    if (run->grad >= 0 && !place_fits(run->grad, run->grad_stride, run->count, count, memory))
        return run_bad(run, "its gradient lies outside the stage's memory", p);
    for (int k = 0; k < 2; k++)
        if (run->state[k] >= 0 &&
            !place_fits(run->state[k], run->state_stride, run->count, count, memory))
            return run_bad(run, "its state lies outside the stage's memory", p);
    for (int64_t turn = 0; turn < run->count; turn++) {
        Weight *w = &list->all[list->n++];
        *w = (Weight){*names, stage, run, turn, run->index + turn * run->index_step, count};
        int n = run->first < 0 ? snprintf(*names, name_room(run), "%s", run->prefix)
                               : snprintf(*names, name_room(run), "%s%" PRId64 "%s", run->prefix,
                                          run->first + turn * run->step, run->suffix);
        *names += n + 1;
        if (w->index < 0 || w->index >= model->nweights)
            return run_bad(run, "its index is not one of the model's", p);
        if (!run->owner)
            continue;
        if (list->owner[w->index])
            return run_bad(run, "two weights have the same index", p);
        list->owner[w->index] = w;
    }
    return MDL_OK;
}

static int weights_fill(Weights *list, const MdlModel *model, Problem *p)
{
    char *names = list->names;
    for (int i = 0; i < model->nstages; i++)
        for (int k = 0; k < model->stages[i]->nweights; k++)
            TRY(run_add(list, &names, model, i, &model->stages[i]->weights[k], p));
    for (int64_t i = 0; i < model->nweights; i++)
        if (!list->owner[i])
            return problem_set(p, EXIT_RUN,
                               "weight %lld has no owner; the model's description "
                               "is wrong",
                               (long long)i);
    return MDL_OK;
}

int weights_list(Weights *list, const MdlModel *model, Problem *p)
{
    size_t n = 0, room = 0;
    *list = (Weights){0};
    for (int i = 0; i < model->nstages; i++)
        for (int k = 0; k < model->stages[i]->nweights; k++) {
            const MdlWeight *run = &model->stages[i]->weights[k];
            n += (size_t)run->count;
            room += (size_t)run->count * name_room(run);
        }
    list->all = calloc(n + 1, sizeof *list->all);
    list->owner = calloc((size_t)model->nweights + 1, sizeof(Weight *));
    list->names = malloc(room + 1);
    if (!list->all || !list->owner || !list->names)
        return problem_no_memory(p, "the list of weights");
    return weights_fill(list, model, p);
}

void weights_free(Weights *list)
{
    free(list->all);
    free(list->owner);
    free(list->names);
    *list = (Weights){0};
}

real *weight_at(const Trainer *t, const Weight *w, int64_t offset, int64_t stride)
{
    return (real *)(void *)(t->devices[w->stage].stage.memory + offset + w->turn * stride);
}

real *weight_data(const Trainer *t, const Weight *w)
{
    return weight_at(t, w, w->run->weight, w->run->weight_stride);
}

/* "optimizer.K:NAME", to be freed; NULL when memory runs out. */
static char *state_name(const Weight *w, int k)
{
    size_t size = strlen(w->name) + sizeof "optimizer.0:";
    char *name = malloc(size);
    if (name)
        snprintf(name, size, "optimizer.%d:%s", k, w->name);
    return name;
}

static bool state_kept(const Weight *w, int k)
{
    return w->run->owner && !w->run->frozen && w->run->state[k] >= 0;
}

static int tensor_check(const TensorFile *file, const char *path, const Weight *w, const char *name,
                        Problem *p)
{
    const MdlWeight *run = w->run;
    const Tensor *found = tensors_find(file, name);
    char have[TEXT_SHAPE], want[TEXT_SHAPE];
    if (!found)
        return problem_set(p, EXIT_RUN, "%s: has no tensor '%s'", path, name);
    if (found->rank != run->rank ||
        memcmp(found->dim, run->dim, (size_t)run->rank * sizeof *run->dim) != 0)
        return problem_set(
            p, EXIT_RUN, "%s: tensor '%s' has the shape %s; the model needs %s", path, name,
            text_shape(have, found->dim, found->rank < MDL_RANK ? found->rank : MDL_RANK),
            text_shape(want, run->dim, run->rank));
    if (found->type == TENSOR_OTHER)
        return problem_set(p, EXIT_RUN, "%s: tensor '%s' is not of a floating type", path, name);
    return MDL_OK;
}

int weights_check(const Trainer *t, const TensorFile *file, bool state, Problem *p)
{
    const char *path = state ? t->options.resume : t->options.load;
    for (int64_t i = 0; i < t->model->nweights; i++) {
        const Weight *w = t->weights.owner[i];
        TRY(tensor_check(file, path, w, w->name, p));
        for (int k = 0; state && k < 2; k++) {
            if (!state_kept(w, k))
                continue;
            char *name = state_name(w, k);
            int status = name ? tensor_check(file, path, w, name, p) : problem_no_memory(p, path);
            free(name);
            TRY(status);
        }
    }
    int64_t extra = tensors_count(file) - t->model->nweights;
    if (!state && extra > 0 && !t->options.quiet)
        printf("%s: %lld tensors more than the model has weights; they are not used\n", path,
               (long long)extra);
    return MDL_OK;
}

int weights_read(Trainer *t, int stage, Problem *p)
{
    for (int64_t i = 0; i < t->weights.n; i++) {
        const Weight *w = &t->weights.all[i];
        if (w->stage != stage)
            continue;
        TRY(tensors_read(t->initial, tensors_find(t->initial, w->name), weight_data(t, w), p));
        for (int k = 0; t->resumed && k < 2; k++) {
            if (!state_kept(w, k))
                continue;
            char *name = state_name(w, k);
            if (!name)
                return problem_no_memory(p, "a name");
            real *to = weight_at(t, w, w->run->state[k], w->run->state_stride);
            int status = tensors_read(t->initial, tensors_find(t->initial, name), to, p);
            free(name);
            TRY(status);
        }
    }
    return MDL_OK;
}

/* The weights and, where `names` has room for them, the state; returns how many. */
static int64_t items_list(const Trainer *t, TensorItem *items, char **names)
{
    int64_t n = 0;
    for (int64_t i = 0; i < t->model->nweights; i++) {
        const Weight *w = t->weights.owner[i];
        items[n++] = (TensorItem){w->name, w->run->rank, w->run->dim, weight_data(t, w)};
    }
    for (int64_t i = 0; names && i < t->model->nweights; i++)
        for (int k = 0; k < 2; k++) {
            const Weight *w = t->weights.owner[i];
            if (!state_kept(w, k))
                continue;
            names[2 * i + k] = state_name(w, k);
            items[n++] = (TensorItem){names[2 * i + k], w->run->rank, w->run->dim,
                                      weight_at(t, w, w->run->state[k], w->run->state_stride)};
        }
    return n;
}

int weights_save(const Trainer *t, const char *path, bool state, const TensorNote *notes,
                 int nnotes, Problem *p)
{
    size_t weights = (size_t)t->model->nweights;
    TensorItem *items = calloc(3 * weights + 1, sizeof *items);
    char **names = calloc(2 * weights + 1, sizeof *names);
    int status = items && names ? MDL_OK : problem_no_memory(p, path);
    if (status == MDL_OK) {
        int64_t n = items_list(t, items, state ? names : NULL);
        for (int64_t i = 0; i < n && status == MDL_OK; i++)
            if (!items[i].name)
                status = problem_no_memory(p, path);
        if (status == MDL_OK)
            status = tensors_write(path, items, n, notes, nnotes, state, state, p);
    }
    for (size_t i = 0; names && i < 2 * weights; i++)
        free(names[i]);
    free(names);
    free(items);
    return status;
}
