/* learning_rate.c - the rate of a step, from the schedule alone.
 *
 *          lr  /‾‾\__        warm-up: lr s / warmup, so the last step of it has lr;
 *             /      \__     then constant; or cosine or linear in the steps left: the first of
 *            /          \    them has lr, the one after the last would have `min`, as in
 *      step  1  warmup   steps   PyTorch's CosineAnnealingLR with T_max = steps.
 */
#include <math.h>

#include "trainer.h"

double learning_rate(MdlLrSchedule schedule, double lr, double min, int64_t warmup, int64_t step,
                     int64_t steps)
{
    if (step <= warmup)
        return lr * (double)step / (double)warmup;
    if (schedule == MDL_LR_CONSTANT || steps <= warmup)
        return lr;
    double part = (double)(step - 1 - warmup) / (double)(steps - warmup);
    if (schedule == MDL_LR_LINEAR)
        return lr + (min - lr) * part;
    return min + (lr - min) * 0.5 * (1 + cos(acos(-1.0) * part));
}
