/* loss_scale.c - the dynamic loss scale of precision f16.
 *
 * The gradient of the loss is multiplied by a power of two, so that small gradients are no
 * zeros in 16 bits. Where a gradient comes out infinite or NaN, no stage updates and the scale
 * is halved; after 2,000 good steps in a row it is doubled (Micikevicius et al. 2018, the
 * numbers of PyTorch's GradScaler). It is decided where all stages meet in a step, by the last
 * to come, and every stage reads it when it begins the next: one decision for all.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "trainer.h"

enum { GOOD_STEPS = 2000 };
static const double first_scale = 65536, most_scale = 0x1p40, least_scale = 0x1p-10;

void loss_scale_start(Trainer *t)
{
    t->scale = (LossScale){.factor = t->model->loss_scaled ? first_scale : 1};
}

bool loss_scale_decide(Trainer *t, bool finite)
{
    LossScale *s = &t->scale;
    if (!t->model->loss_scaled)
        return finite;
    if (finite) {
        s->updates++;
        if (++s->good >= GOOD_STEPS) {
            s->factor = fmin(2 * s->factor, most_scale);
            s->good = 0;
        }
        return true;
    }
    if (s->factor <= least_scale)
        return false;
    s->factor /= 2;
    s->good = 0;
    return true;
}

int loss_scale_notes(const Trainer *t, LossScaleText *text, TensorNote *notes)
{
    if (!t->model->loss_scaled)
        return 0;
    snprintf(text->factor, sizeof text->factor, "%.17g", t->scale.factor);
    snprintf(text->good, sizeof text->good, "%" PRId64, t->scale.good);
    snprintf(text->updates, sizeof text->updates, "%" PRId64, t->scale.updates);
    notes[0] = (TensorNote){"loss_scale", text->factor};
    notes[1] = (TensorNote){"loss_scale_good_steps", text->good};
    notes[2] = (TensorNote){"updates", text->updates};
    return LOSS_SCALE_NOTES;
}

static bool whole_number(const char *text, int64_t most, int64_t *value)
{
    char *end;
    if (!text || *text < '0' || *text > '9')
        return false;
    *value = strtoll(text, &end, 10);
    return *end == '\0' && *value <= most;
}

int loss_scale_resume(Trainer *t, const TensorFile *file, int64_t done, Problem *p)
{
    if (!t->model->loss_scaled)
        return MDL_OK;
    const char *factor = tensors_metadata(file, "loss_scale");
    LossScale s = {.factor = factor ? strtod(factor, NULL) : 0};
    if (!(s.factor >= least_scale && s.factor <= most_scale) ||
        !whole_number(tensors_metadata(file, "loss_scale_good_steps"), GOOD_STEPS, &s.good) ||
        !whole_number(tensors_metadata(file, "updates"), done, &s.updates))
        return problem_set(p, EXIT_RUN, "%s: the checkpoint holds no loss scale",
                           t->options.resume);
    t->scale = s;
    return MDL_OK;
}
